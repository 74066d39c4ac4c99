//! Where packets meet the rules: who may send this (`decide::guard`), what VMs may say to the host, and whose policy is
//! asked about what is forwarded, in the order of `decide::flow`.

use super::steps::{View, name};
use super::{GENERATION_MASK, Settings, Text, limits, list};
use crate::plan::Attached;
use crate::resource::InterfaceName;
use limits::{LINK_LOCAL, MULTICAST};
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv6Addr;

/// The name of an empty chain, before the number of the rules' generation.
pub(super) const GENERATION_CHAIN: &str = "generation_";

/// Before fragments are put together (`NF_IP6_PRI_CONNTRACK_DEFRAG` is -400): nobody adds to another's fragments.
const BEFORE_DEFRAGMENTATION: i32 = -450;

/// All that the hooks speak of.
pub(super) struct Hooks<'a> {
    pub taps: Vec<Tap<'a>>,
    pub blocked: &'a BTreeMap<u32, InterfaceName>,
    /// Policy counts; else there are guard and limits alone.
    pub policed: bool,
    pub settings: Settings<'a>,
}

/// An endpoint's TAP.
pub(super) struct Tap<'a> {
    pub attached: &'a Attached,
    /// `None`: nothing is known of its policy, and nothing gets through.
    pub chains: Option<Chains>,
}

/// Numbers of an endpoint's chains.
pub(super) struct Chains {
    pub ingress: usize,
    pub egress: usize,
}

/// Writes maps, sets and chains.
pub(super) fn render(hooks: &Hooks<'_>, text: &mut Text) {
    let Hooks { taps, blocked, policed, settings } = hooks;
    let (taps, nameless): (Vec<_>, Vec<_>) =
        taps.iter().partition(|tap| is_writable(tap.attached.interface.as_str()));
    let closed: BTreeSet<u32> =
        nameless.iter().map(|tap| tap.attached.ifindex).chain(blocked.keys().copied()).collect();
    who_is_who(&taps, text);
    let names: Vec<_> = taps.iter().map(|tap| &tap.attached.interface).collect();
    limits::render(&names, settings.limits, text);
    guard(&closed, settings.tap_prefix, text);
    forwarded(&closed, settings.tap_prefix, *policed, text);
    if *policed {
        whose_policy(&taps, text);
        to_host(settings, text);
        from_host(settings.host_is_judged, text);
        judge(text);
    }
}

/// Names of a kind, one to a line.
fn set(text: &mut Text, head: &str, kind: &str, elements: Vec<String>) {
    let mut lines = vec![kind.to_owned()];
    if !elements.is_empty() {
        lines.push(format!("elements = {{ {} }}", elements.join(", ")));
    }
    text.block(head, lines);
}

fn quoted(tap: &Tap<'_>) -> String {
    format!("\"{}\"", tap.attached.interface)
}

/// Who is who.
fn who_is_who(taps: &[&Tap<'_>], text: &mut Text) {
    let each = |element: &dyn Fn(&Tap<'_>) -> Vec<String>| -> Vec<String> {
        taps.iter().flat_map(|tap| element(tap)).collect()
    };

    set(text, "set endpoints", "type ifname", each(&|tap| vec![quoted(tap)]));
    let macs = |tap: &Tap<'_>| vec![format!("{} . {}", quoted(tap), tap.attached.mac)];
    set(text, "set macs", "typeof iifname . ether saddr", each(&macs));
    let with = "typeof iifname . ip6 saddr";
    let sources = |tap: &Tap<'_>| -> Vec<String> {
        let own = tap.attached.addresses.iter().map(|address| address.get()).collect::<BTreeSet<_>>();
        own.into_iter().map(|address| format!("{} . {address}", quoted(tap))).collect()
    };
    set(text, "set sources", with, each(&sources));
    // Where its TAP is down, a VM may still be on the host that it moves from.
    let running = taps.iter().filter(|tap| tap.attached.admin_up);
    let here: BTreeSet<_> =
        running.flat_map(|tap| &tap.attached.addresses).map(|address| address.get()).collect();
    let gateways: BTreeSet<_> = taps.iter().flat_map(|tap| routers(tap)).collect();
    set(text, "set here", "type ipv6_addr", here.difference(&gateways).map(ToString::to_string).collect());
    let gateways = |tap: &Tap<'_>| -> Vec<String> {
        routers(tap).into_iter().map(|address| format!("{} . {address}", quoted(tap))).collect()
    };
    set(text, "set gateways", with, each(&gateways));
}

/// Whose policy is which.
fn whose_policy(taps: &[&Tap<'_>], text: &mut Text) {
    let mut map = |map: &str, number: fn(&Chains) -> usize, view: View| {
        let verdict = |tap: &&Tap<'_>| {
            let chain = tap.chains.as_ref().map(|chains| name(number(chains), view));
            let verdict = chain.map_or("drop".to_owned(), |chain| format!("jump {chain}"));
            format!("{} : {verdict}", quoted(tap))
        };
        set(text, &format!("map {map}"), "type ifname : verdict", taps.iter().map(verdict).collect());
    };
    map("egress", |chains| chains.egress, View::Packet);
    map("ingress", |chains| chains.ingress, View::Packet);
    map("egress_answer", |chains| chains.egress, View::Answer);
    map("ingress_answer", |chains| chains.ingress, View::Answer);
}

