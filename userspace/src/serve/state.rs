//! What the server knows of its endpoints and what it does on each event: frames to send, counters, schedules. No I/O;
//! time and chance are passed in.

use super::advertise::{Schedule, render, render_to, render_withdrawal};
use super::dhcp6::{self, Answer};
use super::frame::{self, Destination};
use super::limit::Bucket;
use super::socket::Received;
use super::solicitation;
use crate::config::Duid;
use crate::plan::Attached;
use std::collections::BTreeMap;
use std::io;
use std::net::Ipv6Addr;
use std::time::Instant;

/// What the daemon has answered on one endpoint, and how its guest's route does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServeStats {
    /// DHCPv6 replies sent.
    pub dhcp6_replies: u64,
    /// DHCPv6 messages that got no reply because they are not legal.
    pub dhcp6_discarded: u64,
    /// Router advertisements sent, answers to solicitations included.
    pub router_advertisements: u64,
    /// Router solicitations answered because no hook did.
    pub solicitations_answered: u64,
    /// Messages not looked at because the VM sent too many.
    pub rate_limited: u64,
    /// Frames that could not be sent.
    pub send_errors: u64,
    /// Seconds until the guest's default route expires, from the last advertisement that the daemon itself sent; `None`
    /// before the first.
    pub router_expires_in: Option<u64>,
}

/// A frame to send, and what it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Outgoing {
    pub ifindex: u32,
    pub frame: Vec<u8>,
    pub kind: Kind,
}

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// An advertisement to all nodes.
    Advertisement,
    /// An advertisement to the VM that solicited it.
    Solicited,
    /// The last advertisement of a gateway that the endpoint had before.
    Withdrawal,
    /// A DHCPv6 reply.
    Dhcp6,
}

/// All endpoints by ifindex.
#[derive(Debug)]
pub(super) struct State {
    server: Duid,
    served: BTreeMap<u32, Served>,
}

/// One endpoint.
#[derive(Debug)]
struct Served {
    endpoint: Attached,
    advertisement: Vec<u8>,
    schedule: Schedule,
    bucket: Bucket,
    stats: ServeStats,
    told: Told,
}

/// What the log has been told of an endpoint, once.
#[derive(Debug, Default)]
struct Told {
    flood: bool,
    truncation: bool,
    send_error: bool,
}

/// What changed with a new set of endpoints.
#[derive(Debug, Default)]
pub(super) struct Change {
    /// New or changed.
    pub current: Vec<u32>,
    /// No longer there.
    pub gone: Vec<u32>,
    /// To be sent before any new advertisement.
    pub withdrawals: Vec<Outgoing>,
}

impl State {
    pub fn new(server: Duid) -> Self {
        Self { server, served: BTreeMap::new() }
    }

    /// Takes over a new set of endpoints. An endpoint that goes leaves its guest alone: no last advertisement.
    pub fn set_endpoints(&mut self, endpoints: &BTreeMap<u32, Attached>, now: Instant) -> Change {
        let mut change = Change::default();
        let mut gone = BTreeMap::new();
        self.served.retain(|ifindex, served| {
            let stays = endpoints.contains_key(ifindex);
            if !stays {
                change.gone.push(*ifindex);
                gone.insert(served.endpoint.interface.clone(), served.endpoint.clone());
            }
            stays
        });
        for (ifindex, endpoint) in endpoints {
            let before = match self.served.get_mut(ifindex) {
                Some(served) if served.endpoint == *endpoint => continue,
                Some(served) => Some(served.update(endpoint, now)),
                None => {
                    self.served.insert(*ifindex, Served::new(endpoint, now));
                    gone.remove(&endpoint.interface)
                }
            };
            change.current.push(*ifindex);
            let old_gateway =
                before.filter(|before| before.gateway != endpoint.gateway && is_listening(endpoint));
            change.withdrawals.extend(old_gateway.map(|before| Outgoing {
                ifindex: *ifindex,
                frame: render_withdrawal(&before),
                kind: Kind::Withdrawal,
            }));
        }
        change
    }

    /// When the next advertisement of any endpoint is due.
    pub fn next_due(&self) -> Option<Instant> {
        self.served.values().filter_map(|served| served.schedule.due()).min()
    }

    /// The advertisements that are due.
    pub fn advertisements(&self, now: Instant) -> Vec<Outgoing> {
        let due = |served: &&Served| served.schedule.due().is_some_and(|due| due <= now);
        let outgoing = |served: &Served| Outgoing {
            ifindex: served.endpoint.ifindex,
            frame: served.advertisement.clone(),
            kind: Kind::Advertisement,
        };
        self.served.values().filter(due).map(outgoing).collect()
    }

