//! Neighbour discovery messages and their options (RFC 4861 section 4).

use super::{Checksum, EthernetHeader, Frame, Icmp6Header, Ipv6Header};
use crate::abi::{Address, Mac};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Unit of an option's length field, in bytes.
pub const OPTION_UNIT: usize = 8;

/// Units of options that are followed; a message with more is left to the kernel.
pub const MAX_OPTION_UNITS: usize = 16;

/// Neighbour solicitation or advertisement, without options.
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
pub struct NeighbourMessage {
    /// Type, code and checksum.
    pub icmp: Icmp6Header,
    /// Flags of an advertisement ([`advertisement_flags`]); reserved in a solicitation.
    pub flags: [u8; 4],
    /// Target address.
    pub target: [u8; 16],
}

const _: () = assert!(size_of::<NeighbourMessage>() == 24);

/// Flags of a neighbour advertisement, in its fifth byte.
pub mod advertisement_flags {
    /// The sender is a router.
    pub const ROUTER: u8 = 0x80;
    /// The answer to a unicast solicitation.
    pub const SOLICITED: u8 = 0x40;
    /// Replaces a cached link-layer address.
    pub const OVERRIDE: u8 = 0x20;
}

/// A whole neighbour advertisement as we send it.
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
pub struct NeighbourAdvertisementFrame {
    /// Ethernet header.
    pub ethernet: EthernetHeader,
    /// IPv6 header.
    pub ip: Ipv6Header,
    /// The advertisement.
    pub message: NeighbourMessage,
    /// Type and length of the target link-layer address option.
    pub option: [u8; 2],
    /// The link-layer address.
    pub target_mac: [u8; 6],
}

const _: () = assert!(size_of::<NeighbourAdvertisementFrame>() == 86);

/// Type of the source link-layer address option.
const SOURCE_LINK_LAYER: u8 = 1;
/// Type of the target link-layer address option.
const TARGET_LINK_LAYER: u8 = 2;

/// One unit of an option.
#[repr(C, align(8))]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
struct Unit {
    bytes: [u8; OPTION_UNIT],
}

/// What the options of a message say, and their sum.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Source link-layer address.
    pub source_mac: Option<Mac>,
    /// Target link-layer address.
    pub target_mac: Option<Mac>,
    /// `sum` and all bytes of the options.
    pub sum: Checksum,
}

impl Options {
    /// Reads `units` option units at `offset` and adds them to `sum`. `None`: an option of length 0 or one that reaches
    /// beyond the end (RFC 4861 section 4.6), or more than [`MAX_OPTION_UNITS`].
    #[inline(always)]
    pub fn read<F: Frame>(frame: &F, offset: usize, units: usize, sum: Checksum) -> Option<Self> {
        let mut options = Self { source_mac: None, target_mac: None, sum };
        let mut left_of_option = 0usize;
        let mut unit = 0;
        while unit < MAX_OPTION_UNITS {
            if unit >= units {
                break;
            }
            let Unit { bytes } = frame.load(offset + unit * OPTION_UNIT)?;
            options.sum = options.sum.add_word(u64::from_ne_bytes(bytes));
            if left_of_option == 0 {
                left_of_option = bytes[1] as usize;
                if left_of_option == 0 {
                    return None;
                }
                let mac = Mac::new([bytes[2], bytes[3], bytes[4], bytes[5], bytes[6], bytes[7]]);
                match bytes[0] {
                    SOURCE_LINK_LAYER => options.source_mac = Some(mac),
                    TARGET_LINK_LAYER => options.target_mac = Some(mac),
                    _ => {}
                }
            }
            left_of_option -= 1;
            unit += 1;
        }
        if left_of_option == 0 && units <= MAX_OPTION_UNITS { Some(options) } else { None }
    }
}

impl NeighbourAdvertisementFrame {
    /// Type and length of the option as we send it.
    pub const OPTION: [u8; 2] = [TARGET_LINK_LAYER, 1];
}

impl NeighbourMessage {
    /// Target address.
    #[inline(always)]
    pub fn target(&self) -> Address {
        Address::new(self.target)
    }
}
