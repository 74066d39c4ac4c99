//! Many flows between two VMs: UDP with other ports. Pure.
//!
//! As with destinations, the ports of a flow come from a number alone, and what a frame has in its ports it has inverted in
//! its first data, so that all frames have the same checksum. `dataplane-ebpf/src/bare` does the same in the kernel.

use crate::choice::Popularity;

/// Where in a frame the ports are, the sender's first.
pub const PORTS_AT: usize = 54;
/// Where they are inverted.
pub const INVERSE_AT: usize = 62;
/// More flows than a run sends frames.
pub const ENDLESS: u32 = 1 << 28;

/// Some flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flows {
    /// How many, up to [`ENDLESS`].
    pub count: u32,
    /// How often each comes.
    pub popularity: Popularity,
}

impl Flows {
    /// Flows that come alike.
    pub const fn new(count: u32) -> Self {
        Self { count, popularity: Popularity::Even }
    }

    /// One of them, for a random value: the ports, as a frame has them.
    pub fn choose(self, random: u32) -> u32 {
        ports(self.popularity.choose(random, self.count))
    }
}

/// The ports of flow `index`: none that is 0, well known, or a tunnel's.
pub const fn ports(index: u32) -> u32 {
    ((index & 0x3fff) + 0x4000) << 16 | ((index >> 14) + 0x8000)
}

/// The same as the sender's port and the receiver's.
pub const fn pair(index: u32) -> [u16; 2] {
    let ports = ports(index);
    [(ports >> 16) as u16, ports as u16]
}

/// Makes a frame one of another flow.
pub fn move_to(frame: &mut [u8], ports: u32) {
    frame[PORTS_AT..][..4].copy_from_slice(&ports.to_be_bytes());
    frame[INVERSE_AT..][..4].copy_from_slice(&(!ports).to_be_bytes());
}

/// The ports of a frame, if it has any.
pub fn ports_of(frame: &[u8]) -> Option<u32> {
    let bytes = frame.get(PORTS_AT..PORTS_AT + 4)?;
    Some(u32::from_be_bytes(bytes.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serval_tests::frame::{GATEWAY_MAC, Ipv6, Payload, checksum_holds};
    use std::collections::BTreeSet;

    #[test]
    fn every_flow_has_ports_of_its_own_that_mean_nothing_else() {
        let all: BTreeSet<u32> = (0..100_000).map(ports).collect();
        assert_eq!(all.len(), 100_000);
        for ports in all.into_iter().chain([ports(ENDLESS - 1), Flows::new(1000).choose(u32::MAX)]) {
            let [source, destination] = [ports >> 16, ports & 0xffff];
            assert!((0x4000..0x8000).contains(&source) && (0x8000..0xc000).contains(&destination));
        }
    }

    #[test]
    fn a_frame_of_another_flow_keeps_its_checksum() {
        let mut data = [0x5e; 16];
        data[..4].copy_from_slice(&(!ports(0)).to_be_bytes());
        let [source, destination] = pair(0);
        let headers = Ipv6::new([2, 0, 0, 0, 0, 1], GATEWAY_MAC);
        let mut frame = headers.carrying(Payload::udp(source, destination, &data)).bytes;
        for index in [0, 1, 0x3fff, 0x4000, ENDLESS - 1] {
            move_to(&mut frame, ports(index));
            assert!(checksum_holds(&frame));
            assert_eq!(ports_of(&frame), Some(ports(index)));
        }
    }
}
