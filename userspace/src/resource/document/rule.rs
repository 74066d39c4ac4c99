//! Rules of policies and profiles: what Calico's validation accepts, read for IPv6.

use super::super::policy::{Action, Entity, IcmpMatch, Port, PortRange, Protocol, Rule};
use super::super::selector::Selector;
use super::fields::{Field, Fields};
use super::tree::Value;
use ipnet::{IpNet, Ipv6Net};
use std::net::IpAddr;

/// What Calico does with a document that it refuses, for the end of a message.
pub(super) const CONSEQUENCE: &str = "Calico would treat the whole policy as missing";

/// Most rules of a list: what the classifier has room for.
const RULES: usize = 2048;

/// Reads `ingress` or `egress`. `namespace` is the policy's; selectors of rules without a `namespaceSelector` are about
/// it alone.
pub(super) fn list(field: &Field<'_>, namespace: Option<&str>) -> Vec<Rule> {
    let rules = field.list();
    if rules.len() > RULES {
        field.error(format!("{} rules; up to {RULES} are supported: divide the policy", rules.len()));
        return Vec::new();
    }
    rules.iter().filter_map(|field| rule(field, namespace)).collect()
}

fn rule(field: &Field<'_>, namespace: Option<&str>) -> Option<Rule> {
    let mut fields = field.fields();
    let action = fields.required("action").and_then(|field| action(&field));
    let version = fields.optional("ipVersion").and_then(|field| version(&field));
    let protocol_field = fields.optional("protocol");
    let protocol = protocol_field.as_ref().and_then(protocol);
    let not_protocol = fields.optional("notProtocol").and_then(|field| self::protocol(&field));
    let icmp = icmp(&mut fields, "icmp", protocol);
    let not_icmp = self::icmp(&mut fields, "notICMP", protocol);
    let source = end(&mut fields, "source", namespace, protocol);
    let destination = end(&mut fields, "destination", namespace, protocol);
    if let Some(field) = fields.optional("http").filter(|field| !field.is_empty()) {
        field.error("conditions on HTTP need a proxy, which Serval is not; remove it");
    }
    if let Some(field) = fields.optional("metadata") {
        let mut metadata = field.fields();
        metadata.accept(&["annotations"]);
        metadata.end();
    }
    fields.end();

    // The name implies the version, the number does not (Calico's defaulting looks at names only).
    let named = |name: &str| {
        protocol_field
            .as_ref()
            .and_then(|field| field.node.as_str())
            .is_some_and(|text| text.eq_ignore_ascii_case(name))
    };
    let contradiction = match version {
        Some(6) => named("ICMP"),
        Some(4) => named("ICMPv6"),
        _ => false,
    };
    if contradiction && let Some(field) = &protocol_field {
        field.error(format!("not a protocol of this ipVersion; {CONSEQUENCE}"));
    }
    Some(Rule {
        action: action?,
        ipv6: version != Some(4) && !named("ICMP"),
        protocol,
        not_protocol,
        icmp,
        not_icmp,
        source,
        destination,
    })
}

fn action(field: &Field<'_>) -> Option<Action> {
    let text = field.string()?;
    match text.to_ascii_lowercase().as_str() {
        "allow" => Some(Action::Allow),
        "deny" => Some(Action::Deny),
        "pass" => Some(Action::Pass),
        "log" => Some(Action::Log),
        _ => {
            field.error(format!("`{text}` is none of Allow, Deny, Pass, Log; {CONSEQUENCE}"));
            None
        }
    }
}

fn version(field: &Field<'_>) -> Option<u8> {
    match field.integer(4..=6)? {
        4 => Some(4),
        6 => Some(6),
        _ => {
            field.error(format!("there are 4 and 6; {CONSEQUENCE}"));
            None
        }
    }
}

/// A protocol by name, number, or number as text: Neutron writes all three.
pub(super) fn protocol(field: &Field<'_>) -> Option<Protocol> {
    match &field.node.value {
        Value::Number(_) => field.integer(1..=255).and_then(|number| u8::try_from(number).ok()).map(Protocol),
        _ => field
            .string()?
            .parse()
            .map_err(|wrong: String| field.error(format!("{wrong}; {CONSEQUENCE}")))
            .ok(),
    }
}

fn icmp(fields: &mut Fields<'_>, key: &'static str, protocol: Option<Protocol>) -> Option<IcmpMatch> {
    let field = fields.optional(key)?;
    let mut inner = field.fields();
    let kind = inner.optional("type").and_then(|field| field.integer(0..=254));
    let code_field = inner.optional("code");
    let code = code_field.as_ref().and_then(|field| field.integer(0..=255));
    inner.end();
    if !matches!(protocol, Some(Protocol::ICMP | Protocol::ICMP6)) {
        field.error(format!("needs `protocol: ICMPv6` beside it; {CONSEQUENCE}"));
    }
    if let (None, Some(field)) = (kind, &code_field) {
        field.error(format!("needs a `type` beside it; {CONSEQUENCE}"));
    }
    let small = |number: Option<u32>| number.and_then(|number| u8::try_from(number).ok());
    Some(IcmpMatch { kind: small(kind), code: small(code) })
}

