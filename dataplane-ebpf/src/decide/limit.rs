//! How much of one VM is answered, or handed to the host itself, so that it uses up nothing that others need: the daemon's
//! sockets, the kernel's table of neighbours, and its budget of ICMPv6 errors, which all VMs share.
//!
//! Packets of link scope are limited: those from or to a link-local address, and multicast. No router forwards them, so
//! they are the host's, which answers them or tells their sender why not. What the host forwards is not limited; of that
//! an error goes to an address of the VM's own, and the kernel limits errors to each address (`net.ipv6.icmp.ratelimit`).
//!
//! The kernel makes a neighbour of every link-local address that it has something to say to, and of every address on a
//! link of its own that it has something to forward to. VMs choose both, and the table is one for all interfaces and
//! namespaces (`net.ipv6.neigh.default.gc_thresh3`): full, it has no room for the next hops of anybody else.

use super::guard::Packet;
use crate::abi::{Address, Allowance, Rate, Reason};
use core::hint::black_box;

/// After this time without a packet a link-local address is forgotten, as the kernel then does with an idle neighbour
/// (`gc_stale_time`).
pub const FORGET_NS: u64 = 60_000_000_000;

/// Packets for which the kernel has to find a neighbour first: 20 a second, 40 at once. What it has not found occupies the
/// table for five seconds (`neigh_forced_gc`), so one VM never has more than a seventh of the usual 1,024.
const NEIGHBOURS: Rate = Rate { cost: 50_000_000, capacity: 2_000_000_000 };

/// What is allowed, and the clock by which.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Solicitations that are answered.
    pub answers: Rate,
    /// Packets that are handed to the host.
    pub host: Rate,
    /// Nanoseconds of the clock that counts from the start of the host; never 0.
    pub now: u64,
}

/// Whether this is the host's own, whatever the routes are.
#[inline(always)]
pub fn is_link_scope(packet: &Packet) -> bool {
    packet.source.is_link_local() || packet.destination.is_link_local() || packet.destination.is_multicast()
}

/// Takes the right to one answer.
#[inline(always)]
pub fn answer(allowance: &mut Allowance, ifindex: u32, limits: &Limits) -> bool {
    begin(allowance, ifindex);
    take(&mut allowance.answers, limits.answers, limits.now)
}

/// Takes the right to hand one packet from `source` to the host.
#[inline(always)]
pub fn hand_over(
    allowance: &mut Allowance,
    ifindex: u32,
    source: &Address,
    limits: &Limits,
) -> Result<(), Reason> {
    // A limit of nothing is none at all: neither packets nor addresses are counted.
    if limits.host.cost == 0 {
        return Ok(());
    }
    begin(allowance, ifindex);
    // First, so that forged addresses use up nothing that the VM's real ones need.
    if source.is_link_local() && !admit(allowance, source, limits.now) {
        return Err(Reason::LinkLocalLimited);
    }
    if take(&mut allowance.host, limits.host, limits.now) { Ok(()) } else { Err(Reason::HostLimited) }
}

/// Takes the right to have the kernel look for a neighbour for one packet.
#[inline(always)]
pub fn resolve(allowance: &mut Allowance, ifindex: u32, limits: &Limits) -> bool {
    if limits.host.cost == 0 {
        return true;
    }
    begin(allowance, ifindex);
    take(&mut allowance.neighbours, NEIGHBOURS, limits.now)
}

/// Forgets what another endpoint used up that had the slot before.
#[inline(always)]
fn begin(allowance: &mut Allowance, ifindex: u32) {
    if allowance.ifindex == ifindex {
        return;
    }
    allowance.ifindex = ifindex;
    allowance.answers = 0;
    allowance.host = 0;
    allowance.neighbours = 0;
    for place in &mut allowance.link_locals {
        place.seen = 0;
    }
}

/// Takes one packet out of a bucket. CPUs that do so at the same time may both find the last one, which does no harm.
#[inline(always)]
fn take(paid: &mut u64, rate: Rate, now: u64) -> bool {
    let until = if *paid > now { *paid } else { now } + rate.cost;
    let allowed = until - now <= rate.capacity || rate.cost == 0;
    if allowed {
        *paid = until;
    }
    allowed
}

