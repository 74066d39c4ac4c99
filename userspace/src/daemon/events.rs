//! What the hooks tell of packets, with names: for whoever listens, and for the log what policy wants logged.

use crate::apply::fastpath::{EventSwitch, FastPath};
use crate::cause::in_one_line;
use crate::plan::policy::{Direction, Origin};
use crate::serve::monitor::Monitor;
use crate::status::{EventHook, EventKind, PacketEvent, RuleName, Side};
use dataplane_ebpf::abi::{Event, EventControl, Reason, event_flags, event_kinds};
use dataplane_ebpf::wire::protocol;
use nix::time::{ClockId, clock_gettime};
use std::net::Ipv6Addr;
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::{mpsc, watch};

/// Lines of the log in a second that rules may cause.
const LOG_LINES: u32 = 20;

/// What numbers in events stand for.
pub trait Names {
    /// The endpoint behind a TAP.
    fn endpoint(&self, ifindex: u32) -> Option<String>;

    /// A step of a chain.
    fn step(&self, chain: u32, step: u32) -> Option<(Direction, Origin)>;
}

/// Passes events on.
pub struct Events {
    monitor: Monitor,
    samples: watch::Receiver<Vec<u32>>,
    listener: mpsc::Sender<Vec<Event>>,
    switch: Option<EventSwitch>,
    log: LogLimit,
    /// Somebody wants to know what the kernel copies for XDP.
    copies: bool,
}

impl Events {
    /// Tells `monitor`; events come out of the receiver, to be handed to [`tell`](Self::tell). With `copies` there are those
    /// among them that say what the kernel copies for XDP.
    pub fn new(monitor: Monitor, copies: bool) -> (Self, mpsc::Receiver<Vec<Event>>) {
        let (listener, received) = mpsc::channel(16);
        let samples = monitor.samples();
        (Self { monitor, samples, listener, switch: None, log: LogLimit::default(), copies }, received)
    }

    /// There is a fast path, whose events are told from now on.
    pub fn follow(&mut self, fast_path: &mut FastPath) {
        let Some(maps) = fast_path.take_events() else { return };
        match maps.follow(self.listener.clone()) {
            Ok(switch) => self.switch = Some(switch),
            Err(error) => tracing::warn!("what the hooks tell of packets cannot be read: {error}"),
        }
        self.listen();
    }

    /// Has the hooks tell what somebody wants to hear.
    pub fn listen(&mut self) {
        let control = control(&self.samples.borrow(), self.copies);
        if let Some(switch) = &mut self.switch
            && let Err(error) = switch.set(control)
        {
            tracing::warn!("the hooks do not tell of packets: {}", in_one_line(&error));
        }
    }

    /// Tells of those of these events that are about packets.
    pub fn tell(&mut self, events: &[Event], names: &impl Names) {
        let clock = Clock::now();
        for event in events.iter().filter(|event| event.kind != event_kinds::COPIED) {
            let event = describe(event, names, clock);
            if event.kind == EventKind::Logged
                && let Some(omitted) = self.log.take(Instant::now())
            {
                let omitted =
                    if omitted > 0 { format!(" ({omitted} lines left out)") } else { String::new() };
                // Whoever writes such a rule wants to see it.
                tracing::warn!("policy: {event}{omitted}");
            }
            self.monitor.tell(event);
        }
    }
}

/// What the hooks have to tell, for those who listen: rules that log are always told of, and the rest if somebody does.
fn control(samples: &[u32], copies: bool) -> EventControl {
    let always = 1 << event_kinds::LOGGED | u32::from(copies) << event_kinds::COPIED;
    let others = 1 << event_kinds::DENIED | 1 << event_kinds::ALLOWED | 1 << event_kinds::DROPPED;
    EventControl {
        kinds: if samples.is_empty() { always } else { always | others },
        one_in: samples.iter().copied().filter(|sample| *sample > 0).min().unwrap_or(0),
    }
}

/// The event as people understand it.
pub fn describe(event: &Event, names: &impl Names, clock: Clock) -> PacketEvent {
    let key = &event.key;
    let kind = match event.kind {
        event_kinds::LOGGED => EventKind::Logged,
        event_kinds::ALLOWED => EventKind::Allowed,
        event_kinds::DROPPED => EventKind::Dropped,
        _ => EventKind::Denied,
    };
    let flag = |flag| event.flags & flag != 0;
    let protocol = key.protocol as u8;
    // What fragments have in place of ports is their identification, which says nothing.
    let no_ports = kind == EventKind::Dropped
        || protocol == protocol::FRAGMENT
        || (key.source_port, key.destination_port) == (0, 0);
    let side = |ifindex, address: [u8; 16], port| Side {
        endpoint: names.endpoint(ifindex),
        address: Ipv6Addr::from(address),
        port: (!no_ports).then_some(port),
    };
    let dropped = matches!(kind, EventKind::Denied | EventKind::Dropped);
    let is_icmp = protocol == protocol::ICMP6 && kind != EventKind::Dropped;
    PacketEvent {
        time: clock.milliseconds(event.time),
        kind,
        reason: Reason::from_number(event.reason).filter(|_| dropped).map(|reason| reason.label().to_owned()),
        rule: names
            .step(event.chain, event.step)
            .map(|(direction, origin)| RuleName::new(direction, &origin)),
        source: side(event.from_ifindex, key.source.octets(), key.source_port),
        destination: side(event.to_ifindex, key.destination.octets(), key.destination_port),
        protocol,
        icmp: is_icmp.then_some(((event.service >> 8) as u8, event.service as u8)),
        hook: match (flag(event_flags::XDP), flag(event_flags::OUT)) {
            (true, _) => EventHook::Xdp,
            (false, true) => EventHook::Out,
            (false, false) => EventHook::Tc,
        },
        error: flag(event_flags::ERROR),
        answer: flag(event_flags::ANSWER),
        suppressed: event.suppressed,
    }
}