/// Reads `source` or `destination`.
fn end(
    rule: &mut Fields<'_>,
    key: &'static str,
    namespace: Option<&str>,
    protocol: Option<Protocol>,
) -> Entity {
    let Some(field) = rule.optional(key) else { return Entity::default() };
    let mut fields = field.fields();
    // An empty list is no condition, as in Calico; a list of IPv4 alone is one that no IPv6 packet meets.
    let nets = fields.optional("nets").filter(|field| !field.is_empty()).map(|field| prefixes(&field));
    let not_nets = fields.optional("notNets").map(|field| prefixes(&field)).unwrap_or_default();
    let selector = peers(&mut fields, namespace);
    let not_selector = said(&mut fields, "notSelector").and_then(|field| field.parse());
    let ports = fields.optional("ports").map(|field| ports(&field, protocol)).unwrap_or_default();
    let not_ports =
        fields.optional("notPorts").map(|field| self::ports(&field, protocol)).unwrap_or_default();
    if let Some(field) = fields.optional("services").filter(|field| !field.is_empty()) {
        field.error("Kubernetes' services are unknown here; name the endpoints by labels or addresses");
    }
    fields.end();
    Entity { nets, not_nets, selector, not_selector, ports, not_ports }
}

/// `selector`, `namespaceSelector` and `serviceAccounts` as one.
fn peers(fields: &mut Fields<'_>, namespace: Option<&str>) -> Option<Selector> {
    let selector = said(fields, "selector").map(|field| field.parse::<Selector>());
    let namespaces = said(fields, "namespaceSelector").map(|field| field.parse::<Selector>());
    let accounts = fields
        .optional("serviceAccounts")
        .filter(|field| !field.is_empty())
        .map(|field| service_accounts(&field));
    if selector.is_none() && namespaces.is_none() && accounts.is_none() {
        return None;
    }
    let scope = match &namespaces {
        Some(namespaces) => namespaces.as_ref()?.of_namespaces(),
        None => namespace.map_or(Selector::All, Selector::in_namespace),
    };
    let chosen = selector.unwrap_or(Some(Selector::All))?;
    let accounts = accounts.unwrap_or(Some(Selector::All))?;
    Some(scope.and(chosen).and(accounts))
}

/// Endpoints of these service accounts; Neutron gives none, so without Kubernetes nothing is chosen.
fn service_accounts(field: &Field<'_>) -> Option<Selector> {
    let mut fields = field.fields();
    let names = fields.optional("names").map(|field| field.list()).unwrap_or_default();
    let selector = match said(&mut fields, "selector") {
        Some(field) => field.parse::<Selector>()?.of_service_accounts(),
        None => Selector::All,
    };
    fields.end();
    let mut accounts = Vec::new();
    for name in &names {
        accounts.push(super::metadata::name(name)?.to_owned());
    }
    Some(if accounts.is_empty() { selector } else { selector.and(Selector::of_accounts(accounts)) })
}

/// A text that says something.
fn said<'a>(fields: &mut Fields<'a>, key: &'static str) -> Option<Field<'a>> {
    fields.optional(key).filter(|field| field.node.as_str() != Some(""))
}

/// The IPv6 entries of a list of prefixes and addresses; those of IPv4 are left to others.
pub(super) fn prefixes(field: &Field<'_>) -> Vec<Ipv6Net> {
    let nets = field.list();
    nets.iter()
        .filter_map(prefix)
        .filter_map(|net| if let IpNet::V6(net) = net { Some(net) } else { None })
        .collect()
}

fn prefix(field: &Field<'_>) -> Option<IpNet> {
    let text = field.string()?;
    let net = text.parse::<IpNet>().ok().or_else(|| Some(IpNet::from(text.parse::<IpAddr>().ok()?)));
    if net.is_none() {
        field.error(format!("`{text}` is no prefix; write one like 2001:db8::/64; {CONSEQUENCE}"));
    }
    net.map(|net| net.trunc())
}

fn ports(field: &Field<'_>, protocol: Option<Protocol>) -> Vec<Port> {
    let entries = field.list();
    if !entries.is_empty() && !protocol.is_some_and(Protocol::has_ports) {
        field.error(format!("needs `protocol: TCP`, UDP or SCTP beside it; {CONSEQUENCE}"));
        return Vec::new();
    }
    entries.iter().filter_map(port).collect()
}

fn port(field: &Field<'_>) -> Option<Port> {
    if let Value::Number(_) = field.node.value {
        let number = u16::try_from(field.integer(0..=65_535)?).ok()?;
        return PortRange::new(number, number).map(Port::Range);
    }
    let text = field.string()?;
    if text.starts_with(|c: char| c.is_ascii_digit()) {
        return text
            .parse()
            .map_err(|wrong: String| field.error(format!("{wrong}; {CONSEQUENCE}")))
            .ok()
            .map(Port::Range);
    }
    super::metadata::name(field).map(|name| Port::Named(name.to_owned()))
}
