//! `serval explain`: what would become of a packet. The daemon's loop makes ready what has to be known; the run, which takes
//! a second, is a thread of its own.

mod packet;
pub mod rules;

use super::events::{Clock, Names, describe};
use crate::apply::fastpath::{Act, Entrance, FastPath, FastPathError, Rehearsal, Rehearsed};
use crate::plan::policy::{Chain, Direction, Origin};
use crate::plan::{Attached, Plan, Uplink};
use crate::resource::{EndpointName, Resources};
use crate::status::{
    Carried, DecidedAction, Decision, EventKind, ExplainQuery, Explanation, FlowState, Judge, Next,
    PacketEvent, RouteDetail, SentBy, Side,
};
use dataplane_ebpf::abi::Event;
use dataplane_ebpf::decide::flow::Party;
use dataplane_ebpf::wire::protocol;
use packet::{Ends, Upper};
use std::collections::BTreeMap;
use std::net::Ipv6Addr;

/// What the loop knows.
pub struct Knowledge<'a> {
    /// All resources.
    pub resources: &'a Resources,
    /// This host.
    pub plan: &'a Plan,
    /// The fast path.
    pub fast_path: &'a FastPath,
    /// The interfaces towards other hosts, by ifindex.
    pub uplinks: BTreeMap<u32, Uplink>,
}

/// A packet that is ready to be asked about.
pub struct Prepared {
    rehearsal: Rehearsal,
    entrance: Entrance,
    frame: Vec<u8>,
    from: Party,
    to: Party,
    /// The TAP of the receiver, if it is an endpoint of this host.
    receiver: Option<u32>,
    source: Ipv6Addr,
    destination: Ipv6Addr,
    /// Every endpoint whose TAP is there, by ifindex.
    endpoints: BTreeMap<u32, (EndpointName, Attached)>,
}

/// What the run showed. Events are yet to get names.
pub struct Shown {
    prepared: Prepared,
    rehearsed: Rehearsed,
    events: Vec<Event>,
}

/// Makes ready what is asked; an error says what to ask instead.
pub fn prepare(query: &ExplainQuery, known: &Knowledge<'_>) -> Result<Prepared, String> {
    let endpoints: BTreeMap<u32, (EndpointName, Attached)> = known
        .plan
        .attached()
        .map(|(name, attached)| (attached.ifindex, (name.clone(), attached.clone())))
        .collect();
    let (sender, frame) = match query {
        ExplainQuery::Packet { from, to, upper } => {
            let (sender, source) = place(from, known.resources, &endpoints)?;
            let (_, destination) = place(to, known.resources, &endpoints)?;
            let sender = match sender {
                Some(ifindex) => Sender::Endpoint(ifindex),
                None if known.fast_path.party(source) == Party::HOST => Sender::Host,
                None => known.outside(),
            };
            let upper = upper_layer(*upper);
            let (source_mac, destination_mac) = match sender {
                Sender::Endpoint(ifindex) => {
                    let attached = &endpoints[&ifindex].1;
                    (attached.mac.octets(), attached.gateway_mac.octets())
                }
                // Whatever its router's is; locally administered.
                Sender::Uplink(_, mac) => ([2, 0, 0, 0, 0, 1], mac),
                Sender::Host => ([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]),
            };
            (sender, packet::frame(&Ends { source_mac, destination_mac, source, destination }, upper))
        }
        ExplainQuery::Frame { interface, bytes } => {
            let sender = endpoints.iter().find(|(_, (_, attached))| attached.interface.as_str() == interface);
            let (ifindex, _) =
                sender.ok_or_else(|| format!("no endpoint of this host is behind {interface}"))?;
            (Sender::Endpoint(*ifindex), hexadecimal(bytes)?)
        }
    };
    let (source, destination) = packet::addresses(&frame).ok_or("the frame is no IPv6 packet")?;
    let to = known.fast_path.party(destination);
    let receives = |(_, attached): &(EndpointName, Attached)| {
        attached.addresses.iter().any(|address| address.get() == destination)
    };
    let receiver = endpoints.iter().find(|(_, endpoint)| receives(endpoint)).map(|(ifindex, _)| *ifindex);
    let (entrance, from) = match sender {
        Sender::Endpoint(ifindex) => {
            let name = &endpoints[&ifindex].0;
            let from = known.fast_path.sender(ifindex);
            (Entrance::Tap { ifindex }, from.ok_or_else(|| format!("{name} has no fast path yet"))?)
        }
        Sender::Uplink(ifindex, _) => (Entrance::Uplink { ifindex }, Party::OUTSIDE),
        Sender::Host => (Entrance::Out { ifindex: receiver.unwrap_or(0), received_on: 0 }, Party::HOST),
    };
    if !matches!(entrance, Entrance::Tap { .. }) && receiver.is_none() {
        return Err(format!("neither {source} nor {destination} is an endpoint of this host"));
    }
    let rehearsal = known.fast_path.rehearsal();
    Ok(Prepared { rehearsal, entrance, frame, from, to, receiver, source, destination, endpoints })
}

