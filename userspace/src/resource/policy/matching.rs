//! What a rule matches: protocols, ports, ICMPv6 types, and the two ends of a packet.

use super::super::Selector;
use ipnet::Ipv6Net;
use std::fmt;
use std::str::FromStr;

/// A protocol, by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Protocol(pub u8);

impl Protocol {
    /// TCP.
    pub const TCP: Self = Self(6);
    /// UDP.
    pub const UDP: Self = Self(17);
    /// ICMP of IPv4.
    pub const ICMP: Self = Self(1);
    /// ICMPv6.
    pub const ICMP6: Self = Self(58);
    /// SCTP.
    pub const SCTP: Self = Self(132);
    /// UDP-Lite.
    pub const UDP_LITE: Self = Self(136);

    /// Whether Calico lets rules of this protocol have ports.
    pub fn has_ports(self) -> bool {
        [Self::TCP, Self::UDP, Self::SCTP].contains(&self)
    }
}

impl FromStr for Protocol {
    type Err = String;

    /// A name in any case, or a number from 1 to 255 as text.
    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(number @ 1..=255) = text.parse::<u8>() {
            return Ok(Self(number));
        }
        match text.to_ascii_lowercase().as_str() {
            "tcp" => Ok(Self::TCP),
            "udp" => Ok(Self::UDP),
            "icmp" => Ok(Self::ICMP),
            "icmpv6" => Ok(Self::ICMP6),
            "sctp" => Ok(Self::SCTP),
            "udplite" => Ok(Self::UDP_LITE),
            _ => Err(format!(
                "`{text}` is no protocol; write TCP, UDP, ICMP, ICMPv6, SCTP, UDPLite or a number from 1 to 255"
            )),
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::TCP => f.write_str("TCP"),
            Self::UDP => f.write_str("UDP"),
            Self::ICMP => f.write_str("ICMP"),
            Self::ICMP6 => f.write_str("ICMPv6"),
            Self::SCTP => f.write_str("SCTP"),
            Self::UDP_LITE => f.write_str("UDPLite"),
            Self(number) => write!(f, "protocol {number}"),
        }
    }
}

/// `icmp` or `notICMP`: a type, and perhaps a code; without a type, any.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IcmpMatch {
    /// `type`; 255 is reserved and refused, as in Calico.
    pub kind: Option<u8>,
    /// `code`; there is none without a type.
    pub code: Option<u8>,
}

impl IcmpMatch {
    /// Whether a message of this type and code is meant.
    pub fn matches(self, kind: u8, code: u8) -> bool {
        self.kind.is_none_or(|wanted| wanted == kind) && self.code.is_none_or(|wanted| wanted == code)
    }
}

/// Ports from `first` to `last`, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortRange {
    first: u16,
    last: u16,
}

impl PortRange {
    /// `None` when the range is the wrong way round.
    pub fn new(first: u16, last: u16) -> Option<Self> {
        (first <= last).then_some(Self { first, last })
    }

    /// The first port.
    pub fn first(self) -> u16 {
        self.first
    }

    /// The last port.
    pub fn last(self) -> u16 {
        self.last
    }

    /// Whether the port is in it.
    pub fn contains(self, port: u16) -> bool {
        (self.first..=self.last).contains(&port)
    }
}

impl FromStr for PortRange {
    type Err = String;

    /// `8080` or `8000:8080`.
    fn from_str(text: &str) -> Result<Self, String> {
        let port = |text: &str| {
            text.parse::<u16>().map_err(|_| {
                format!("`{text}` is no port; write 0 to 65535, a range like 8000:8080, or a name")
            })
        };
        let (first, last) = text.split_once(':').unwrap_or((text, text));
        let (first, last) = (port(first)?, port(last)?);
        Self::new(first, last)
            .ok_or_else(|| format!("the range {text} is the wrong way round; write {last}:{first}"))
    }
}

/// An entry of `ports` or `notPorts`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Port {
    /// By number.
    Range(PortRange),
    /// By name: a port of the endpoint at that end, of the name and the rule's protocol.
    Named(String),
}

/// `source` or `destination` of a rule. All of its conditions must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entity {
    /// `nets`: its IPv6 entries. Some, but empty: only IPv4 was named, and no IPv6 packet matches.
    pub nets: Option<Vec<Ipv6Net>>,
    /// `notNets`: its IPv6 entries.
    pub not_nets: Vec<Ipv6Net>,
    /// Endpoints and network sets by their labels: `selector`, and what else the document says of them, namespaces
    /// included.
    pub selector: Option<Selector>,
    /// `notSelector`. It is about all namespaces, as in Calico.
    pub not_selector: Option<Selector>,
    /// `ports`: one of them, unless the list is empty.
    pub ports: Vec<Port>,
    /// `notPorts`: none of them.
    pub not_ports: Vec<Port>,
}
