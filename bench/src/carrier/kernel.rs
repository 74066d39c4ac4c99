//! The kernel's own ways between the TAPs: it forwards, alone or under rules, or it bridges.

use super::{ENDS, End, Setting};
use crate::destinations::{next_hop_address, next_hop_mac};
use crate::policy::{felix, nftables};
use anyhow::{Context, Result};
use serval_tests::frame::mac_text;
use serval_tests::netns::Namespace;
use serval_tests::process;
use std::io::{Seek, Write};

/// What is asked about packets that are forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rules {
    /// Nothing.
    None,
    /// ip6tables as Felix writes it.
    Ip6tables,
    /// nftables.
    Nftables,
}

impl Rules {
    /// Packets to VMs that the last rule has let pass so far: with conntrack, first packets of flows.
    pub fn judged(self, host: &Namespace) -> Result<Option<u64>> {
        let (text, judged) = match self {
            Self::None => return Ok(None),
            Self::Ip6tables => {
                let saved = host.run("ip6tables-save -c -t filter")?;
                let judged = felix::judged(&saved);
                (saved, judged)
            }
            Self::Nftables => {
                let listed = host.run(&format!("nft list counter {} judged", nftables::TABLE))?;
                let judged = nftables::judged(&listed);
                (listed, judged)
            }
        };
        judged.with_context(|| format!("no rule that counts: {text}")).map(Some)
    }
}

/// Forwarding, with host routes and permanent neighbours.
pub fn forward(host: &Namespace, rules: Rules, setting: &Setting) -> Result<()> {
    host.set_sysctl("net/ipv6/conf/all/forwarding", 1)?;
    host.ip_batch(&routes(setting))?;
    if rules != Rules::None {
        // TCP of a measurement has one sequence number for all segments.
        host.set_sysctl("net/netfilter/nf_conntrack_tcp_be_liberal", 1)?;
    }
    match rules {
        Rules::None => Ok(()),
        Rules::Ip6tables => {
            feed(host, &["ipset", "restore"], &felix::sets(setting.policy))?;
            feed(host, &["ip6tables-restore"], &felix::rules(setting.policy))
        }
        Rules::Nftables => {
            feed(host, &["nft", "-f", "-"], &nftables::rules(setting.policy, setting.far.owned()))
        }
    }
}

/// The same routes and neighbours for programs that ask the FIB, which answers about packets from interfaces that forward.
/// The kernel itself forwards nothing, so that what arrives is the programs' work.
pub fn look_up_only(host: &Namespace, setting: &Setting) -> Result<()> {
    // Whoever sets it for all sets it for each.
    host.set_sysctl("net/ipv6/conf/all/forwarding", 0)?;
    for End { tap, .. } in setting.ends() {
        host.set_sysctl(&format!("net/ipv6/conf/{tap}/forwarding"), 1)?;
    }
    host.ip_batch(&routes(setting))
}

/// A bridge with both TAPs, which knows both MACs.
pub fn bridge(host: &Namespace) -> Result<()> {
    let mut batch = "link add br0 type bridge mcast_snooping 0\n".to_owned();
    for End { tap, .. } in ENDS {
        batch += &format!("link set {tap} master br0\n");
    }
    host.ip_batch(&(batch + "link set br0 up\n"))?;
    // What is bridged does not meet the hooks of routed packets.
    host.set_sysctl("net/bridge/bridge-nf-call-ip6tables", 0)?;
    for End { tap, mac, .. } in ENDS {
        host.run(&format!("bridge fdb replace {} dev {tap} master static", mac_text(mac)))?;
    }
    Ok(())
}

fn routes(setting: &Setting) -> String {
    let taps = setting.taps();
    let neighbour = |address, mac, tap| {
        format!("neighbour add {address} lladdr {} dev {tap} nud permanent\n", mac_text(mac))
    };
    let mut batch = String::new();
    for (end, addresses) in setting.endpoints() {
        let End { tap, mac, .. } = taps[end];
        for address in addresses {
            batch += &format!("route add {address}/128 dev {tap}\n");
            batch += &neighbour(address, mac, tap);
        }
    }
    if let Some(routed) = setting.routed() {
        let tap = taps[routed.end].tap;
        for next_hop in 0..routed.next_hops {
            batch += &neighbour(next_hop_address(next_hop), next_hop_mac(next_hop), tap);
        }
        for ((address, bits), next_hop) in routed.routes {
            batch += &format!("route add {address}/{bits} via {} dev {tap}\n", next_hop_address(next_hop));
        }
    }
    batch
}

/// Runs a command to its end with `text` to read.
fn feed(host: &Namespace, command: &[&str], text: &str) -> Result<()> {
    let mut input = tempfile::tempfile()?;
    input.write_all(text.as_bytes())?;
    input.rewind()?;
    let [program, arguments @ ..] = command else { return Ok(()) };
    let mut command = host.command(program);
    command.args(arguments).stdin(input);
    process::run(command).map(drop).with_context(|| format!("`{program}` in {}", host.name()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_a_route_to_every_vm() {
        let batch = routes(&Setting::CROWD);
        for End { tap, address, .. } in Setting::CROWD.taps() {
            assert!(batch.contains(&format!("route add {address}/128 dev {tap}\n")), "{batch}");
        }
    }
}