impl Prepared {
    /// Whose policy may be asked: the sender's and the receiver's.
    pub fn endpoints(&self) -> impl Iterator<Item = &EndpointName> {
        let sender = if let Entrance::Tap { ifindex } = self.entrance { Some(ifindex) } else { None };
        sender.into_iter().chain(self.receiver).filter_map(|ifindex| Some(&self.endpoints.get(&ifindex)?.0))
    }

    /// Where it goes.
    pub fn destination(&self) -> Ipv6Addr {
        self.destination
    }

    /// Asks the programs. Blocks.
    pub fn run(self) -> Result<Shown, FastPathError> {
        let ask = |entrance| self.rehearsal.run(entrance, &self.frame, self.from, self.to);
        let mut rehearsed = ask(self.entrance)?;
        // What other hosts send and no uplink's hook finishes is judged where the kernel delivers it.
        if let (Act::Pass, Entrance::Uplink { ifindex: received_on }, Some(ifindex)) =
            (rehearsed.act, self.entrance, self.receiver)
        {
            rehearsed = ask(Entrance::Out { ifindex, received_on })?;
        }
        let events = std::mem::take(&mut rehearsed.events);
        Ok(Shown { prepared: self, rehearsed, events })
    }
}

impl Shown {
    /// In words. `route` is the one to the destination, `chains` are those of [`Prepared::endpoints`].
    pub fn explain(
        self,
        route: Option<RouteDetail>,
        chains: &BTreeMap<u32, (Direction, Chain)>,
    ) -> Explanation {
        let names = Known { endpoints: &self.prepared.endpoints, chains };
        let clock = Clock::now();
        let events: Vec<PacketEvent> =
            self.events.iter().map(|event| describe(event, &names, clock)).collect();
        let allowed = self.rehearsed.act != Act::Drop;
        let decisions: Vec<Decision> = events.iter().filter_map(decision).collect();
        let flow = match self.rehearsed.flow {
            None => FlowState::None,
            Some(_) if decisions.is_empty() && allowed => FlowState::Known,
            Some(_) => FlowState::Asked,
        };
        let next = (self.rehearsed.act == Act::Redirect).then(|| self.next(route.as_ref())).flatten();
        let reason = events.iter().find_map(|event| event.reason.clone());
        let name = |party: Option<u32>| party.and_then(|ifindex| names.endpoint(ifindex));
        let side = |ifindex, address| Side { endpoint: name(ifindex), address, port: None };
        let sender =
            if let Entrance::Tap { ifindex } = self.prepared.entrance { Some(ifindex) } else { None };
        Explanation {
            judge: Judge::Programs,
            allowed,
            reason: reason.filter(|_| !allowed),
            source: side(sender, self.prepared.source),
            destination: side(self.prepared.receiver, self.prepared.destination),
            decisions,
            flow,
            by: match self.rehearsed.act {
                Act::Drop => None,
                Act::Pass => Some(SentBy::Kernel),
                Act::Redirect => Some(SentBy::Fast),
            },
            next,
            route: route.filter(|_| self.prepared.receiver.is_none()),
        }
    }

    /// The node that the frame is for, once it is edited.
    fn next(&self, route: Option<&RouteDetail>) -> Option<Next> {
        let mac = self.rehearsed.frame.first_chunk::<6>()?;
        let words: Vec<String> = mac.iter().map(|byte| format!("{byte:02x}")).collect();
        let mac_text = words.join(":");
        if let Some((name, attached)) =
            self.prepared.receiver.map(|ifindex| &self.prepared.endpoints[&ifindex])
            && attached.mac.octets() == *mac
        {
            let interface = attached.interface.to_string();
            return Some(Next { interface, mac: mac_text, endpoint: Some(name.to_string()), router: None });
        }
        let hop = route?.next_hops.iter().find(|hop| hop.mac.as_ref() == Some(&mac_text))?;
        Some(Next {
            interface: hop.interface.clone(),
            mac: mac_text,
            endpoint: None,
            router: Some(hop.address),
        })
    }
}