/// The address is one of those that are known, or becomes one.
#[inline(always)]
fn admit(allowance: &mut Allowance, address: &Address, now: u64) -> bool {
    let mut free = allowance.link_locals.len();
    for (number, place) in allowance.link_locals.iter_mut().enumerate() {
        if place.seen == 0 || now.wrapping_sub(place.seen) >= FORGET_NS {
            free = number;
        } else if place.address == *address {
            place.seen = now;
            return true;
        }
    }
    // Opaque, as the verifier has to see the check that the compiler knows to be needless.
    let Some(place) = allowance.link_locals.get_mut(black_box(free)) else { return false };
    place.address = *address;
    place.seen = now;
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abi::LINK_LOCALS;

    const SECOND: u64 = 1_000_000_000;
    const TAP: u32 = 7;

    fn limits(now: u64) -> Limits {
        Limits { answers: Rate::new(10, 5), host: Rate::new(100, 20), now }
    }

    fn link_local(number: u8) -> Address {
        let mut octets = [0; 16];
        (octets[0], octets[1], octets[15]) = (0xfe, 0x80, number);
        Address::new(octets)
    }

    fn answered(allowance: &mut Allowance, now: u64) -> usize {
        (0..1000).filter(|_| answer(allowance, TAP, &limits(now))).count()
    }

    #[test]
    fn a_burst_is_answered_and_then_the_rate() {
        let mut allowance = Allowance::default();
        assert_eq!(answered(&mut allowance, SECOND), 5);
        assert_eq!(answered(&mut allowance, SECOND + SECOND / 20), 0);
        assert_eq!(answered(&mut allowance, SECOND + SECOND / 10), 1);
        assert_eq!(answered(&mut allowance, 3600 * SECOND), 5, "no more than the burst is saved up");
    }

    #[test]
    fn answers_and_what_is_handed_over_do_not_use_up_each_other() {
        let mut allowance = Allowance::default();
        answered(&mut allowance, SECOND);
        let handed =
            |allowance: &mut Allowance| hand_over(allowance, TAP, &Address::UNSPECIFIED, &limits(SECOND));
        for _ in 0..20 {
            assert_eq!(handed(&mut allowance), Ok(()));
        }
        assert_eq!(handed(&mut allowance), Err(Reason::HostLimited));
    }

    #[test]
    fn forged_link_local_addresses_do_not_stand_in_the_way_of_a_real_one() {
        let mut allowance = Allowance::default();
        let mut from = |number, now| hand_over(&mut allowance, TAP, &link_local(number), &limits(now));
        for number in 0..LINK_LOCALS as u8 {
            assert_eq!(from(number, SECOND), Ok(()));
        }
        for number in 100..200 {
            assert_eq!(from(number, SECOND), Err(Reason::LinkLocalLimited));
        }
        assert_eq!(from(0, SECOND + FORGET_NS - 1), Ok(()), "one that is in use is remembered");
        assert_eq!(from(100, SECOND + FORGET_NS), Ok(()), "another's place is free again");
        assert_eq!(from(0, SECOND + FORGET_NS), Ok(()));
    }

    #[test]
    fn neighbours_are_looked_for_a_few_at_a_time() {
        let mut allowance = Allowance::default();
        let mut found = |now| (0..1000).filter(|_| resolve(&mut allowance, TAP, &limits(now))).count();
        assert_eq!(found(SECOND), 40);
        assert_eq!(found(2 * SECOND), 20);
        assert_eq!(found(100 * SECOND), 40);
    }

    #[test]
    fn whoever_has_the_slot_next_begins_anew() {
        let mut allowance = Allowance::default();
        for number in 0..LINK_LOCALS as u8 {
            hand_over(&mut allowance, TAP, &link_local(number), &limits(SECOND)).expect("a place");
        }
        answered(&mut allowance, SECOND);
        assert!(answer(&mut allowance, TAP + 1, &limits(SECOND)));
        assert_eq!(hand_over(&mut allowance, TAP + 1, &link_local(99), &limits(SECOND)), Ok(()));
    }

    #[test]
    fn without_a_limit_everything_is_allowed() {
        let mut allowance = Allowance::default();
        let none = Limits { answers: Rate::UNLIMITED, host: Rate::UNLIMITED, now: SECOND };
        for number in 0..=255 {
            assert!(answer(&mut allowance, TAP, &none));
            assert_eq!(hand_over(&mut allowance, TAP, &link_local(number), &none), Ok(()));
        }
    }
}
