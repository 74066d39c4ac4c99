//! What a carrier has to do: what is behind its TAPs, and the policy. Pure.

use super::{ALL, ENDS, End, OTHERS};
use crate::destinations::{self, Destinations, next_hop_mac};
use crate::policy::Policy;
use std::net::Ipv6Addr;

/// What a carrier has to do.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// What is behind the second TAP.
    pub far: Far,
    /// The policy, for those who know one.
    pub policy: Policy,
    /// How many flows of a VM there are at a time: the quota of the product is raised if it is less.
    pub flows: u32,
    /// Queues of either TAP.
    pub queues: usize,
}

impl Setting {
    /// Two VMs with few flows under the usual policy.
    pub const USUAL: Self = Self { far: Far::Endpoint, policy: Policy::USUAL, flows: 1, queues: 1 };
    /// The same with two more VMs beside them.
    pub const CROWD: Self = Self { far: Far::Crowd, policy: Policy::CROWD, ..Self::USUAL };

    /// Who sends, and who receives.
    pub const fn ends(&self) -> [End; 2] {
        match self.far {
            // No name of a VM's TAP: rules of others know those by their names.
            Far::Arrival => [End { tap: "uplink", mac: next_hop_mac(0), ..ENDS[0] }, ENDS[1]],
            Far::Endpoint | Far::Endpoints(_) | Far::Crowd | Far::Uplink(_) => ENDS,
        }
    }

    /// All TAPs of the host: these two, and where there are others, those of [`ALL`].
    pub fn taps(&self) -> Vec<End> {
        if self.far == Far::Crowd { ALL.to_vec() } else { self.ends().to_vec() }
    }

    /// The routes to other hosts, if there are any.
    pub fn routed(&self) -> Option<Routed> {
        match self.far {
            Far::Endpoint | Far::Endpoints(_) | Far::Crowd => None,
            Far::Arrival => Some(Routed { end: 0, next_hops: 1, routes: vec![((ENDS[0].address, 128), 0)] }),
            Far::Uplink(to) => {
                let route = |number| (to.route(number), to.next_hop(number));
                let routes = to.numbers().map(route).collect();
                Some(Routed { end: 1, next_hops: to.next_hops(), routes })
            }
        }
    }

    /// The TAPs that VMs are behind, by number, with the addresses of each.
    pub fn endpoints(&self) -> Vec<(usize, Vec<Ipv6Addr>)> {
        let uplink = self.routed().map(|routed| routed.end);
        let ends = [vec![ENDS[0].address], self.far.owned().collect()];
        let others = OTHERS.map(|end| vec![end.address]);
        let others = others.into_iter().take(self.taps().len() - ends.len());
        ends.into_iter().chain(others).enumerate().filter(|(end, _)| Some(*end) != uplink).collect()
    }
}

/// Routes to other hosts.
pub struct Routed {
    /// The end that is the uplink.
    pub end: usize,
    /// How many other hosts there are.
    pub next_hops: u32,
    /// Prefixes, and the number of the next hop of each.
    pub routes: Vec<((Ipv6Addr, u8), u32)>,
}

/// What is behind the second TAP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Far {
    /// A VM.
    Endpoint,
    /// A VM, while behind the first TAP there is another host with a VM that sends.
    Arrival,
    /// As many VMs as these destinations, on one TAP: one owner of all their addresses.
    Endpoints(Destinations),
    /// A VM, and [`OTHERS`] are on the same host.
    Crowd,
    /// Other hosts, and routes to these destinations.
    Uplink(Destinations),
}

impl Far {
    /// Where frames go when there are many destinations.
    pub const fn destinations(self) -> Option<Destinations> {
        match self {
            Self::Endpoint | Self::Crowd | Self::Arrival => None,
            Self::Endpoints(destinations) | Self::Uplink(destinations) => Some(destinations),
        }
    }

    /// The addresses of VMs there.
    pub fn owned(self) -> impl Iterator<Item = Ipv6Addr> {
        let (one, many) = match self {
            Self::Endpoint | Self::Crowd | Self::Arrival => (Some(ENDS[1].address), None),
            Self::Endpoints(destinations) => (None, Some(destinations)),
            Self::Uplink(_) => (None, None),
        };
        one.into_iter().chain(many.into_iter().flat_map(Destinations::numbers).map(destinations::address))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::destinations::Width;

    #[test]
    fn an_end_is_a_vm_or_an_uplink_with_routes() {
        let destinations = Destinations::new(3, Width::Host);
        for (far, vms, uplink) in [
            (Far::Endpoint, vec![0, 1], None),
            (Far::Endpoints(destinations), vec![0, 1], None),
            (Far::Crowd, vec![0, 1, 2, 3], None),
            (Far::Arrival, vec![1], Some(0)),
            (Far::Uplink(destinations), vec![0], Some(1)),
        ] {
            let setting = Setting { far, ..Setting::USUAL };
            let ends: Vec<usize> = setting.endpoints().into_iter().map(|(end, _)| end).collect();
            assert_eq!((ends, setting.routed().map(|routed| routed.end)), (vms, uplink), "{far:?}");
        }
        let arrival = Setting { far: Far::Arrival, ..Setting::USUAL };
        assert_eq!(arrival.endpoints(), [(1, vec![ENDS[1].address])]);
        assert_eq!(arrival.routed().unwrap().routes, [((ENDS[0].address, 128), 0)]);
        assert!(!arrival.ends()[0].tap.starts_with("tap"));
    }
}
