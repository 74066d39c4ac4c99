//! Calico's `BGPPeer`.

use super::super::{BgpPeer, Hosts, NextHop, Remote};
use super::fields::{Field, Fields};
use super::{bgp, metadata};
use std::net::{IpAddr, SocketAddr};

/// Reads the document; `None` when a fault was reported.
pub(super) fn read(document: &mut Fields<'_>) -> Option<BgpPeer> {
    let name = metadata::read(document).name;
    let mut spec = document.required("spec")?.fields();
    let hosts = hosts(&mut spec);
    let remote = remote(&mut spec);
    let local_as = spec.optional("localASNumber").and_then(|field| bgp::as_number(&field));
    let password = spec.optional("password").and_then(|field| bgp::password(&field));
    let source = spec.optional("sourceAddress").and_then(|field| choice(&field, &["UseNodeIP", "None"]));
    let restart_time = spec.optional("maxRestartTime").and_then(|field| bgp::seconds(&field, 1..=4095));
    let keepalive = spec.optional("keepaliveTime").and_then(|field| bgp::seconds(&field, 1..=21_845));
    let allow_local_as = spec.optional("numAllowedLocalASNumbers").and_then(|field| small(&field, 0));
    let keep = spec.optional("keepOriginalNextHop").and_then(|field| field.boolean()).unwrap_or(false);
    let mode = spec.optional("nextHopMode").and_then(|field| choice(&field, &["Auto", "Self", "Keep"]));
    let ttl_security = spec.optional("ttlSecurity").and_then(|field| small(&field, 1));
    let reverse = spec.optional("reversePeering").and_then(|field| choice(&field, &["Auto", "Manual"]));
    if let Some(field) = spec.optional("filters").filter(|field| !field.is_empty()) {
        field.note("not used: what is announced and accepted is decided in [bird] of the configuration");
    }
    if let Some(field) = spec.optional("localWorkloadSelector").filter(|field| field.string() != Some("")) {
        field.error("sessions with VMs are not supported");
    }
    if let Some(field) = filled(&mut spec, "reachableBy") {
        field.note("not used: the kernel's routes lead to the peer");
    }
    spec.end();
    Some(BgpPeer {
        name: name?.to_owned(),
        hosts: hosts?,
        remote: remote?,
        local_as,
        password,
        source_is_node: source != Some("None"),
        restart_time,
        keepalive,
        allow_local_as,
        next_hop: match mode {
            Some("Self") => NextHop::Own,
            Some("Keep") => NextHop::Keep,
            _ if keep => NextHop::Keep,
            _ => NextHop::Standard,
        },
        ttl_security,
        reverse: reverse != Some("Manual"),
    })
}

fn hosts(spec: &mut Fields<'_>) -> Option<Hosts> {
    let node = filled(spec, "node");
    let selector = filled(spec, "nodeSelector");
    match (node, selector) {
        (None, None) => Some(Hosts::All),
        (Some(node), None) => Some(Hosts::One(metadata::name(&node)?.to_owned())),
        (None, Some(selector)) => Some(Hosts::Chosen(selector.parse()?)),
        (Some(_), Some(selector)) => {
            selector.error("cannot stand beside `node`; remove one of them");
            None
        }
    }
}

fn remote(spec: &mut Fields<'_>) -> Option<Remote> {
    let address = filled(spec, "peerIP");
    let as_number = spec.optional("asNumber").filter(|field| field.node.describe() != "the number 0");
    match (address, filled(spec, "peerSelector")) {
        (Some(address), None) => {
            let as_number = match as_number {
                Some(field) => bgp::as_number(&field),
                None => {
                    address.error("needs the AS of the peer beside it; give `asNumber`");
                    None
                }
            };
            let (address, port) = peer_address(&address)?;
            Some(Remote::Router { address, port, as_number: as_number? })
        }
        (None, Some(selector)) => {
            if let Some(field) = as_number {
                field.error("cannot stand beside `peerSelector`: the AS is that of the Node; remove it");
            }
            Some(Remote::Hosts(selector.parse()?))
        }
        (Some(_), Some(selector)) => {
            selector.error("cannot stand beside `peerIP`; remove one of them");
            None
        }
        (None, None) => {
            spec.required("peerIP");
            None
        }
    }
}

/// A field that says something: calicoctl also writes empty texts.
fn filled<'a>(spec: &mut Fields<'a>, key: &'static str) -> Option<Field<'a>> {
    spec.optional(key).filter(|field| field.node.as_str() != Some(""))
}

/// `2001:db8::1`, `[2001:db8::1]:1790` or the same of IPv4.
fn peer_address(field: &Field<'_>) -> Option<(IpAddr, Option<u16>)> {
    let text = field.string()?;
    let parsed = text
        .parse::<SocketAddr>()
        .ok()
        .filter(|socket| socket.port() != 0)
        .map(|socket| (socket.ip(), Some(socket.port())))
        .or_else(|| Some((text.parse::<IpAddr>().ok()?, None)));
    let Some((address, port)) = parsed else {
        field.error(format!("`{text}` is no address; write one like 2001:db8::1 or [2001:db8::1]:1790"));
        return None;
    };
    match address {
        IpAddr::V4(_) => field.note("an IPv4 peer; IPv4 is left to others"),
        IpAddr::V6(v6) if v6.is_unicast_link_local() => {
            field.error(format!(
                "`{text}` is link-local and needs an interface; put this peer into [bird] of the configuration"
            ));
            return None;
        }
        IpAddr::V6(v6) => {
            if let Err(wrong) = crate::resource::HostAddress::new(v6) {
                field.error(wrong.to_string());
                return None;
            }
        }
    }
    Some((address, port))
}

fn choice<'a>(field: &Field<'a>, words: &[&str]) -> Option<&'a str> {
    let text = field.string()?;
    if words.contains(&text) {
        return Some(text);
    }
    field.error(format!("`{text}` is none of {}", words.join(", ")));
    None
}

fn small(field: &Field<'_>, least: u32) -> Option<u8> {
    field.integer(least..=255).and_then(|number| u8::try_from(number).ok())
}
