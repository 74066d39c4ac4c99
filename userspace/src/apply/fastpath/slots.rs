//! Which counter slot belongs to which interface: dense, so that the counter map is as small as the limit allows.

use dataplane_ebpf::abi::SLOT_UNCONFIGURED;
use std::collections::{BTreeMap, BTreeSet};

/// Counter slots 1 to the limit; slot 0 counts frames without an endpoint.
#[derive(Debug)]
pub struct Slots {
    limit: u32,
    by_interface: BTreeMap<u32, u32>,
}

impl Slots {
    /// The slots in use according to `taken` (ifindex, slot). A slot out of range or taken twice is not kept: its
    /// interface gets another one.
    pub fn recover(limit: u32, taken: impl IntoIterator<Item = (u32, u32)>) -> Self {
        let mut slots = Self { limit, by_interface: BTreeMap::new() };
        let mut seen = BTreeSet::from([SLOT_UNCONFIGURED]);
        for (ifindex, slot) in taken {
            if slot <= limit && seen.insert(slot) {
                slots.by_interface.insert(ifindex, slot);
            }
        }
        slots
    }

    /// The slot of an interface.
    pub fn get(&self, ifindex: u32) -> Option<u32> {
        self.by_interface.get(&ifindex).copied()
    }

    /// Gives the interface the lowest free slot; `None` when all are taken.
    pub fn take(&mut self, ifindex: u32) -> Option<u32> {
        let taken: BTreeSet<u32> = self.by_interface.values().copied().collect();
        let free = (SLOT_UNCONFIGURED + 1..=self.limit).find(|slot| !taken.contains(slot))?;
        self.by_interface.insert(ifindex, free);
        Some(free)
    }

    /// Takes the slot of an interface back.
    pub fn release(&mut self, ifindex: u32) -> Option<u32> {
        self.by_interface.remove(&ifindex)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_dense_and_reused() {
        let mut slots = Slots::recover(3, []);
        assert_eq!(
            [slots.take(10), slots.take(11), slots.take(12), slots.take(13)],
            [Some(1), Some(2), Some(3), None]
        );
        assert_eq!(slots.release(11), Some(2));
        assert_eq!(slots.take(13), Some(2));
        assert_eq!(slots.get(13), Some(2));
        assert_eq!(slots.release(99), None);
    }

    #[test]
    fn recovery_keeps_what_makes_sense() {
        let mut slots = Slots::recover(3, [(10, 2), (11, 2), (12, 0), (13, 4)]);
        assert_eq!(slots.get(10), Some(2));
        assert_eq!([slots.get(11), slots.get(12), slots.get(13)], [None; 3]);
        assert_eq!(slots.take(11), Some(1));
    }
}