    /// A router solicitation; its answer, unless it is to come in turn.
    pub fn solicited(&mut self, received: &Received<'_>, now: Instant) -> Option<Outgoing> {
        let served = self.served.get_mut(&received.ifindex)?;
        let Received { source, hop_limit, payload, .. } = *received;
        if !solicitation::is_valid(&served.endpoint, source, hop_limit, payload) || !served.admits(now) {
            return None;
        }
        if source.is_unspecified() {
            served.stats.solicitations_answered += 1;
            served.schedule.solicited(now);
            return None;
        }
        let to = Destination::vm(served.endpoint.mac, source);
        let frame = render_to(&served.endpoint, to);
        Some(Outgoing { ifindex: received.ifindex, frame, kind: Kind::Solicited })
    }

    /// A DHCPv6 message; its reply.
    pub fn dhcp6(&mut self, received: &Received<'_>, now: Instant) -> Option<Outgoing> {
        let server = &self.server;
        let served = self.served.get_mut(&received.ifindex)?;
        let Received { source, source_port, destination, payload, .. } = *received;
        if !served.admits(now) {
            return None;
        }
        if !source.is_unicast_link_local() || source_port != dhcp6::CLIENT_PORT {
            served.stats.dhcp6_discarded += 1;
            return None;
        }
        match dhcp6::answer(&served.endpoint, server, dhcp6::Request { destination, payload }) {
            Ok(answer) => Some(served.reply(&answer, source)),
            Err(discard) => {
                served.stats.dhcp6_discarded += 1;
                tracing::debug!(interface = %served.endpoint.interface, %source, "DHCPv6 message ignored: {discard}");
                None
            }
        }
    }

    /// Takes note of how sending went. `chance` in 0..1 spreads the next advertisement.
    pub fn settle(&mut self, outgoing: &Outgoing, result: &io::Result<()>, now: Instant, chance: f64) {
        let Some(served) = self.served.get_mut(&outgoing.ifindex) else { return };
        match result {
            Ok(()) => served.sent(outgoing.kind, now, chance),
            Err(error) => served.not_sent(outgoing.kind, error, now),
        }
    }

    pub fn stats(&self, ifindex: u32, now: Instant) -> Option<ServeStats> {
        let served = self.served.get(&ifindex)?;
        Some(ServeStats { router_expires_in: served.schedule.seconds_left(now), ..served.stats })
    }
}

impl Served {
    fn new(endpoint: &Attached, now: Instant) -> Self {
        Self {
            advertisement: render(endpoint),
            schedule: Schedule::new(endpoint.network.router_lifetime, is_listening(endpoint), now),
            bucket: Bucket::new(now),
            stats: ServeStats::default(),
            told: Told::default(),
            endpoint: endpoint.clone(),
        }
    }

    /// Becomes `endpoint`; what it was before.
    fn update(&mut self, endpoint: &Attached, now: Instant) -> Attached {
        let before = std::mem::replace(&mut self.endpoint, endpoint.clone());
        let advertisement = render(endpoint);
        // Another MAC is another VM, which has heard nothing so far.
        let is_news = advertisement != self.advertisement || before.mac != endpoint.mac;
        self.advertisement = advertisement;
        self.schedule.set_listening(is_listening(endpoint), now);
        if is_news {
            self.schedule.set_changed(endpoint.network.router_lifetime, now);
        }
        self.told = Told::default();
        before
    }

    fn admits(&mut self, now: Instant) -> bool {
        let admitted = self.bucket.take(now);
        if !admitted {
            self.stats.rate_limited += 1;
            if !std::mem::replace(&mut self.told.flood, true) {
                let interface = &self.endpoint.interface;
                tracing::warn!(%interface, "the VM floods the daemon with requests; most are ignored (told once)");
            }
        }
        admitted
    }

    fn reply(&mut self, answer: &Answer, client: Ipv6Addr) -> Outgoing {
        let interface = &self.endpoint.interface;
        for address in &answer.declined {
            tracing::warn!(
                %interface, %address,
                "the VM declines its address: something answered its duplicate address detection; \
                 look for a second endpoint or host with this address"
            );
        }
        if answer.truncated && !std::mem::replace(&mut self.told.truncation, true) {
            tracing::warn!(
                %interface,
                "a DHCPv6 reply does not fit in the MTU and was shortened; \
                 configure fewer addresses, servers or search domains"
            );
        }
        let to = Destination::vm(self.endpoint.mac, client);
        let ports = (dhcp6::SERVER_PORT, dhcp6::CLIENT_PORT);
        let frame = frame::udp(&self.endpoint, to, ports, &answer.payload);
        Outgoing { ifindex: self.endpoint.ifindex, frame, kind: Kind::Dhcp6 }
    }

