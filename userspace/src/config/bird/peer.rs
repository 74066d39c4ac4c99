//! `[[bird.peers]]`: a session with a router, or with a host that has no Node resource.

use super::read::{
    bfd, hold, port, prefixes, some_as_number, some_hops, some_host_address, some_path, some_restart_time,
};
use super::{Bfd, HOLD};
use crate::config::parsed;
use crate::resource::{AsNumber, HostAddress, InterfaceName, NextHop};
use ipnet::Ipv6Net;
use serde::de::{self, Error as _};
use serde::{Deserialize, Deserializer};
use std::net::Ipv6Addr;
use std::path::PathBuf;

/// `[[bird.peers]]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "PeerTable")]
pub struct PeerConfig {
    /// What it is called in `status`.
    pub name: String,
    /// Its address.
    pub address: Ipv6Addr,
    /// The interface of a link-local address.
    pub interface: Option<InterfaceName>,
    /// Its AS; by default ours.
    pub as_number: Option<AsNumber>,
    /// Our AS in this session.
    pub local_as: Option<AsNumber>,
    /// Its port.
    pub port: u16,
    /// File with the password.
    pub password_file: Option<PathBuf>,
    /// Our address in this session.
    pub source: Option<HostAddress>,
    /// We wait for it to connect.
    pub passive: bool,
    /// How many hops away it may be; `None`: one if it is of another AS, else any.
    pub multihop: Option<u8>,
    /// Packets from farther away are refused (RFC 5082); it must do the same.
    pub ttl_security: bool,
    /// BFD.
    pub bfd: Bfd,
    /// It is a client of ours, the route reflector.
    pub reflector_client: bool,
    /// What it hears as next hop.
    pub next_hop: NextHop,
    /// How often our AS may be in the path of its routes.
    pub allow_local_as: u8,
    /// Hold time in seconds; keepalives are sent three times as often.
    pub hold: u16,
    /// How long it keeps our routes while BIRD restarts, in seconds, when not as long as others.
    pub graceful_restart_time: Option<u16>,
    /// Prefixes accepted from it that are no VMs' networks, exactly; `::/0` is a default route.
    pub accept: Vec<Ipv6Net>,
}

/// A peer as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PeerTable {
    #[serde(deserialize_with = "peer_name")]
    name: String,
    #[serde(deserialize_with = "peer_address")]
    address: Ipv6Addr,
    #[serde(default, deserialize_with = "some_interface")]
    interface: Option<InterfaceName>,
    #[serde(default, rename = "as", deserialize_with = "some_as_number")]
    as_number: Option<AsNumber>,
    #[serde(default, deserialize_with = "some_as_number")]
    local_as: Option<AsNumber>,
    #[serde(default = "bgp_port", deserialize_with = "port")]
    port: u16,
    #[serde(default, deserialize_with = "some_path")]
    password_file: Option<PathBuf>,
    #[serde(default, deserialize_with = "some_host_address")]
    source: Option<HostAddress>,
    #[serde(default)]
    passive: bool,
    #[serde(default, deserialize_with = "some_hops")]
    multihop: Option<u8>,
    #[serde(default)]
    ttl_security: bool,
    #[serde(default, deserialize_with = "bfd")]
    bfd: Bfd,
    #[serde(default)]
    reflector_client: bool,
    #[serde(default, deserialize_with = "next_hop")]
    next_hop: NextHop,
    #[serde(default)]
    allow_local_as: u8,
    #[serde(default = "default_hold", deserialize_with = "hold")]
    hold: u16,
    #[serde(default, deserialize_with = "some_restart_time")]
    graceful_restart_time: Option<u16>,
    #[serde(default, deserialize_with = "prefixes")]
    accept: Vec<Ipv6Net>,
}

impl TryFrom<PeerTable> for PeerConfig {
    type Error = String;

    fn try_from(table: PeerTable) -> Result<Self, String> {
        let name = &table.name;
        let link_local = table.address.is_unicast_link_local();
        if link_local && table.interface.is_none() {
            return Err(format!("peer `{name}`: a link-local address needs its `interface`"));
        }
        if !link_local && table.interface.is_some() {
            return Err(format!("peer `{name}`: `interface` goes with a link-local address only; remove it"));
        }
        if link_local && table.multihop.is_some() {
            return Err(format!("peer `{name}`: a link-local neighbour is one hop away; remove `multihop`"));
        }
        if link_local && table.source.is_some() {
            return Err(format!(
                "peer `{name}`: with a link-local neighbour we speak from our own link-local address; remove `source`"
            ));
        }
        Ok(Self {
            name: table.name,
            address: table.address,
            interface: table.interface,
            as_number: table.as_number,
            local_as: table.local_as,
            port: table.port,
            password_file: table.password_file,
            source: table.source,
            passive: table.passive,
            multihop: table.multihop,
            ttl_security: table.ttl_security,
            bfd: table.bfd,
            reflector_client: table.reflector_client,
            next_hop: table.next_hop,
            allow_local_as: table.allow_local_as,
            hold: table.hold,
            graceful_restart_time: table.graceful_restart_time,
            accept: table.accept,
        })
    }
}

/// The peers; each has a name and a neighbour of its own.
pub(super) fn list<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<PeerConfig>, D::Error> {
    let peers = Vec::<PeerConfig>::deserialize(deserializer)?;
    for (i, peer) in peers.iter().enumerate() {
        for first in &peers[..i] {
            if first.name == peer.name {
                return Err(D::Error::custom(format!("peer `{}` is listed twice", peer.name)));
            }
            if (first.address, &first.interface) == (peer.address, &peer.interface) {
                return Err(D::Error::custom(format!(
                    "peers `{}` and `{}` have the same address; BGP has one session with a neighbour",
                    first.name, peer.name
                )));
            }
        }
    }
    Ok(peers)
}

fn peer_name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let name = String::deserialize(deserializer)?;
    let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    if (1..=64).contains(&name.len()) && name.bytes().all(legal) {
        Ok(name)
    } else {
        Err(D::Error::custom(format!("`{name}` is no peer's name: 1 to 64 letters, digits, `-`, `_` or `.`")))
    }
}

fn peer_address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Ipv6Addr, D::Error> {
    let text = String::deserialize(deserializer)?;
    let address: Ipv6Addr = text
        .parse()
        .map_err(|_| D::Error::custom(format!("`{text}` is no IPv6 address; write one like 2001:db8::1")))?;
    if !address.is_unicast_link_local() {
        HostAddress::new(address).map_err(de::Error::custom)?;
    }
    Ok(address)
}

fn some_interface<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<InterfaceName>, D::Error> {
    let interface: InterfaceName = parsed(deserializer)?;
    if interface.as_str().contains(['"', '*', '?', '\\']) {
        return Err(D::Error::custom(format!("`{interface}` is a name that BIRD cannot be told")));
    }
    Ok(Some(interface))
}

fn next_hop<'de, D: Deserializer<'de>>(deserializer: D) -> Result<NextHop, D::Error> {
    match String::deserialize(deserializer)?.as_str() {
        "standard" => Ok(NextHop::Standard),
        "self" => Ok(NextHop::Own),
        "keep" => Ok(NextHop::Keep),
        other => Err(D::Error::unknown_variant(other, &["standard", "self", "keep"])),
    }
}

fn bgp_port() -> u16 {
    179
}

fn default_hold() -> u16 {
    HOLD
}