/// What an event says of a chain of rules.
fn decision(event: &PacketEvent) -> Option<Decision> {
    let rule = event.rule.clone()?;
    let action = match event.kind {
        EventKind::Allowed => DecidedAction::Allow,
        EventKind::Denied => DecidedAction::Deny,
        EventKind::Logged => DecidedAction::Log,
        EventKind::Dropped => return None,
    };
    // Of an answer, policy is asked about the first packet of the flow, which went the other way.
    let from_sender = (rule.direction == crate::status::Way::Egress) != event.answer;
    let side = if from_sender { &event.source } else { &event.destination };
    Some(Decision { endpoint: side.endpoint.clone(), action, rule })
}

/// Who sends a packet.
#[derive(Clone, Copy)]
enum Sender {
    /// The endpoint behind this TAP.
    Endpoint(u32),
    /// Another host, by this uplink, whose MAC this is.
    Uplink(u32, [u8; 6]),
    /// This host.
    Host,
}

impl Knowledge<'_> {
    /// Whoever is not on this host.
    fn outside(&self) -> Sender {
        let uplink = self.uplinks.iter().next().map(|(ifindex, uplink)| (*ifindex, uplink.mac.octets()));
        uplink.map_or(Sender::Uplink(0, [0; 6]), |(ifindex, mac)| Sender::Uplink(ifindex, mac))
    }
}

/// Who is meant by a name or an address, and the address. `None`: nobody behind a TAP of this host.
fn place(
    text: &str,
    resources: &Resources,
    endpoints: &BTreeMap<u32, (EndpointName, Attached)>,
) -> Result<(Option<u32>, Ipv6Addr), String> {
    if let Ok(address) = text.parse::<Ipv6Addr>() {
        let has =
            |(_, attached): &(EndpointName, Attached)| attached.addresses.iter().any(|a| a.get() == address);
        let sender = endpoints.iter().find(|(_, endpoint)| has(endpoint));
        return Ok((sender.map(|(ifindex, _)| *ifindex), address));
    }
    if let Some((ifindex, (_, attached))) = endpoints.iter().find(|(_, (name, _))| name.to_string() == text) {
        let address = attached.addresses.first().ok_or_else(|| format!("{text} has no IPv6 address"))?;
        return Ok((Some(*ifindex), address.get()));
    }
    let named = resources.endpoints.values().find(|endpoint| endpoint.name.to_string() == text);
    let address = named.and_then(|endpoint| endpoint.all_addresses().next());
    let address = address.ok_or_else(|| format!("`{text}` is neither an endpoint nor an IPv6 address"))?;
    Ok((None, address.get()))
}

fn upper_layer(carried: Carried) -> Upper {
    let Carried { protocol: number, source_port: source, port: destination, icmp: (kind, code) } = carried;
    match number {
        protocol::TCP => Upper::Tcp { source, destination },
        protocol::UDP | protocol::UDP_LITE | protocol::SCTP => {
            Upper::Ports { protocol: number, source, destination }
        }
        protocol::ICMP6 => Upper::Icmp { kind, code, identifier: source },
        other => Upper::Other(other),
    }
}

/// The bytes of a text like `fa163e000001` or `fa:16:3e 00`.
fn hexadecimal(text: &str) -> Result<Vec<u8>, String> {
    let digits: Vec<u32> = text
        .chars()
        .filter(|c| !c.is_whitespace() && *c != ':')
        .map(|c| c.to_digit(16).ok_or_else(|| format!("`{c}` is no hexadecimal digit")))
        .collect::<Result<_, _>>()?;
    if !digits.len().is_multiple_of(2) {
        return Err("half a byte is left at the end of the frame".to_owned());
    }
    Ok(digits.chunks(2).map(|pair| (pair[0] << 4 | pair[1]) as u8).collect())
}

/// Names for what the run told.
struct Known<'a> {
    endpoints: &'a BTreeMap<u32, (EndpointName, Attached)>,
    chains: &'a BTreeMap<u32, (Direction, Chain)>,
}

impl Names for Known<'_> {
    fn endpoint(&self, ifindex: u32) -> Option<String> {
        self.endpoints.get(&ifindex).map(|(name, _)| name.to_string())
    }

    fn step(&self, chain: u32, step: u32) -> Option<(Direction, Origin)> {
        let (direction, chain) = self.chains.get(&chain)?;
        Some((*direction, chain.steps.get(step as usize)?.origin.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_in_hexadecimal() {
        assert_eq!(hexadecimal("fa16\n3E 00:01"), Ok(vec![0xfa, 0x16, 0x3e, 0, 1]));
        assert!(hexadecimal("fa1").unwrap_err().contains("half a byte"));
        assert!(hexadecimal("xy").unwrap_err().contains("`x`"));
    }
}
