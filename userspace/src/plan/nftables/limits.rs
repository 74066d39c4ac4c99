//! How much of each VM gets to the host itself, as `decide::limit` has it for the hooks: packets of link scope, each by its
//! TAP's own allowance, which begins anew when rules are written. What differs: all solicitations are counted as such, also
//! those that no hook would answer, since here the host answers; packets are counted before policy is asked; and nobody
//! counts unknown neighbours, of which nftables knows nothing.

use super::{Text, list};
use crate::config::LimitsConfig;
use crate::resource::InterfaceName;
use dataplane_ebpf::abi::LINK_LOCALS;
use dataplane_ebpf::decide::limit::FORGET_NS;

/// Link-local addresses: what is from or to one is of link scope.
pub(super) const LINK_LOCAL: &str = "fe80::/10";
/// Groups: what is to one is, too.
pub(super) const MULTICAST: &str = "ff00::/8";
/// The chain that counts a packet of link scope and lets it pass or drops it.
pub(super) const CHAIN: &str = "link_scope";

/// Writes [`CHAIN`] and what it remembers, for VMs behind these TAPs.
pub(super) fn render(taps: &[&InterfaceName], limits: &LimitsConfig, text: &mut Text) {
    let seconds = FORGET_NS / 1_000_000_000;
    for number in 0..taps.len() {
        text.block(
            format_args!("set link_locals_{number}"),
            [
                "type ipv6_addr".to_owned(),
                format!("size {LINK_LOCALS}"),
                "flags dynamic,timeout".to_owned(),
                format!("timeout {seconds}s"),
            ],
        );
        text.block(
            format_args!("chain link_locals_of_{number}"),
            [
                // Full, it takes no other.
                format!("update @link_locals_{number} {{ ip6 saddr }} return"),
                "counter drop comment \"too many link-local addresses\"".to_owned(),
            ],
        );
    }
    let own =
        taps.iter().enumerate().map(|(number, tap)| format!("\"{tap}\" : jump link_locals_of_{number}"));
    let elements = (!taps.is_empty()).then(|| format!("elements = {{ {} }}", list(own)));
    text.block("map link_locals", ["type ifname : verdict".to_owned()].into_iter().chain(elements));

    for set in ["solicitations", "packets_for_host"] {
        let size = format!("size {}", taps.len().max(1));
        text.block(format_args!("set {set}"), ["type ifname".to_owned(), size, "flags dynamic".to_owned()]);
    }
    let share = |set: &str, rate: u32, burst: u32| {
        format!(
            "add @{set} {{ iifname limit rate over {rate}/second burst {burst} packets }} \
             counter drop comment \"limit of {set}\""
        )
    };
    let LimitsConfig { answer_rate, answer_burst, host_rate, host_burst, .. } = *limits;
    text.block(
        "chain solicitation",
        [share("solicitations", answer_rate, answer_burst), "accept".to_owned()],
    );
    text.block(
        format_args!("chain {CHAIN}"),
        [
            // First, so that forged addresses use up nothing that the VM's real ones need.
            format!("ip6 saddr {LINK_LOCAL} iifname vmap @link_locals"),
            "icmpv6 type { 133, 135 } goto solicitation".to_owned(),
            share("packets_for_host", host_rate, host_burst),
            "accept".to_owned(),
        ],
    );
}
