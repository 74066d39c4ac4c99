//! Where flows are kept: every endpoint has a ring of places, its quota, and a new flow takes the next. So a flood
//! displaces the flows of whoever is flooded or floods, and nobody else's; and there it displaces those that do not
//! matter: ended, silent, or never answered. Nobody has to sweep.

use super::{Flows, is_over};
use crate::abi::{Flow, FlowKey, RingPlace, flow_flags};

/// How many places are looked at for a new flow.
const TRIES: usize = 8;

/// Remembers both entries of a flow; `false` when the quota is used up by flows that are alive.
#[inline(always)]
pub(super) fn remember<T: Flows>(tables: &T, key: &FlowKey, flow: Flow, answers: Flow, now: u32) -> bool {
    // Known already, in whatever state: it keeps its place.
    let place = match tables.flow(key) {
        Some(old) if old.owner == flow.owner => old.place,
        _ => match free_place(tables, flow.owner, now) {
            Some(place) => place,
            None => return false,
        },
    };
    let reverse = key.reverse(flow.reverse_zone);
    let kept = tables.insert(key, &Flow { place, ..flow })
        && tables.insert(&reverse, &Flow { place, ..answers })
        && tables.take_place(&RingPlace { owner: flow.owner, place }, key);
    if !kept {
        tables.remove(key);
        tables.remove(&reverse);
    }
    kept
}

/// A place whose flow is gone, or can go.
#[inline(always)]
fn free_place<T: Flows>(tables: &T, owner: u32, now: u32) -> Option<u32> {
    let mut tries = 0;
    while tries < TRIES {
        tries += 1;
        let place = tables.next_place(owner)?;
        let Some(key) = tables.at_place(&RingPlace { owner, place }) else { return Some(place) };
        let Some(flow) = tables.flow(&key) else { return Some(place) };
        if flow.owner != owner || flow.place != place {
            return Some(place);
        }
        let matters = flow.flags & (flow_flags::ESTABLISHED | flow_flags::CLOSING) == flow_flags::ESTABLISHED
            && !is_over(&flow, key.protocol, now);
        if !matters {
            tables.remove(&key);
            tables.remove(&key.reverse(flow.reverse_zone));
            return Some(place);
        }
    }
    None
}
