//! What the server knows of its endpoints and what it does on each event: frames to send, counters, schedules. No I/O;
//! time and chance are passed in.

use super::advertise::{Schedule, render, render_to, render_withdrawal};
use super::dhcp6::{self, Answer};
use super::frame::{self, Destination};
use super::limit::Bucket;
use super::neighbour::Neighbours;
use super::socket::Received;
use super::solicitation;
use crate::config::Duid;
use crate::plan::Attached;
use std::collections::BTreeMap;
use std::io;
use std::net::Ipv6Addr;
use std::time::Instant;

#[cfg(test)]
mod tests;

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
    /// Neighbour solicitations for other endpoints answered because no hook did.
    pub neighbours_answered: u64,
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
    /// A neighbour advertisement for another endpoint.
    Neighbour,
}

/// All endpoints by ifindex.
#[derive(Debug)]
pub(super) struct State {
    server: Duid,
    served: BTreeMap<u32, Served>,
    neighbours: Neighbours,
}

/// One endpoint.
#[derive(Debug)]
struct Served {
    endpoint: Attached,
    advertisement: Vec<u8>,
    schedule: Schedule,
    bucket: Bucket,
    /// Apart, so that a guest that looks for many neighbours still gets its lease.
    neighbour_bucket: Bucket,
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
        Self { server, served: BTreeMap::new(), neighbours: Neighbours::default() }
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
        self.neighbours = Neighbours::new(endpoints.values());
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

    /// A neighbour solicitation as a whole frame; its answer, if that is ours to give.
    pub fn neighbour_solicited(&mut self, ifindex: u32, frame: &[u8], now: Instant) -> Option<Outgoing> {
        let served = self.served.get_mut(&ifindex)?;
        let frame = self.neighbours.answer(&served.endpoint, frame)?;
        let admitted = served.neighbour_bucket.take(now);
        served.note_admission(admitted).then_some(Outgoing { ifindex, frame, kind: Kind::Neighbour })
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
            neighbour_bucket: Bucket::new(now),
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
        self.note_admission(admitted)
    }

    fn note_admission(&mut self, admitted: bool) -> bool {
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
            Kind::Neighbour => self.stats.neighbours_answered += 1,
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
