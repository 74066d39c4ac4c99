//! A policy as somebody writes it for nftables who wants it fast: known flows leave at the first rule, TAPs are found by
//! verdict maps and sources by one set, and only what is new meets the list. One table, two hooks, and no counters but one
//! at the list's end, which proves what was new.

use super::Policy;
use crate::carrier::{ENDS, End};
use serval_tests::frame::mac_text;
use std::net::Ipv6Addr;

/// The table.
pub const TABLE: &str = "ip6 bench";

/// For `nft -f`. The VM at the far end has the addresses `far`.
pub fn rules(policy: Policy, far: impl Iterator<Item = Ipv6Addr>) -> String {
    let members: Vec<String> = policy.members().map(|member| member.to_string()).collect();
    let own = far.map(|address| End { address, ..ENDS[1] });
    let others = policy.vms().iter().skip(ENDS.len()).copied();
    let sources: Vec<String> = [ENDS[0]]
        .into_iter()
        .chain(own)
        .chain(others)
        .map(|end| format!("\"{}\" . {} . {}", end.tap, mac_text(end.mac), end.address))
        .collect();
    let verdicts: Vec<String> =
        policy.vms().iter().map(|end| format!("\"{}\" : goto to-vm", end.tap)).collect();
    let mut text = format!(
        "table {TABLE} {{
  counter judged {{ }}
  set sources {{ type ifname . ether_addr . ipv6_addr; elements = {{ {sources} }}; }}
  set members {{ type ipv6_addr; elements = {{ {members} }}; }}
  map to {{ type ifname : verdict; elements = {{ {verdicts} }}; }}
  chain prerouting {{
    type filter hook prerouting priority raw; policy accept;
    iifname \"tap*\" iifname . ether saddr . ip6 saddr != @sources drop
  }}
  chain forward {{
    type filter hook forward priority filter; policy drop;
    ct state vmap {{ established : accept, related : accept, invalid : drop }}
    oifname vmap @to
  }}
  chain to-vm {{
",
        sources = sources.join(", "),
        members = members.join(", "),
        verdicts = verdicts.join(", ")
    );
    for (prefix, port) in policy.others() {
        text += &format!("    ip6 saddr {prefix} udp dport {port} accept\n");
    }
    text + "    ip6 saddr @members counter name judged accept\n    drop\n  }\n}\n"
}

/// How many packets the last rule has let pass, by what `nft list counter ip6 bench judged` says.
pub fn judged(listed: &str) -> Option<u64> {
    let mut words = listed.split_ascii_whitespace().skip_while(|word| *word != "packets");
    words.nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_as_long_as_asked_for_and_ends_with_the_set() {
        let text = rules(Policy { rules: 3, ..Policy::USUAL }, [ENDS[1].address].into_iter());
        assert_eq!(text.lines().filter(|line| line.contains("udp dport")).count(), 2);
        assert!(text.contains("ip6 saddr @members counter name judged accept\n    drop"), "{text}");
    }

    #[test]
    fn packets_of_the_last_rule_are_found() {
        let listed = "table ip6 bench {\n\tcounter judged {\n\t\tpackets 42 bytes 3276\n\t}\n}\n";
        assert_eq!(judged(listed), Some(42));
        assert_eq!(judged(""), None);
    }
}
