//! A policy as Felix, the agent of Calico, writes it for ip6tables: dispatch by interface to two chains a TAP, each with
//! conntrack first, a chain a policy that answers by a mark, and IP sets for selectors; around them the static chains of
//! all four tables (felix/rules/{static,dispatch,endpoints,policy}.go), with the options of OpenStack. Hashes in comments
//! are left out: they cost nothing.

use super::Policy;

/// The set of the last rule.
pub const SET: &str = "cali60s:bench";
/// The bit of the packet mark that says accepted.
const ACCEPT: &str = "0x10000/0x10000";

/// For `ipset restore`.
pub fn sets(policy: Policy) -> String {
    let mut text = format!("create {SET} hash:net family inet6 maxelem 1048576\n");
    for member in policy.members() {
        text += &format!("add {SET} {member}\n");
    }
    text
}

/// For `ip6tables-restore`.
pub fn rules(policy: Policy) -> String {
    [RAW, MANGLE, NAT].concat() + &filter(policy)
}

const RAW: &str = "*raw
:cali-PREROUTING -
:cali-OUTPUT -
:cali-from-host-endpoint -
-A PREROUTING -j cali-PREROUTING
-A OUTPUT -j cali-OUTPUT
-A cali-PREROUTING -j MARK --set-mark 0x0/0xf0000
-A cali-PREROUTING -i tap+ -j MARK --set-mark 0x40000/0x40000
-A cali-PREROUTING -m mark --mark 0x40000/0x40000 -m rpfilter --validmark --invert -j DROP
-A cali-PREROUTING -m mark --mark 0x0/0x40000 -j cali-from-host-endpoint
-A cali-PREROUTING -m mark --mark 0x10000/0x10000 -j ACCEPT
-A cali-OUTPUT -j MARK --set-mark 0x0/0xf0000
COMMIT
";

const MANGLE: &str = "*mangle
:cali-PREROUTING -
:cali-POSTROUTING -
:cali-from-host-endpoint -
:cali-to-host-endpoint -
-A PREROUTING -j cali-PREROUTING
-A POSTROUTING -j cali-POSTROUTING
-A cali-PREROUTING -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A cali-PREROUTING -m mark --mark 0x10000/0x10000 -j ACCEPT
-A cali-PREROUTING -j cali-from-host-endpoint
-A cali-PREROUTING -m mark --mark 0x10000/0x10000 -j ACCEPT
-A cali-POSTROUTING -m mark --mark 0x10000/0x10000 -j RETURN
-A cali-POSTROUTING -j MARK --set-mark 0x0/0xf0000
-A cali-POSTROUTING -m conntrack --ctstate DNAT -j cali-to-host-endpoint
-A cali-POSTROUTING -m mark --mark 0x10000/0x10000 -j RETURN
COMMIT
";

const NAT: &str = "*nat
:cali-PREROUTING -
:cali-POSTROUTING -
:cali-OUTPUT -
:cali-fip-dnat -
:cali-fip-snat -
:cali-nat-outgoing -
-A PREROUTING -j cali-PREROUTING
-A OUTPUT -j cali-OUTPUT
-A POSTROUTING -j cali-POSTROUTING
-A cali-PREROUTING -j cali-fip-dnat
-A cali-OUTPUT -j cali-fip-dnat
-A cali-POSTROUTING -j cali-fip-snat
-A cali-POSTROUTING -j cali-nat-outgoing
COMMIT
";

