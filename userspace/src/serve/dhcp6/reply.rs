//! A server's message, built option by option within what one packet to the VM can carry.
//!
//! The reply leaves as one frame, so an option that does not fit is left out whole or, when it is a list, without its end.

use crate::serve::domain;
use dhcproto::Encodable;
use dhcproto::v6::{
    DhcpOption, DhcpOptions, IAAddr, IANA, IAPD, IATA, MessageType, OptionCode, Status, StatusCode,
    UnknownOption,
};
use std::net::Ipv6Addr;

/// Most items of a list that are tried: more than one packet carries, and far from where 16-bit lengths overflow.
const LONGEST_LIST: usize = 1_000;

/// The message so far.
pub(super) struct Reply {
    bytes: Vec<u8>,
    room: usize,
    truncated: bool,
}

impl Reply {
    /// The header; the whole message is to be at most `room` bytes long.
    pub fn new(kind: MessageType, transaction: [u8; 3], room: usize) -> Self {
        let mut bytes = vec![kind.into()];
        bytes.extend_from_slice(&transaction);
        Self { bytes, room, truncated: false }
    }

    /// Adds an option.
    pub fn push(&mut self, option: &DhcpOption) {
        if !self.fits(option) {
            self.truncated = true;
        }
    }

    /// Adds the option that `option` makes of `items`, without the last items if they don't fit.
    pub fn push_list<T>(&mut self, items: &[T], option: impl Fn(&[T]) -> DhcpOption) {
        for length in (0..=items.len().min(LONGEST_LIST)).rev() {
            if self.fits(&option(&items[..length])) {
                self.truncated |= length < items.len();
                return;
            }
        }
        self.truncated = true;
    }

    /// The message, and whether something was left out.
    pub fn finish(self) -> (Vec<u8>, bool) {
        (self.bytes, self.truncated)
    }

    /// Adds an option if there is room for it.
    fn fits(&mut self, option: &DhcpOption) -> bool {
        // The encoder writes lengths modulo 2^16, but an option that long is longer than any room.
        let fitting = option.to_vec().ok().filter(|bytes| self.bytes.len() + bytes.len() <= self.room);
        self.bytes.extend(fitting.iter().flatten());
        fitting.is_some()
    }
}

/// Lifetimes of a lease in seconds; preferred and valid are the same.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lease(pub u32);

impl Lease {
    /// Takes an address away.
    pub const OVER: Self = Self(0);
    /// `infinity` (RFC 8415 section 7.7).
    const FOREVER: u32 = u32::MAX;

    /// T1 and T2: 0.5 and 0.8 of the preferred lifetime (RFC 8415 section 21.4); a lease for ever is never renewed.
    fn renewal(self) -> (u32, u32) {
        match self.0 {
            Self::FOREVER => (Self::FOREVER, Self::FOREVER),
            lifetime => (lifetime / 2, (u64::from(lifetime) * 4 / 5) as u32),
        }
    }

    fn address(self, addr: Ipv6Addr) -> DhcpOption {
        DhcpOption::IAAddr(IAAddr {
            addr,
            preferred_life: self.0,
            valid_life: self.0,
            opts: DhcpOptions::new(),
        })
    }
}

/// An IA_NA with its addresses and those the client should give up. `NoAddrsAvail` if there is nothing to say.
pub(super) fn non_temporary(
    iaid: u32,
    addresses: &[Ipv6Addr],
    lease: Lease,
    over: &[Ipv6Addr],
) -> DhcpOption {
    let (t1, t2) = if addresses.is_empty() { (0, 0) } else { lease.renewal() };
    let options: DhcpOptions = if addresses.is_empty() && over.is_empty() {
        std::iter::once(status(Status::NoAddrsAvail)).collect()
    } else {
        let given = addresses.iter().map(|address| lease.address(*address));
        let over = over.iter().map(|address| Lease::OVER.address(*address));
        in_order(given.chain(over))
    };
    DhcpOption::IANA(IANA { id: iaid, t1, t2, opts: options })
}

/// An IA_NA that says only that the server knows nothing of it.
pub(super) fn no_binding(iaid: u32) -> DhcpOption {
    let opts = std::iter::once(status(Status::NoBinding)).collect();
    DhcpOption::IANA(IANA { id: iaid, t1: 0, t2: 0, opts })
}

/// An IA_TA with a status and nothing else.
pub(super) fn temporary(iaid: u32, code: Status) -> DhcpOption {
    DhcpOption::IATA(IATA { id: iaid, opts: std::iter::once(status(code)).collect() })
}

/// An IA_PD with a status and nothing else.
pub(super) fn prefix_delegation(iaid: u32, code: Status) -> DhcpOption {
    DhcpOption::IAPD(IAPD { id: iaid, t1: 0, t2: 0, opts: std::iter::once(status(code)).collect() })
}

/// A status code.
pub(super) fn status(status: Status) -> DhcpOption {
    let msg = match status {
        Status::Success => "done",
        Status::NoAddrsAvail => "no address is configured for this interface",
        Status::NoPrefixAvail => "no prefix is delegated here",
        Status::NoBinding => "this interface has no such address",
        Status::NotOnLink => "this interface has other addresses",
        Status::UseMulticast => "send to ff02::1:2",
        _ => "",
    };
    DhcpOption::StatusCode(StatusCode { status, msg: msg.to_owned() })
}

/// Domain search list (RFC 3646 section 4). Not the option type of `dhcproto`, which compresses names; RFC 8415 section
/// 10 forbids that.
pub(super) fn search_list(names: &[Vec<u8>]) -> DhcpOption {
    DhcpOption::Unknown(UnknownOption::new(OptionCode::DomainSearchList, names.concat()))
}

/// Client FQDN (RFC 4704 section 4.1): the VM's name, and who updates DNS, which the server never does.
pub(super) fn fqdn(name: &str, client_flags: u8) -> Option<DhcpOption> {
    const SERVER_UPDATES: u8 = 1;
    const OVERRIDDEN: u8 = 2;
    const NO_UPDATES: u8 = 4;
    let overridden = if client_flags & SERVER_UPDATES == 0 { 0 } else { OVERRIDDEN };
    let mut data = vec![NO_UPDATES | overridden];
    data.extend(domain::encode(name)?);
    Some(DhcpOption::Unknown(UnknownOption::new(OptionCode::ClientFqdn, data)))
}

/// SOL_MAX_RT (RFC 8415 section 21.24).
pub(super) fn sol_max_rt(seconds: u32) -> DhcpOption {
    DhcpOption::Unknown(UnknownOption::new(OptionCode::SolMaxRt, seconds.to_be_bytes().to_vec()))
}

/// Options in the order given, which collecting does not promise: it sorts unstably by code.
fn in_order(options: impl DoubleEndedIterator<Item = DhcpOption>) -> DhcpOptions {
    let mut ordered = DhcpOptions::new();
    // Each goes before those of its code that are there.
    options.rev().for_each(|option| ordered.insert(option));
    ordered
}
