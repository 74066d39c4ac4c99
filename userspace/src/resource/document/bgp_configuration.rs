//! Calico's `BGPConfiguration`.

use super::super::{BgpConfiguration, Community};
use super::fields::{Field, Fields};
use super::{bgp, metadata};
use ipnet::{IpNet, Ipv6Net};
use std::collections::BTreeMap;

/// Reads the document; `None` when a fault was reported.
pub(super) fn read(document: &mut Fields<'_>) -> Option<BgpConfiguration> {
    let name = metadata::read(document).name;
    let mut settings = BgpConfiguration::default();
    if let Some(field) = document.optional("spec") {
        let mut spec = field.fields();
        settings.as_number = spec.optional("asNumber").and_then(|field| bgp::as_number(&field));
        settings.mesh = spec.optional("nodeToNodeMeshEnabled").and_then(|field| field.boolean());
        settings.listen_port = spec.optional("listenPort").and_then(|field| bgp::port(&field));
        settings.mesh_restart_time =
            spec.optional("nodeMeshMaxRestartTime").and_then(|field| bgp::seconds(&field, 1..=4095));
        settings.mesh_password = spec.optional("nodeMeshPassword").and_then(|field| bgp::password(&field));
        let named = spec.optional("communities").map(|field| communities(&field)).unwrap_or_default();
        if let Some(field) = spec.optional("prefixAdvertisements") {
            settings.communities =
                field.list().iter().filter_map(|field| advertisement(field, &named)).collect();
        }
        spec.accept(&[
            "bindMode",
            "ignoredInterfaces",
            "localWorkloadPeeringIPV4",
            "localWorkloadPeeringIPV6",
            "logSeverityScreen",
            "serviceClusterIPs",
            "serviceExternalIPs",
            "serviceLoadBalancerAggregation",
            "serviceLoadBalancerIPs",
        ]);
        spec.end();
    }
    settings.name = name?.to_owned();
    Some(settings)
}

fn communities<'a>(field: &Field<'a>) -> BTreeMap<&'a str, Community> {
    let mut named = BTreeMap::new();
    for field in field.list() {
        let mut fields = field.fields();
        let name = fields.required("name").and_then(|field| field.string());
        let value = fields.required("value").and_then(|field| field.parse());
        fields.end();
        named.extend(name.zip(value));
    }
    named
}

/// An entry of `prefixAdvertisements`; `None` when a fault was reported or it is about IPv4.
fn advertisement(field: &Field<'_>, named: &BTreeMap<&str, Community>) -> Option<(Ipv6Net, Vec<Community>)> {
    let mut fields = field.fields();
    let cidr = fields.required("cidr");
    let values = fields.required("communities").map(|field| field.list()).unwrap_or_default();
    fields.end();
    let communities = values.iter().filter_map(|field| {
        let text = field.string()?;
        named.get(text).copied().or_else(|| {
            let parsed = text.parse();
            if parsed.is_err() {
                field.error(format!(
                    "`{text}` is neither the name of one of spec.communities nor a community like 64512:100"
                ));
            }
            parsed.ok()
        })
    });
    let communities: Vec<_> = communities.collect();
    let field = cidr?;
    let text = field.string()?;
    match text.parse::<IpNet>() {
        Ok(IpNet::V6(net)) => Some((net.trunc(), communities)),
        Ok(IpNet::V4(_)) => None,
        Err(_) => {
            field.error(format!("`{text}` is no network; write one like 2001:db8:1:2::/64"));
            None
        }
    }
}