    fn sent(&mut self, kind: Kind, now: Instant, chance: f64) {
        self.told.send_error = false;
        match kind {
            Kind::Advertisement => {
                self.stats.router_advertisements += 1;
                self.schedule.sent(now, chance);
            }
            Kind::Solicited => {
                self.stats.router_advertisements += 1;
                self.stats.solicitations_answered += 1;
                self.schedule.answered(now);
            }
            Kind::Dhcp6 => self.stats.dhcp6_replies += 1,
            Kind::Withdrawal => {}
        }
    }

    fn not_sent(&mut self, kind: Kind, error: &io::Error, now: Instant) {
        self.stats.send_errors += 1;
        if kind == Kind::Advertisement {
            self.schedule.failed(now);
        }
        let interface = &self.endpoint.interface;
        if !std::mem::replace(&mut self.told.send_error, true) {
            tracing::info!(%interface, %error, "cannot send to the VM; advertisements are tried again every second");
        }
    }
}

fn is_listening(endpoint: &Attached) -> bool {
    endpoint.admin_up && endpoint.carrier
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serve::fixture;
    use std::time::Duration;

    fn state(endpoint: &Attached, now: Instant) -> State {
        let mut state = State::new(Duid::default());
        let change = state.set_endpoints(&BTreeMap::from([(endpoint.ifindex, endpoint.clone())]), now);
        assert_eq!(change.current, [endpoint.ifindex]);
        state
    }

    fn update(state: &mut State, endpoint: &Attached, now: Instant) -> Change {
        state.set_endpoints(&BTreeMap::from([(endpoint.ifindex, endpoint.clone())]), now)
    }

    fn send_due(state: &mut State, now: Instant) -> usize {
        let due = state.advertisements(now);
        for outgoing in &due {
            state.settle(outgoing, &Ok(()), now, 0.5);
        }
        due.len()
    }

    fn from(source: &str, payload: &'static [u8]) -> Received<'static> {
        Received {
            ifindex: 7,
            source: source.parse().unwrap(),
            source_port: 546,
            destination: dhcp6::ALL_RELAY_AGENTS_AND_SERVERS,
            hop_limit: 255,
            payload,
        }
    }

    const RS: &[u8] = &[133, 0, 0, 0, 0, 0, 0, 0];
    const INFORMATION_REQUEST: &[u8] = &[11, 1, 2, 3];

    #[test]
    fn a_new_endpoint_hears_at_once_and_an_unchanged_one_no_more() {
        let now = Instant::now();
        let endpoint = fixture::endpoint();
        let mut state = state(&endpoint, now);
        assert_eq!(state.advertisements(now)[0].frame, render(&endpoint));
        assert_eq!(send_due(&mut state, now), 1);
        assert!(update(&mut state, &endpoint, now).current.is_empty());
        assert_eq!(send_due(&mut state, now), 0);
        let stats = state.stats(7, now + Duration::from_secs(10)).unwrap();
        assert_eq!((stats.router_advertisements, stats.router_expires_in), (1, Some(8990)));
    }

    #[test]
    fn a_change_that_the_guest_sees_is_sent_at_once() {
        let now = Instant::now();
        let mut endpoint = fixture::endpoint();
        let mut state = state(&endpoint, now);
        send_due(&mut state, now);
        endpoint.network.dns_servers.clear();
        assert!(update(&mut state, &endpoint, now).withdrawals.is_empty());
        assert_eq!(send_due(&mut state, now), 1);
        endpoint.network.ntp_servers.clear();
        update(&mut state, &endpoint, now);
        assert_eq!(send_due(&mut state, now), 0, "no advertisement speaks of NTP");
        endpoint.mac = "fa:16:3e:00:00:02".parse().unwrap();
        update(&mut state, &endpoint, now);
        assert_eq!(send_due(&mut state, now), 1);
        endpoint.carrier = false;
        update(&mut state, &endpoint, now);
        assert_eq!(state.next_due(), None);
        endpoint.carrier = true;
        update(&mut state, &endpoint, now);
        assert_eq!(send_due(&mut state, now), 1);
        assert_eq!(state.stats(7, now).unwrap().router_advertisements, 4, "counters stay");
    }

    #[test]
    fn a_gateway_that_changes_is_withdrawn() {
        let now = Instant::now();
        let old = fixture::endpoint();
        let mut new = old.clone();
        new.gateway_mac = "fe:16:3e:00:00:02".parse().unwrap();
        new.gateway = new.gateway_mac.link_local();
        let mut same_tap = state(&old, now);
        let change = update(&mut same_tap, &new, now);
        let withdrawal = Outgoing { ifindex: 7, frame: render_withdrawal(&old), kind: Kind::Withdrawal };
        assert_eq!(change.withdrawals, std::slice::from_ref(&withdrawal));

        let mut recreated_tap = state(&old, now);
        new.ifindex = 8;
        let change = update(&mut recreated_tap, &new, now);
        assert_eq!((change.gone, change.current), (vec![7], vec![8]));
        assert_eq!(change.withdrawals, [Outgoing { ifindex: 8, ..withdrawal }]);
    }

    #[test]
    fn removal_is_silent() {
        let now = Instant::now();
        let mut state = state(&fixture::endpoint(), now);
        let change = state.set_endpoints(&BTreeMap::new(), now);
        assert_eq!(change.gone, [7]);
        assert!(change.withdrawals.is_empty());
        assert_eq!((state.next_due(), state.stats(7, now)), (None, None));
    }

    #[test]
    fn a_failure_is_retried_and_counted() {
        let now = Instant::now();
        let mut state = state(&fixture::endpoint(), now);
        let outgoing = state.advertisements(now).remove(0);
        state.settle(&outgoing, &Err(io::Error::from_raw_os_error(libc::ENETDOWN)), now, 0.5);
        assert!(state.advertisements(now).is_empty());
        assert_eq!(send_due(&mut state, now + Duration::from_secs(1)), 1);
        let stats = state.stats(7, now).unwrap();
        assert_eq!((stats.send_errors, stats.router_advertisements), (1, 1));
    }

    #[test]
    fn solicitations() {
        let now = Instant::now();
        let endpoint = fixture::endpoint();
        let mut state = state(&endpoint, now);
        send_due(&mut state, now);
        let answer = state.solicited(&from("fe80::1", RS), now).unwrap();
        let to = Destination::vm(endpoint.mac, "fe80::1".parse().unwrap());
        assert_eq!((&answer.frame, answer.kind), (&render_to(&endpoint, to), Kind::Solicited));
        state.settle(&answer, &Ok(()), now, 0.5);
        assert_eq!(state.solicited(&from("::", RS), now), None);
        assert_eq!(state.next_due(), Some(now + Duration::from_secs(3)));
        assert_eq!(state.solicited(&Received { hop_limit: 64, ..from("fe80::1", RS) }, now), None);
        assert_eq!(state.solicited(&Received { ifindex: 8, ..from("fe80::1", RS) }, now), None);
        let stats = state.stats(7, now).unwrap();
        assert_eq!((stats.router_advertisements, stats.solicitations_answered), (2, 2));
    }

    #[test]
    fn dhcp6_replies_go_to_the_vm_and_its_port() {
        let now = Instant::now();
        let endpoint = fixture::endpoint();
        let mut state = state(&endpoint, now);
        let reply = state.dhcp6(&from("fe80::1", INFORMATION_REQUEST), now).unwrap();
        assert_eq!(reply.frame[..6], endpoint.mac.octets());
        assert_eq!(reply.frame[6..12], endpoint.gateway_mac.octets());
        assert_eq!(reply.frame[22..38], endpoint.gateway.octets());
        assert_eq!(reply.frame[54..58], [2, 0x23, 2, 0x22]);
        assert_eq!(frame::tests::verify_sum(&reply.frame), 0xffff);
        state.settle(&reply, &Ok(()), now, 0.5);
        for refused in [
            from("2001:db8:a41:2::11", INFORMATION_REQUEST),
            from("fe80::1", &[11, 1, 2]),
            Received { source_port: 547, ..from("fe80::1", INFORMATION_REQUEST) },
        ] {
            assert_eq!(state.dhcp6(&refused, now), None);
        }
        assert_eq!(state.dhcp6(&Received { ifindex: 8, ..from("fe80::1", INFORMATION_REQUEST) }, now), None);
        let stats = state.stats(7, now).unwrap();
        assert_eq!((stats.dhcp6_replies, stats.dhcp6_discarded), (1, 3));
    }

    #[test]
    fn a_flood_is_cut_off_without_harm_to_others() {
        let now = Instant::now();
        let one = fixture::endpoint();
        let mut other = one.clone();
        other.ifindex = 8;
        other.interface = "tap2".parse().unwrap();
        let mut state = State::new(Duid::default());
        state.set_endpoints(&BTreeMap::from([(7, one), (8, other)]), now);
        let flood = (0..1000).filter_map(|_| state.dhcp6(&from("fe80::1", INFORMATION_REQUEST), now));
        assert_eq!(flood.count(), 50);
        assert!(state.dhcp6(&Received { ifindex: 8, ..from("fe80::1", INFORMATION_REQUEST) }, now).is_some());
        assert_eq!(state.stats(7, now).unwrap().rate_limited, 950);
    }
}
