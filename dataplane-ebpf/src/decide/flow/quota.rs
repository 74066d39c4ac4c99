//! Where flows are kept: every endpoint has a ring of places, its quota, and a new flow takes the next. So a flood
//! displaces the flows of whoever is flooded or floods, and nobody else's; and there it displaces those that do not
//! matter: ended, silent, or never answered. Nobody has to sweep.

use super::lifetime::ends;
use super::{Flows, is_over};
use crate::abi::{Flow, FlowKey, RingPlace, Way, flow_flags};

/// How many places are looked at for a new flow.
const TRIES: usize = 8;

/// Remembers a flow and notes its place in it; `false` when the quota is used up by flows that are alive. `reverse` is room
/// for a key.
#[inline(always)]
pub(super) fn remember<T: Flows>(tables: &T, key: &FlowKey, flow: &mut Flow, reverse: &mut FlowKey) -> bool {
    let old = tables.flow(key);
    if let Some(old) = old
        && old.reverse_zone != flow.reverse_zone
    {
        // The address is somebody else's now: whoever had it has no part in the flow, and nothing leads to its entry.
        *reverse = key.reverse(old.reverse_zone);
        tables.remove(reverse);
    }
    // Known already, in whatever state: it keeps its place.
    flow.place = match old {
        Some(old) if old.owner == flow.owner => old.place,
        _ => match free_place(tables, flow.owner, flow.seen, reverse) {
            Some(place) => place,
            None => return false,
        },
    };
    let place = RingPlace { owner: flow.owner, place: flow.place };
    // In this order, as a flow without a place would never go.
    tables.take_place(&place, key) && tables.insert(key, flow)
}

/// Makes the answers out of a flow, and remembers them, too.
#[inline(always)]
pub(super) fn remember_answers<T: Flows>(
    tables: &T,
    key: &FlowKey,
    flow: &mut Flow,
    reverse: &mut FlowKey,
) -> bool {
    *reverse = key.reverse(flow.reverse_zone);
    flow.flags = flow.flags & !flow_flags::SEEN | flow_flags::REPLY;
    flow.reverse_zone = key.zone;
    flow.way = Way::NONE;
    tables.insert(reverse, flow)
}

/// A place whose flow is gone, or can go.
#[inline(always)]
fn free_place<T: Flows>(tables: &T, owner: u32, now: u32, reverse: &mut FlowKey) -> Option<u32> {
    let mut tries = 0;
    while tries < TRIES {
        tries += 1;
        let place = tables.next_place(owner)?;
        let Some(key) = tables.at_place(&RingPlace { owner, place }) else { return Some(place) };
        let Some(flow) = tables.flow(key) else { return Some(place) };
        if flow.owner != owner || flow.place != place {
            return Some(place);
        }
        *reverse = key.reverse(flow.reverse_zone);
        let matters = flow.flags & flow_flags::ESTABLISHED != 0
            && !ends(flow.flags)
            && !is_over(flow, key.protocol, now);
        if !matters {
            tables.remove(key);
            tables.remove(reverse);
            return Some(place);
        }
    }
    None
}
