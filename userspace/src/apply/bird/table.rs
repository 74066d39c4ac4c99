//! What `show status` and `show protocols all` say, as types: pure, for BIRD 1.6 and 2.

use super::reply::Reply;
use std::net::Ipv6Addr;

/// `show status`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Daemon {
    pub router_id: Option<String>,
    pub started: Option<String>,
    pub reconfigured: Option<String>,
    /// It has just been started and waits for its neighbours.
    pub recovering: bool,
}

/// A protocol of `show protocols all`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Protocol {
    pub name: String,
    /// `BGP`, `Kernel` and so on.
    pub kind: String,
    /// `up`, `start`, `wait` or `down`.
    pub state: String,
    /// When it came into this state.
    pub since: String,
    /// What the table says besides; a BGP session's state and last error.
    pub info: String,
    pub description: Option<String>,
    pub bgp: Option<Session>,
    /// Routes taken from it.
    pub imported: u64,
    /// Routes given to it.
    pub exported: u64,
    /// Routes taken from it that are the best of their destinations.
    pub preferred: u64,
}

/// What is particular to BGP.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Session {
    /// `Established`, `Active` and so on.
    pub state: String,
    pub neighbour: Option<Ipv6Addr>,
    pub remote_as: Option<u32>,
    pub source: Option<Ipv6Addr>,
    pub last_error: Option<String>,
}

/// Code of rows about graceful restart in `show status`.
const GRACEFUL_RESTART: u16 = 24;
/// Code of a protocol's row in the table.
const ROW: u16 = 1002;
/// Code of its details.
const DETAIL: u16 = 1006;

impl Daemon {
    pub fn of(reply: &Reply) -> Self {
        let after = |prefix: &str| {
            reply.rows.iter().find_map(|row| row.text.trim().strip_prefix(prefix).map(str::to_owned))
        };
        Self {
            router_id: after("Router ID is "),
            started: after("Last reboot on "),
            reconfigured: after("Last reconfiguration on "),
            recovering: reply.rows.iter().any(|row| row.code == GRACEFUL_RESTART),
        }
    }
}

impl Protocol {
    pub fn list(reply: &Reply) -> Vec<Self> {
        let mut all: Vec<Self> = Vec::new();
        for row in &reply.rows {
            match row.code {
                ROW => all.extend(Self::row(&row.text)),
                DETAIL => {
                    if let Some(protocol) = all.last_mut() {
                        protocol.detail(row.text.trim());
                    }
                }
                _ => {}
            }
        }
        all
    }

    /// `Name Proto Table State Since Info`, the time of one word or two.
    fn row(text: &str) -> Option<Self> {
        let (name, rest) = word(text)?;
        let (kind, rest) = word(rest)?;
        let (_table, rest) = word(rest)?;
        let (state, mut rest) = word(rest)?;
        let mut since = Vec::new();
        while let Some((next, after)) = word(rest) {
            let of_time = next.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'-' | b':' | b'.'));
            if !of_time || since.len() == 2 {
                break;
            }
            since.push(next);
            rest = after;
        }
        let bgp = (kind == "BGP").then(|| Session {
            state: word(rest).map_or(state, |(first, _)| first).to_owned(),
            ..Session::default()
        });
        Some(Self {
            name: name.to_owned(),
            kind: kind.to_owned(),
            state: state.to_owned(),
            since: since.join(" "),
            info: rest.trim().to_owned(),
            bgp,
            ..Self::default()
        })
    }

    fn detail(&mut self, text: &str) {
        let Some((key, value)) = text.split_once(':') else { return };
        let value = value.trim();
        match key {
            "Description" => self.description = Some(value.to_owned()),
            // One line a channel; only one has IPv6.
            "Routes" => (self.imported, self.exported, self.preferred) = routes(value),
            _ => {}
        }
        let Some(bgp) = &mut self.bgp else { return };
        match key {
            "BGP state" => bgp.state = value.to_owned(),
            "Neighbor address" => bgp.neighbour = address(value),
            "Neighbor AS" => bgp.remote_as = value.parse().ok(),
            "Source address" => bgp.source = address(value),
            "Last error" => bgp.last_error = Some(value.to_owned()),
            _ => {}
        }
    }
}

/// The first word and what follows.
fn word(text: &str) -> Option<(&str, &str)> {
    let text = text.trim_start();
    let end = text.find(char::is_whitespace).unwrap_or(text.len());
    (end > 0).then(|| text.split_at(end))
}

/// An address, with or without `%interface`.
fn address(text: &str) -> Option<Ipv6Addr> {
    text.split('%').next()?.parse().ok()
}