/// The addresses of a VM's router.
fn routers(tap: &Tap<'_>) -> BTreeSet<Ipv6Addr> {
    let configured = tap.attached.gateways.iter().map(|address| address.get());
    configured.chain([tap.attached.gateway]).collect()
}

/// The VM uses its own MAC and addresses, and plays neither router nor DHCPv6 server.
fn guard(closed: &BTreeSet<u32>, tap_prefix: &str, text: &mut Text) {
    let mut lines = base("prerouting", &BEFORE_DEFRAGMENTATION.to_string());
    lines.push("iifname @endpoints goto from_vm".to_owned());
    lines.extend(closing("iif", closed, tap_prefix));
    text.block("chain guard", lines);

    let fixed = |lines: &[&str]| -> Vec<String> { lines.iter().map(|line| (*line).to_owned()).collect() };
    text.block(
        "chain from_vm",
        fixed(&[
            "iifname . ether saddr != @macs counter drop comment \"source MAC\"",
            "ip6 daddr { ::, ::1, ::ffff:0:0/96 } counter drop comment \"destination address\"",
            "jump upper_layer",
            "iifname . ip6 saddr @gateways counter drop comment \"gateway spoof\"",
            &format!("ip6 saddr {LINK_LOCAL} goto {}", limits::CHAIN),
            &format!(
                "ip6 saddr :: ip6 daddr {MULTICAST} icmpv6 type {{ 131, 132, 133, 135, 143 }} goto {}",
                limits::CHAIN
            ),
            "iifname . ip6 saddr != @sources counter drop comment \"source address\"",
            &format!("ip6 daddr {LINK_LOCAL} goto {}", limits::CHAIN),
            &format!("ip6 daddr {MULTICAST} goto {}", limits::CHAIN),
            "accept",
        ]),
    );
    // Once more when fragments are put together: only then is all of the packet to be seen. The kernel puts them together
    // where a rule mentions conntrack, as those of policy do.
    let mut lines = base("prerouting", "raw");
    lines.push("ct state untracked".to_owned());
    lines.push("iifname @endpoints jump whole_packet".to_owned());
    text.block("chain guard_whole", lines);
    text.block(
        "chain whole_packet",
        fixed(&[
            "exthdr frag exists counter drop comment \"fragment in a fragment\"",
            "jump upper_layer",
            // Whatever the last bytes of the header are: they can be read.
            "meta l4proto 6 @th,144,16 0-65535 return",
            "meta l4proto { 17, 58 } @th,48,16 0-65535 return",
            "meta l4proto { 132, 136 } @th,16,16 0-65535 return",
            "meta l4proto != { 6, 17, 58, 132, 136 } return",
            "counter drop comment \"malformed\"",
        ]),
    );
    text.block(
        "chain header_chain",
        fixed(&[
            "exthdr hbh exists ip6 nexthdr != 0 counter drop comment \"header chain\"",
            // Nothing follows mobility, HIP and Shim6 headers.
            "meta l4proto { 135, 139, 140 } @th,0,8 != 59 counter drop comment \"header chain\"",
            "rt type 0 counter drop comment \"routing header\"",
        ]),
    );
    text.block(
        "chain upper_layer",
        fixed(&[
            "jump header_chain",
            "icmpv6 type 134 counter drop comment \"router advertisement\"",
            "icmpv6 type 137 counter drop comment \"redirect\"",
            "udp sport 547 counter drop comment \"DHCPv6 server\"",
            "udp dport 546 counter drop comment \"DHCPv6 server\"",
            // Where whoever looks only at the first header does not see it; RFC 6980 forbids fragments.
            "icmpv6 type { 133, 135, 136 } ip6 nexthdr != 58 counter drop comment \"hidden discovery\"",
        ]),
    );
}

/// What VMs say to the host.
fn to_host(settings: &Settings<'_>, text: &mut Text) {
    let mut lines = base("input", "filter");
    lines.push("iifname @endpoints goto to_host".to_owned());
    text.block("chain input", lines);

    let mut lines: Vec<String> = [
        // Multicast listeners (RFC 3810), router and neighbour discovery, DHCPv6, DNS: what every VM needs.
        "icmpv6 type { 130, 131, 132, 143, 133, 135, 136 } accept",
        "udp sport 546 udp dport 547 accept",
        "udp dport 53 accept",
        "icmpv6 type 0-127 ct state related accept",
        "icmpv6 type 0-127 counter drop comment \"error about nothing\"",
    ]
    .map(str::to_owned)
    .into();
    let [known, invalid] = known_flows();
    if settings.host_is_judged {
        lines.push(known);
        lines.push("ct state established ct direction reply goto ask_about_first".to_owned());
    } else {
        // The host has begun it, which nothing forbids.
        lines.push("ct state established ct direction reply accept".to_owned());
        if settings.host_is_open {
            lines.push(known);
        }
    }
    if settings.host_is_open {
        lines.extend([invalid, "goto ask".to_owned()]);
    } else {
        lines.push("counter drop comment \"host closed\"".to_owned());
    }
    text.block("chain to_host", lines);
}

