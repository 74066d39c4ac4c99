//! Calico's `Node`, as calicoctl writes it.

use super::super::{BgpId, HostAddress, Node, NodeBgp};
use super::fields::{Field, Fields};
use super::{bgp, metadata};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// Reads the document; `None` when a fault was reported.
pub(super) fn read(document: &mut Fields<'_>) -> Option<Node> {
    let metadata = metadata::read(document);
    document.accept(&["status"]);
    let mut bgp = None;
    if let Some(field) = document.optional("spec") {
        let mut spec = field.fields();
        bgp = spec.optional("bgp").map(|field| node_bgp(&field));
        spec.accept(&[
            "addresses",
            "interfaces",
            "ipv4VXLANTunnelAddr",
            "ipv6VXLANTunnelAddr",
            "orchRefs",
            "vxlanTunnelMACAddr",
            "vxlanTunnelMACAddrV6",
            "wireguard",
        ]);
        spec.end();
    }
    Some(Node { name: metadata.name?.to_owned(), labels: metadata.labels, bgp })
}

fn node_bgp(field: &Field<'_>) -> NodeBgp {
    let mut fields = field.fields();
    let bgp = NodeBgp {
        as_number: fields.optional("asNumber").and_then(|field| bgp::as_number(&field)),
        ipv4: fields
            .optional("ipv4Address")
            .and_then(|field| address::<Ipv4Addr>(&field, "192.0.2.1/24", 32)),
        ipv6: fields
            .optional("ipv6Address")
            .and_then(|field| Some((address::<Ipv6Addr>(&field, "2001:db8::1/64", 128)?, field)))
            .and_then(|(address, field)| {
                HostAddress::new(address).map_err(|wrong| field.error(wrong.to_string())).ok()
            }),
        cluster_id: fields.optional("routeReflectorClusterID").and_then(|field| field.parse::<BgpId>()),
    };
    fields.accept(&["ipv4IPIPTunnelAddr"]);
    fields.end();
    bgp
}

/// An address, with or without its prefix length.
fn address<T: FromStr>(field: &Field<'_>, example: &str, bits: u8) -> Option<T> {
    let text = field.string()?;
    let (address, length) = match text.split_once('/') {
        None => (text, None),
        Some((address, length)) => (address, Some(length)),
    };
    let length_fits = |length: &str| length.parse::<u8>().is_ok_and(|length| length <= bits);
    let address = address.parse().ok().filter(|_| length.is_none_or(length_fits));
    if address.is_none() {
        field.error(format!("`{text}` is no such address; write one like {example}"));
    }
    address
}