/// What is forwarded. What VMs send to the host itself has chains of its own, which no frame of a measurement meets.
fn filter(policy: Policy) -> String {
    let mut text = "*filter\n".to_owned();
    for chain in [
        "cali-FORWARD",
        "cali-from-hep-forward",
        "cali-to-hep-forward",
        "cali-from-wl-dispatch",
        "cali-to-wl-dispatch",
        "cali-cidr-block",
        "cali-pi-default.bench",
        "cali-po-default.bench",
    ] {
        text += &format!(":{chain} -\n");
    }
    for end in policy.vms() {
        text += &format!(":cali-fw-{0} -\n:cali-tw-{0} -\n", end.tap);
    }
    text += "-A FORWARD -j cali-FORWARD\n";
    text += &format!("-A FORWARD -m mark --mark {ACCEPT} -j ACCEPT\n");
    text += &format!("-A FORWARD -j MARK --set-mark {ACCEPT}\n");
    text += "-A cali-FORWARD -j MARK --set-mark 0x0/0xe0000
-A cali-FORWARD -m mark --mark 0x0/0x10000 -j cali-from-hep-forward
-A cali-FORWARD -i tap+ -j cali-from-wl-dispatch
-A cali-FORWARD -o tap+ -j cali-to-wl-dispatch
-A cali-FORWARD -j cali-to-hep-forward
-A cali-FORWARD -j cali-cidr-block
";
    for end in policy.vms() {
        text += &format!("-A cali-from-wl-dispatch -i {0} -g cali-fw-{0}\n", end.tap);
        text += &format!("-A cali-to-wl-dispatch -o {0} -g cali-tw-{0}\n", end.tap);
    }
    text += "-A cali-from-wl-dispatch -j DROP\n-A cali-to-wl-dispatch -j DROP\n";
    for end in policy.vms() {
        endpoint(&mut text, &format!("cali-tw-{}", end.tap), "cali-pi-default.bench", "");
        // What could be a tunnel out of policy.
        let tunnels = format!(
            "-A cali-fw-{0} -p udp -m multiport --destination-ports 4789 -j DROP\n-A cali-fw-{0} -p 4 -j DROP\n",
            end.tap
        );
        endpoint(&mut text, &format!("cali-fw-{}", end.tap), "cali-po-default.bench", &tunnels);
    }
    text += &format!("-A cali-po-default.bench -j MARK --set-mark {ACCEPT}\n");
    let last = policy.rules.saturating_sub(1);
    for (number, (prefix, port)) in (0..last).zip(policy.others()) {
        text += &format!(
            "-A cali-pi-default.bench -p udp -s {prefix} -m multiport --destination-ports {port} -j MARK --set-mark {ACCEPT}\n"
        );
        if number < last {
            text += &format!("-A cali-pi-default.bench -m mark --mark {ACCEPT} -j RETURN\n");
        }
    }
    text += &format!("-A cali-pi-default.bench -m set --match-set {SET} src -j MARK --set-mark {ACCEPT}\n");
    text + "COMMIT\n"
}

/// The chain of a TAP in one direction: known flows, then the one tier with its one policy, then no profile.
fn endpoint(text: &mut String, chain: &str, policy: &str, tunnels: &str) {
    *text += &format!(
        "-A {chain} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A {chain} -m conntrack --ctstate INVALID -j DROP
-A {chain} -j MARK --set-mark 0x0/0x30000
{tunnels}-A {chain} -j MARK --set-mark 0x0/0x20000
-A {chain} -m mark --mark 0x0/0x20000 -j {policy}
-A {chain} -m mark --mark {ACCEPT} -j RETURN
-A {chain} -m mark --mark 0x0/0x20000 -j DROP
-A {chain} -j DROP
"
    );
}

/// How many packets the last rule has let pass, by what `ip6tables-save -c -t filter` says.
pub fn judged(saved: &str) -> Option<u64> {
    let line = saved.lines().find(|line| line.contains(&format!("--match-set {SET} ")))?;
    line.strip_prefix('[')?.split_once(':')?.0.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_as_long_as_asked_for_and_ends_with_the_set() {
        let text = rules(Policy { rules: 3, ..Policy::USUAL });
        let list: Vec<_> = text.lines().filter(|line| line.starts_with("-A cali-pi-default.bench")).collect();
        assert_eq!(list.len(), 5);
        assert!(list[4].contains(SET), "{list:?}");
        assert_eq!(sets(Policy { members: 7, ..Policy::USUAL }).lines().count(), 8);
    }

    #[test]
    fn packets_of_the_last_rule_are_found() {
        let saved = format!(
            "[1:2] -A cali-pi-default.bench -s 2001:db8::/64 -j MARK\n[42:3276] -A cali-pi-default.bench -m set --match-set {SET} src -j MARK"
        );
        assert_eq!(judged(&saved), Some(42));
        assert_eq!(judged(""), None);
    }
}