/// What the host itself says to VMs.
fn from_host(is_judged: bool, text: &mut Text) {
    if !is_judged {
        return;
    }
    let mut lines = base("output", "filter");
    lines.push("oifname @endpoints goto from_host".to_owned());
    text.block("chain output", lines);

    let lines = [
        // The other side of what every VM needs, and what the host could not forward.
        "icmpv6 type { 130, 131, 132, 143, 134, 135, 136, 0-127 } accept",
        "udp sport 547 udp dport 546 accept",
        "udp sport 53 accept",
        "goto judge",
    ];
    text.block("chain from_host", lines.map(str::to_owned));
}

/// What is forwarded from or to VMs.
fn forwarded(closed: &BTreeSet<u32>, tap_prefix: &str, policed: bool, text: &mut Text) {
    let (judged, from_vm) = if policed {
        ("goto judge", "iifname @endpoints goto judge")
    } else {
        ("accept", "iifname @endpoints accept")
    };
    let mut lines = base("forward", "filter");
    lines.push("oifname @endpoints goto to_vm".to_owned());
    lines.extend(closing("oif", closed, tap_prefix));
    lines.push(from_vm.to_owned());
    text.block("chain forward", lines);

    // As `decide::uplink`: nobody elsewhere has the address of a VM that runs here, and wants more than its rights.
    let lines = [
        from_vm,
        "ip6 saddr @here counter drop comment \"source address\"",
        // Others that no packet may be from, the kernel drops.
        "ip6 saddr ::ffff:0:0/96 counter drop comment \"source address\"",
        "exthdr frag exists counter drop comment \"fragment in a fragment\"",
        "jump header_chain",
        judged,
    ];
    text.block("chain to_vm", lines.map(str::to_owned));
}

/// Whose policy is asked about a packet, if anybody's.
fn judge(text: &mut Text) {
    let mut lines = vec![
        "icmpv6 type 0-127 ct state related accept".to_owned(),
        "icmpv6 type 0-127 counter drop comment \"error about nothing\"".to_owned(),
        // No flow: asked about each time.
        "icmpv6 type != { 128, 129 } goto ask".to_owned(),
        // Whoever answers has no right to begin another connection between the same ports.
        "tcp flags & (syn | ack) == syn ct direction reply goto ask".to_owned(),
    ];
    lines.extend(known_flows());
    lines.push("ct state established ct direction reply goto ask_about_first".to_owned());
    lines.push("goto ask".to_owned());
    text.block("chain judge", lines);

    let asked = |egress: &str, ingress: &str| {
        vec![egress.to_owned(), ingress.to_owned(), remember(), "accept".to_owned()]
    };
    text.block("chain ask", asked("iifname vmap @egress", "oifname vmap @ingress"));
    // An answer, allowed under a policy that is no more: whoever gets it has begun the flow.
    text.block("chain ask_about_first", asked("oifname vmap @egress_answer", "iifname vmap @ingress_answer"));
}

/// Flows that this policy has allowed pass; what cannot belong to a flow does not. Conntrack knows no flow of ICMPv6 but
/// that of an echo, and none of SCTP whose beginning it has not seen: of those, policy is asked.
fn known_flows() -> [String; 2] {
    [
        format!("ct state established ct mark & {GENERATION_MASK:#x} == $judged accept"),
        "meta l4proto != { 58, 132 } ct state invalid counter drop comment \"no flow\"".to_owned(),
    ]
}

fn remember() -> String {
    format!("ct mark set ct mark & {:#x} | $judged", !GENERATION_MASK)
}

fn base(hook: &str, priority: &str) -> Vec<String> {
    vec![format!("type filter hook {hook} priority {priority}; policy accept;")]
}

/// Drops what comes from, or goes to, TAPs without a complete configuration.
fn closing(by: &str, closed: &BTreeSet<u32>, tap_prefix: &str) -> Vec<String> {
    let mut lines = Vec::new();
    if is_writable(tap_prefix) {
        lines.push(format!("{by}name \"{tap_prefix}*\" counter drop comment \"TAP without endpoint\""));
    }
    if !closed.is_empty() {
        lines.push(format!("{by} {{ {} }} counter drop comment \"TAP without endpoint\"", list(closed)));
    }
    lines
}

/// Whether nft reads such a name as it is: in its quotes there is no way to write a quote, and a star means more than one.
fn is_writable(name: &str) -> bool {
    name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-+@".contains(&byte))
}
