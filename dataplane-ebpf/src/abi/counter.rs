//! What is counted per endpoint, and why a frame is dropped. One list makes the counters, the command line's words and
//! the documentation; numbers are never reused.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

macro_rules! numbered {
    ($(#[$meta:meta])* $name:ident { $($(#[doc = $doc:literal])+ $variant:ident = $number:literal, $label:literal;)+ }) => {
        $(#[$meta])*
        #[repr(u32)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name { $($(#[doc = $doc])+ $variant = $number,)+ }

        impl $name {
            /// All of them, by number.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The word used in JSON, tables and logs.
            pub const fn label(self) -> &'static str {
                match self { $(Self::$variant => $label,)+ }
            }

            /// The one with a number.
            #[inline(always)]
            pub const fn from_number(number: u32) -> Option<Self> {
                match number { $($number => Some(Self::$variant),)+ _ => None }
            }

            /// One sentence for people.
            pub const fn description(self) -> &'static str {
                match self { $(Self::$variant => concat!($($doc),+),)+ }
            }
        }
    };
}

numbered! {
    /// What is counted of an endpoint's frames. `From` and `to` are the VM's point of view.
    Counter {
        /// From the VM, sent on by XDP.
        ForwardedXdp = 0, "forwarded_xdp";
        /// From the VM, sent on by TC.
        ForwardedTc = 1, "forwarded_tc";
        /// From the VM, left to the kernel by TC.
        Passed = 2, "passed";
        /// From the VM, left to TC by XDP: a partial checksum, a segment to be cut, or nothing XDP finishes.
        Deferred = 3, "deferred";
        /// Neighbour solicitations answered.
        AnsweredNs = 4, "answered_ns";
        /// Router solicitations answered.
        AnsweredRs = 5, "answered_rs";
        /// To the VM, by XDP.
        DeliveredXdp = 6, "delivered_xdp";
        /// To the VM, by TC.
        DeliveredTc = 7, "delivered_tc";
        /// To the VM, by the kernel: forwarded or the host's own.
        DeliveredKernel = 8, "delivered_kernel";
    }
}

numbered! {
    /// Why a frame from a VM, or from another host to a VM, is dropped. The latter is counted to the VM it is for.
    Reason {
        /// No endpoint is configured on this TAP.
        Unconfigured = 0, "unconfigured";
        /// The TAP is administratively down.
        AdminDown = 1, "admin_down";
        /// The source MAC is not the endpoint's.
        SourceMac = 2, "source_mac";
        /// The source address is not the endpoint's; or it is one that no packet on a wire may have.
        SourceAddress = 3, "source_address";
        /// The VM uses an address of its own gateway.
        GatewaySpoof = 4, "gateway_spoof";
        /// The destination is an address that is never on a wire: loopback, unspecified or IPv4-mapped.
        DestinationAddress = 5, "destination_address";
        /// The frame has a VLAN tag.
        Vlan = 6, "vlan";
        /// Not IPv6 inside, a length that does not fit, or a header cut short.
        Malformed = 7, "malformed";
        /// An extension header chain that RFC 8200 does not allow, or longer than we follow.
        HeaderChain = 8, "header_chain";
        /// A first fragment without its whole header chain (RFC 7112), or nested fragments.
        FragmentChain = 9, "fragment_chain";
        /// Routing header type 0 (RFC 5095).
        RoutingHeader = 10, "routing_header";
        /// A router advertisement from a VM.
        RouterAdvertisement = 11, "router_advertisement";
        /// A redirect from a VM.
        Redirect = 12, "redirect";
        /// A DHCPv6 server or relay message from a VM.
        Dhcp6Server = 13, "dhcp6_server";
        /// Neighbour discovery that breaks RFC 4861: hop limit, code, length, option or checksum.
        NdInvalid = 14, "nd_invalid";
        /// Neighbour discovery in a fragment or behind extension headers (RFC 6980).
        NdHidden = 15, "nd_hidden";
        /// Neighbour discovery that claims an address or MAC of somebody else.
        NdSpoof = 16, "nd_spoof";
        /// More solicitations than are answered to one VM.
        RateLimited = 17, "rate_limited";
        // 18 was `no_device`: what XDP cannot send is left to TC now.
        /// Policy does not allow it, from its sender or to its receiver.
        Policy = 19, "policy";
        /// VMs may not talk to the host itself.
        HostClosed = 20, "host_closed";
        /// TCP that belongs to no connection and begins none, or an echo reply that nobody asked for.
        NoFlow = 21, "no_flow";
        /// An ICMPv6 error about a packet that nobody sent.
        UnrelatedError = 22, "unrelated_error";
        /// A later fragment whose first one was not allowed, or has not come.
        FragmentVerdict = 23, "fragment_verdict";
        /// More for the host itself than it takes from one VM.
        HostLimited = 24, "host_limited";
        /// From one more link-local address than the host deals with of one VM.
        LinkLocalLimited = 25, "link_local_limited";
        /// The kernel would have to find its next hop's MAC, more often than it does so for one VM.
        NeighbourLimited = 26, "neighbour_limited";
    }
}

/// Where the drop reasons begin in [`Counters::values`].
const DROPPED: usize = 16;

/// Number of `u64` in [`Counters`].
pub const COUNTER_SLOTS: usize = 48;

/// Value of `COUNTERS`, one per CPU: frames of one endpoint.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Counters {
    /// By [`Counter::index`] and [`Reason::index`].
    pub values: [u64; COUNTER_SLOTS],
}

const _: () =
    assert!(Counter::ALL.len() <= DROPPED && Reason::ALL[Reason::ALL.len() - 1].index() < COUNTER_SLOTS);

impl Counter {
    /// Place in [`Counters::values`].
    #[inline(always)]
    pub const fn index(self) -> usize {
        self as usize
    }
}

impl Reason {
    /// Place in [`Counters::values`].
    #[inline(always)]
    pub const fn index(self) -> usize {
        DROPPED + self as usize
    }
}

impl Reason {
    /// Whether policy and flows give this reason, and not the guard.
    #[inline(always)]
    pub const fn is_judgement(self) -> bool {
        matches!(
            self,
            Self::Policy | Self::HostClosed | Self::NoFlow | Self::UnrelatedError | Self::FragmentVerdict
        )
    }
}

impl Default for Counters {
    fn default() -> Self {
        Self { values: [0; COUNTER_SLOTS] }
    }
}

impl Counters {
    /// Frames counted under `counter`.
    pub fn get(&self, counter: Counter) -> u64 {
        self.values[counter.index()]
    }

    /// Frames dropped for `reason`.
    pub fn dropped(&self, reason: Reason) -> u64 {
        self.values[reason.index()]
    }

    /// Adds the counters of another CPU.
    pub fn add(&mut self, other: &Self) {
        for (sum, value) in self.values.iter_mut().zip(other.values) {
            *sum = sum.wrapping_add(value);
        }
    }
}

#[cfg(feature = "user")]
// SAFETY: `repr(C)`, no padding (`IntoBytes`), and every bit pattern is a value (`FromBytes`).
unsafe impl aya::Pod for Counters {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_ascend_and_labels_are_unique() {
        assert!(Counter::ALL.is_sorted_by_key(|counter| counter.index()));
        assert!(Reason::ALL.is_sorted_by_key(|reason| reason.index()));
        let mut labels: Vec<_> = Counter::ALL.iter().map(|c| c.label()).collect();
        labels.extend(Reason::ALL.iter().map(|r| r.label()));
        let all = labels.len();
        labels.sort_unstable();
        labels.dedup();
        assert_eq!(labels.len(), all);
    }
}
