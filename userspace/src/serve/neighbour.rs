//! Neighbour solicitations (RFC 4861) that reach the daemon because no hook answered them. Pure.
//!
//! A guest that believes in an on-link prefix solicits its neighbours, and the hooks answer as their proxy. The kernel
//! would do that only with a proxy entry for every pair of address and TAP, so without hooks the daemon does, by the
//! very decision of the hooks.

use crate::apply::fastpath;
use crate::plan::Attached;
use dataplane_ebpf::decide::answer::write_neighbour;
use dataplane_ebpf::decide::{Hook, Tables, Verdict, decide};
use dataplane_ebpf::host::{MemoryFrame, MemoryTables};
use std::net::Ipv6Addr;

/// Who has which address, as the hooks know it.
#[derive(Debug, Default)]
pub(super) struct Neighbours {
    tables: MemoryTables,
}

impl Neighbours {
    /// The neighbours on these TAPs.
    pub fn new<'a>(endpoints: impl IntoIterator<Item = &'a Attached>) -> Self {
        Self { tables: fastpath::in_memory(endpoints) }
    }

    /// The frame that answers what the VM of `endpoint` sent; `None` when a hook would answer nothing, or the kernel
    /// does: the TAP has the addresses of its gateway.
    pub fn answer(&self, endpoint: &Attached, frame: &[u8]) -> Option<Vec<u8>> {
        let known = self.tables.endpoint(endpoint.ifindex)?;
        let mut frame = MemoryFrame { bytes: frame.to_vec(), ..MemoryFrame::default() };
        let Verdict::AnswerNeighbour(answer) =
            decide(&frame, &self.tables, endpoint.ifindex, known, Hook::Tc)
        else {
            return None;
        };
        let target = Ipv6Addr::from(answer.target.octets());
        if target == endpoint.gateway || endpoint.gateways.iter().any(|gateway| gateway.get() == target) {
            return None;
        }
        write_neighbour(&mut frame, known, &answer).then_some(frame.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serve::fixture::solicitation;
    use crate::serve::{fixture, frame};

    const NEIGHBOUR: &str = "2001:db8:a41:2::12";

    fn endpoints() -> [Attached; 2] {
        let mut asking = fixture::endpoint();
        asking.gateways.push(fixture::address("2001:db8:a41:2::1"));
        let mut other = fixture::endpoint();
        other.ifindex = 8;
        other.addresses = vec![fixture::address(NEIGHBOUR)];
        other.gateways.push(fixture::address("2001:db8:a41:3::1"));
        [asking, other]
    }

    fn answer(source: &str, target: &str) -> Option<Vec<u8>> {
        let endpoints = endpoints();
        Neighbours::new(&endpoints).answer(&endpoints[0], &solicitation(source, target))
    }

    #[test]
    fn we_are_the_proxy_of_other_endpoints() {
        let endpoint = fixture::endpoint();
        for source in ["fe80::1", "2001:db8:a41:2::11"] {
            let answer = answer(source, NEIGHBOUR).unwrap();
            assert_eq!(answer[..6], endpoint.mac.octets());
            assert_eq!(answer[6..12], endpoint.gateway_mac.octets());
            assert_eq!(answer[22..38], NEIGHBOUR.parse::<Ipv6Addr>().unwrap().octets());
            assert_eq!(answer[38..54], source.parse::<Ipv6Addr>().unwrap().octets());
            // A router's, solicited, and without override (RFC 4861 section 7.2.8).
            assert_eq!((answer[54], answer[58]), (136, 0xc0));
            assert_eq!(answer[80..86], endpoint.gateway_mac.octets());
            assert_eq!(frame::tests::verify_sum(&answer), 0xffff);
        }
    }

    #[test]
    fn what_the_hooks_answer_and_the_kernel_does_not_is_answered() {
        assert!(answer("::", NEIGHBOUR).is_some(), "somebody else has the address that the VM wants");
        assert!(answer("fe80::1", "2001:db8:a41:3::1").is_some(), "a gateway on another TAP only");
    }

    #[test]
    fn the_kernel_answers_for_the_gateway() {
        let gateway = fixture::endpoint().gateway.to_string();
        assert_eq!(answer("fe80::1", &gateway), None);
        assert_eq!(answer("fe80::1", "2001:db8:a41:2::1"), None);
    }

    #[test]
    fn what_is_not_answered() {
        assert_eq!(answer("::", "2001:db8:a41:2::11"), None, "the VM's own address");
        assert_eq!(answer("fe80::1", "2001:db8:a41:2::99"), None, "nobody's address");
        assert_eq!(answer(NEIGHBOUR, NEIGHBOUR), None, "a source that is not the VM's");
        assert_eq!(answer("fe80::1", "fe80::2"), None);

        let [asking, other] = endpoints();
        let valid = solicitation("fe80::1", NEIGHBOUR);
        let mut forwarded = valid.clone();
        forwarded[21] = 254;
        let mut another_mac = valid.clone();
        another_mac[6] ^= 4;
        let neighbours = Neighbours::new([&asking, &other]);
        for bytes in [&forwarded[..], &another_mac, &valid[..85], &[]] {
            assert_eq!(neighbours.answer(&asking, bytes), None, "{bytes:02x?}");
        }
        let down = Attached { admin_up: false, ..other };
        assert_eq!(
            Neighbours::new([&asking, &down]).answer(&asking, &valid),
            None,
            "an endpoint that is down"
        );
        assert_eq!(Neighbours::default().answer(&asking, &valid), None);
    }
}