/// `2 imported, 1 filtered, 3 exported, 2 preferred`.
fn routes(text: &str) -> (u64, u64, u64) {
    let number = |what: &str| {
        let part = text.split(", ").find_map(|part| part.strip_suffix(what));
        part.and_then(|number| number.trim().parse().ok()).unwrap_or(0)
    };
    (number("imported"), number("exported"), number("preferred"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(text: &str) -> Reply {
        let mut reply = Reply::default();
        for line in text.lines() {
            reply.take(line).unwrap();
        }
        reply
    }

    const BIRD_2: &str = "2002-Name       Proto      Table      State  Since         Info
1002-serval_device Device     ---        up     2026-11-24 06:56:00  
1006-  Description:    serval revision 0123
 
1002-serval_kernel Kernel     master6    up     2026-11-24 06:56:00  
1006-  Channel ipv6
   State:          UP
   Routes:         2 imported, 3 exported, 2 preferred
   Route change stats:     received   rejected   filtered    ignored   accepted
     Import updates:              2          0          0          0          2
 
1002-mesh_b BGP        ---        up     2026-11-24 06:56:01  Established   
1006-  Description:    compute-2
   BGP state:          Established
     Neighbor address: fd00::2
     Neighbor AS:      64512
     Local AS:         64512
     Source address:   fd00::1
   Channel ipv6
     Routes:         5 imported, 1 filtered, 7 exported, 4 preferred
 
1002-peer_tor BGP        ---        start  06:56:25.378  Active        Socket: Connection closed
1006-  BGP state:          Active
     Neighbor address: fe80::1%eth0
     Neighbor AS:      65000
     Last error:       Socket: Connection closed
 
0000 
";

    const BIRD_1: &str = "2002-name     proto    table    state  since       info
1002-mesh_b BGP      master   start  06:57:20    Active        Socket: Connection closed
1006-  Description:    compute-2
   Preference:     100
   Routes:         0 imported, 4 exported, 0 preferred
   BGP state:          Active
     Neighbor address: fd00::2
     Neighbor AS:      64512
     Last error:       Socket: Connection closed
 
1002-peer_off BGP      master   down   2026-11-24  
0000 
";

    #[test]
    fn protocols_of_bird_2() {
        let all = Protocol::list(&reply(BIRD_2));
        let show = |p: &Protocol| {
            format!(
                "{} {} {} [{}] {}/{}/{}",
                p.name, p.kind, p.state, p.since, p.imported, p.exported, p.preferred
            )
        };
        assert_eq!(
            all.iter().map(show).collect::<Vec<_>>(),
            [
                "serval_device Device up [2026-11-24 06:56:00] 0/0/0",
                "serval_kernel Kernel up [2026-11-24 06:56:00] 2/3/2",
                "mesh_b BGP up [2026-11-24 06:56:01] 5/7/4",
                "peer_tor BGP start [06:56:25.378] 0/0/0",
            ]
        );
        assert_eq!(all[0].description.as_deref(), Some("serval revision 0123"));
        let session = all[2].bgp.as_ref().unwrap();
        assert_eq!((session.state.as_str(), session.remote_as), ("Established", Some(64_512)));
        assert_eq!(session.source, Some("fd00::1".parse().unwrap()));
        let session = all[3].bgp.as_ref().unwrap();
        assert_eq!(session.neighbour, Some("fe80::1".parse().unwrap()));
        assert_eq!(session.last_error.as_deref(), Some("Socket: Connection closed"));
    }

    #[test]
    fn protocols_of_bird_1() {
        let all = Protocol::list(&reply(BIRD_1));
        assert_eq!((all[0].imported, all[0].exported, all[0].since.as_str()), (0, 4, "06:57:20"));
        assert_eq!(all[0].bgp.as_ref().unwrap().state, "Active");
        assert_eq!(all[0].description.as_deref(), Some("compute-2"));
        assert_eq!(
            (all[1].bgp.as_ref().unwrap().state.as_str(), all[1].since.as_str()),
            ("down", "2026-11-24")
        );
    }

    #[test]
    fn the_daemon_itself() {
        let text = "1000-BIRD 2.0.12\n1011-Router ID is 10.0.0.1\n Hostname is vm\n Last reboot on 2026-11-24 06:56:44.820\n Last reconfiguration on 2026-11-24 06:57:44.820\n";
        let daemon = Daemon::of(&reply(&format!("{text}0013 Daemon is up and running\n")));
        assert_eq!(daemon.router_id.as_deref(), Some("10.0.0.1"));
        assert_eq!(daemon.started.as_deref(), Some("2026-11-24 06:56:44.820"));
        assert!(!daemon.recovering);
        let recovering =
            format!("{text}0024-Graceful restart recovery in progress\n  Waiting for 1 channels\n0013 up\n");
        assert!(Daemon::of(&reply(&recovering)).recovering);
    }

    proptest::proptest! {
        #[test]
        fn no_reply_makes_it_panic(rows in proptest::collection::vec("(1002|1006|0024)-.{0,60}", 0..8)) {
            let mut reply = Reply::default();
            for row in rows {
                let Ok(_) = reply.take(&row) else { continue };
            }
            Protocol::list(&reply);
            Daemon::of(&reply);
        }
    }
}
