//! What a cloud does for a VM: writes its document and plugs its TAP; numbers make names, MACs and addresses.

use crate::frame::Mac;
use crate::guest::{KernelGuest, Settings};
use crate::host::{Endpoint, Host, Subnet};
use crate::tap::Offloads;
use anyhow::Result;
use std::net::Ipv6Addr;

/// The prefix of [`address`].
pub const PREFIX: &str = "2001:db8:5e:1::/64";

/// A DNS server that [`subnet`] announces.
pub const DNS_SERVER: &str = "2001:db8:53::53";

/// The MAC of VM `number`.
pub fn mac(number: u8) -> Mac {
    [0xfa, 0x16, 0x3e, 0, 0, number]
}

/// The address of VM `number`.
pub fn address(number: u8) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, 0x5e, 1, 0, 0, 0, u16::from(number))
}

/// The endpoint of VM `number`, on the TAP `tap<number>`.
pub fn endpoint(number: u8) -> Endpoint {
    Endpoint { tap: tap(number), ..Endpoint::new(&name(number), mac(number), address(number)) }
}

/// The endpoint's name.
pub fn name(number: u8) -> String {
    format!("vm{number}")
}

/// The endpoint's TAP.
pub fn tap(number: u8) -> String {
    format!("tap{number}")
}

/// The Subnet of all of them.
pub fn subnet() -> Subnet {
    let more =
        vec![format!("dnsServers: [\"{DNS_SERVER}\"]"), "searchDomains: [openstack.example]".to_owned()];
    Subnet { more, ..Subnet::new("tenant", PREFIX) }
}

/// A guest for endpoint `number`, plugged in and still off.
pub fn plugged(host: &Host, number: u8) -> Result<KernelGuest> {
    KernelGuest::new(&host.namespace, Settings::new(&tap(number), mac(number)))
}

/// A guest with its document, address and default route given by hand, whose endpoint is up. `offloads` is what it may
/// leave to its device: with [`Offloads::NONE`] its frames are whole, which XDP forwards, otherwise they are TC's.
pub fn running(host: &Host, number: u8, offloads: Offloads) -> Result<KernelGuest> {
    host.put_endpoint(&endpoint(number))?;
    let mut settings = Settings::new(&tap(number), mac(number));
    settings.options.offloads = offloads;
    let guest = KernelGuest::new(&host.namespace, settings)?;
    guest.configure(address(number))?;
    host.wait_state(&name(number), "up")?;
    Ok(guest)
}