/// What time it was when the clock of events showed 0.
#[derive(Clone, Copy, Debug)]
pub struct Clock(Duration);

impl Clock {
    /// By the clocks of this host.
    pub fn now() -> Self {
        let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let since_start = clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from).unwrap_or_default();
        Self(wall.saturating_sub(since_start))
    }

    /// Milliseconds since 1970.
    fn milliseconds(self, time: u64) -> u64 {
        u64::try_from((self.0 + Duration::from_nanos(time)).as_millis()).unwrap_or(u64::MAX)
    }
}

/// A few lines a second; those left out are counted.
#[derive(Debug, Default)]
struct LogLimit {
    since: Option<Instant>,
    lines: u32,
    omitted: u64,
}

impl LogLimit {
    /// Takes the right to a line, and says how many were left out before it.
    fn take(&mut self, now: Instant) -> Option<u64> {
        if self.since.is_none_or(|since| now.duration_since(since) >= Duration::from_secs(1)) {
            (self.since, self.lines) = (Some(now), 0);
        }
        if self.lines == LOG_LINES {
            self.omitted += 1;
            return None;
        }
        self.lines += 1;
        Some(std::mem::take(&mut self.omitted))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::ScopedName;
    use dataplane_ebpf::abi::{FlowKey, NO_STEP};

    struct Few;

    impl Names for Few {
        fn endpoint(&self, ifindex: u32) -> Option<String> {
            (ifindex == 11).then(|| "web1".to_owned())
        }

        fn step(&self, chain: u32, step: u32) -> Option<(Direction, Origin)> {
            let policy = ScopedName { namespace: None, name: "web".into() };
            let origin = Origin::Rule { tier: "default".into(), policy, rule: step as usize };
            (chain == 7 && step != NO_STEP).then_some((Direction::Ingress, origin))
        }
    }

    fn event(kind: u32, reason: Reason) -> Event {
        Event {
            kind,
            reason: reason as u32,
            chain: 7,
            step: 3,
            to_ifindex: 11,
            key: FlowKey { protocol: 6, source_port: 4000, destination_port: 80, ..FlowKey::default() },
            flags: event_flags::OUT,
            ..Event::default()
        }
    }

    #[test]
    fn numbers_become_names() {
        let clock = Clock(Duration::from_secs(1));
        let denied = describe(&event(event_kinds::DENIED, Reason::Policy), &Few, clock);
        assert_eq!(denied.destination.endpoint.as_deref(), Some("web1"));
        assert_eq!(denied.rule.unwrap().to_string(), "ingress tier default, policy web, rule 3");
        assert_eq!((denied.reason.as_deref(), denied.hook), (Some("policy"), EventHook::Out));
        assert_eq!((denied.source.port, denied.time), (Some(4000), 1000));
        let allowed = describe(&event(event_kinds::ALLOWED, Reason::Policy), &Few, clock);
        assert_eq!((allowed.kind, allowed.reason), (EventKind::Allowed, None));
        let stray = Event { step: NO_STEP, ..event(event_kinds::DENIED, Reason::NoFlow) };
        let stray = describe(&stray, &Few, clock);
        assert_eq!((stray.rule, stray.reason.as_deref()), (None, Some("no_flow")));
    }

    #[test]
    fn rules_that_log_are_heard_of_although_nobody_listens() {
        assert_eq!(control(&[], false), EventControl { kinds: 1 << event_kinds::LOGGED, one_in: 0 });
        assert_eq!(control(&[0], false).kinds, 0xf);
        assert_eq!(control(&[100, 0, 10], false).one_in, 10);
    }

    #[test]
    fn what_is_copied_is_heard_of_by_who_asks() {
        for samples in [&[][..], &[0]] {
            assert!(control(samples, true).has(event_kinds::COPIED));
            assert!(!control(samples, false).has(event_kinds::COPIED));
        }
    }

    #[test]
    fn the_log_is_not_flooded() {
        let mut limit = LogLimit::default();
        let now = Instant::now();
        let lines = (0..100).filter(|_| limit.take(now).is_some()).count();
        assert_eq!(lines, LOG_LINES as usize);
        assert_eq!(limit.take(now + Duration::from_secs(1)), Some(100 - u64::from(LOG_LINES)));
    }
}
