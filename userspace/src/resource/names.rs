//! Names and addresses that are checked when they are made.

use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

/// Why a name or address is refused; says what would be right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NameError(pub String);

/// Namespace and name of a WorkloadEndpoint; printed as `namespace/name`, or the name alone in namespace `default`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EndpointName {
    /// `metadata.namespace`; `default` when absent.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
}

impl fmt::Display for EndpointName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.namespace.as_str() {
            "default" => f.write_str(&self.name),
            namespace => write!(f, "{namespace}/{}", self.name),
        }
    }
}

/// Name of a network interface: 1 to 15 bytes, no `/`, no white space, not `.` or `..` (as the kernel's
/// `dev_valid_name`).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InterfaceName(String);

impl InterfaceName {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for InterfaceName {
    type Err = NameError;

    fn from_str(s: &str) -> Result<Self, NameError> {
        let legal = (1..=15).contains(&s.len())
            && s != "."
            && s != ".."
            && s.bytes().all(|b| b.is_ascii_graphic() && b != b'/' && b != b':');
        if legal {
            Ok(Self(s.to_owned()))
        } else {
            Err(NameError(format!(
                "`{s}` is no interface name: 1 to 15 printable characters, no `/`, `:` or space"
            )))
        }
    }
}

impl fmt::Display for InterfaceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A unicast, non-zero Ethernet address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MacAddress([u8; 6]);

impl MacAddress {
    /// Checks that `octets` is a unicast address other than zero.
    pub fn new(octets: [u8; 6]) -> Result<Self, NameError> {
        let mac = Self(octets);
        if octets == [0; 6] {
            Err(NameError(format!("`{mac}` is no host's MAC address: it is all zero")))
        } else if octets[0] & 1 == 1 {
            Err(NameError(format!("`{mac}` is a multicast MAC address; the first byte of a host's is even")))
        } else {
            Ok(mac)
        }
    }

    /// The bytes in wire order.
    pub fn octets(self) -> [u8; 6] {
        self.0
    }

    /// The link-local address that an interface of this MAC makes for itself (RFC 4291 appendix A).
    pub fn link_local(self) -> Ipv6Addr {
        let [a, b, c, d, e, f] = self.0;
        Ipv6Addr::from([0xfe, 0x80, 0, 0, 0, 0, 0, 0, a ^ 2, b, c, 0xff, 0xfe, d, e, f])
    }
}

impl FromStr for MacAddress {
    type Err = NameError;

    fn from_str(s: &str) -> Result<Self, NameError> {
        let wrong =
            || NameError(format!("`{s}` is no MAC address; write six hex bytes like fa:16:3e:00:00:01"));
        let mut octets = [0; 6];
        let mut parts = s.split(':');
        for octet in &mut octets {
            let part = parts.next().ok_or_else(wrong)?;
            if part.len() != 2 || !part.bytes().all(|b| b.is_ascii_hexdigit()) {
                return Err(wrong());
            }
            *octet = u8::from_str_radix(part, 16).map_err(|_| wrong())?;
        }
        if parts.next().is_some() {
            return Err(wrong());
        }
        Self::new(octets)
    }
}

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// An IPv6 address that a host can have and that can be routed: unicast, not link-local, loopback, unspecified or
/// IPv4-mapped.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostAddress(Ipv6Addr);

impl HostAddress {
    /// Checks the class of `address`.
    pub fn new(address: Ipv6Addr) -> Result<Self, NameError> {
        let class = if address.is_unspecified() {
            "the unspecified address"
        } else if address.is_loopback() {
            "the loopback address"
        } else if address.is_multicast() {
            "a multicast address"
        } else if address.is_unicast_link_local() {
            "a link-local address, which is not routed"
        } else if address.to_ipv4_mapped().is_some() {
            "an IPv4-mapped address"
        } else {
            return Ok(Self(address));
        };
        Err(NameError(format!("`{address}` is {class}; give a global or unique local unicast address")))
    }

    /// The address.
    pub fn get(self) -> Ipv6Addr {
        self.0
    }
}

impl fmt::Display for HostAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for HostAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mac_makes_the_kernels_link_local() {
        let mac: MacAddress = "00:61:fe:ed:ca:fe".parse().unwrap();
        assert_eq!(mac.link_local(), "fe80::261:feff:feed:cafe".parse::<Ipv6Addr>().unwrap());
    }

    #[test]
    fn refuses_what_is_no_host() {
        for mac in [
            "",
            "fa:16:3e:00:00",
            "fa:16:3e:00:00:01:02",
            "fa-16-3e-00-00-01",
            "01:00:5e:00:00:01",
            "00:00:00:00:00:00",
            "fa:16:3e:0:0:1",
            "+a:16:3e:00:00:01",
        ] {
            assert!(mac.parse::<MacAddress>().is_err(), "{mac}");
        }
        for address in ["::", "::1", "ff02::1", "fe80::1", "::ffff:192.0.2.1"] {
            assert!(HostAddress::new(address.parse().unwrap()).is_err(), "{address}");
        }
        for name in ["", ".", "..", "a/b", "a b", "sixteen-letters-"] {
            assert!(name.parse::<InterfaceName>().is_err(), "{name}");
        }
        assert!("tap11111111-aa".parse::<InterfaceName>().is_ok());
    }
}
