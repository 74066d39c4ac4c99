//! What a VM may pretend to be: nothing but itself.

use super::rig::Tool::{Flood, Frames, Once};
use super::rig::{Attack, Scene};
use anyhow::{Context, Result};
use serval_tests::require_rig;

const ROUTERS: &[Attack] = &[
    Attack {
        cases: &[1],
        name: "nobody believes an advertisement of a VM",
        tool: Once("atk6-fake_router26 -A 2001:db8:bad::/64 -R 2001:db8:bad1::/48 -n 3 -i 1 eth0"),
        dropped: &["router_advertisement"],
        perhaps: &[],
    },
    Attack {
        cases: &[2],
        name: "nor behind hop-by-hop options",
        tool: Once("atk6-fake_router26 -E H -A 2001:db8:bad::/64 -n 2 -i 1 eth0"),
        dropped: &["router_advertisement"],
        perhaps: &[],
    },
    Attack {
        cases: &[2, 3],
        name: "nor behind destination options that fill a fragment",
        tool: Once("atk6-fake_router26 -E D -A 2001:db8:bad::/64 -n 2 -i 1 eth0"),
        dropped: &["fragment_chain"],
        perhaps: &[],
    },
    Attack {
        cases: &[3, 5],
        name: "nor behind three atomic fragment headers",
        tool: Once("atk6-fake_router26 -E 111 -A 2001:db8:bad::/64 -n 2 -i 1 eth0"),
        dropped: &["router_advertisement"],
        perhaps: &[],
    },
    Attack {
        cases: &[3, 4, 6],
        // The first fragment is whole and harmless; what makes an advertisement of it overlaps. It is for a group, so the
        // host's, whose kernel discards overlaps (RFC 5722), and takes no advertisements on a TAP anyway.
        name: "nor in overlapping fragments",
        tool: Once("atk6-fake_router26 -E o -A 2001:db8:bad::/64 -n 2 -i 1 eth0"),
        dropped: &[],
        perhaps: &[],
    },
    Attack {
        cases: &[3, 4],
        name: "nor by all evasions at once",
        tool: Once("atk6-fake_router26 -E F -A 2001:db8:bad::/64 -n 2 -i 1 eth0"),
        dropped: &["routing_header"],
        perhaps: &[],
    },
    Attack {
        cases: &[1, 12],
        name: "nor in a flood from forged MACs",
        tool: Flood("atk6-flood_router26 eth0"),
        dropped: &["source_mac"],
        perhaps: &[],
    },
    Attack {
        cases: &[21],
        name: "a redirect changes nobody's route",
        tool: Once("atk6-redir6 eth0 VICTIM WORLD GATEWAY OWN_LINK OWN_MAC"),
        dropped: &["source_mac"],
        perhaps: &["redirect"],
    },
    Attack {
        cases: &[21],
        name: "nor does a flood of redirects",
        tool: Flood("atk6-flood_redir6 eth0 VICTIM"),
        dropped: &["redirect"],
        perhaps: &[],
    },
    Attack {
        cases: &[22],
        name: "a VM is no DHCPv6 server, whatever it hides behind",
        tool: Frames(&[
            "eth/IPv6(src='OWN', dst='VICTIM')/UDP(sport=547, dport=546)/DHCP6_Advertise()",
            "eth/IPv6(src='OWN', dst='VICTIM')/IPv6ExtHdrHopByHop()/UDP(sport=547, dport=546)/DHCP6_Reply()",
            "eth/IPv6(src='OWN', dst='VICTIM')/IPv6ExtHdrFragment(m=1)/UDP(sport=547, dport=546)/DHCP6_Reply()",
            "eth/IPv6(src='OWN', dst='VICTIM')/UDP(sport=547, dport=547)/DHCP6_RelayForward()",
        ]),
        dropped: &["dhcp6_server"],
        perhaps: &[],
    },
];

const NEIGHBOURS: &[Attack] = &[
    Attack {
        cases: &[13],
        name: "nobody else's address is claimed",
        tool: Once("atk6-fake_advertise6 -n 2 -w 1 eth0 VICTIM ff02::1"),
        dropped: &["source_address"],
        perhaps: &["nd_spoof"],
    },
    Attack {
        cases: &[13],
        name: "nor the router's",
        tool: Once("atk6-fake_advertise6 -r -n 2 -w 1 eth0 GATEWAY ff02::1"),
        dropped: &["gateway_spoof"],
        perhaps: &[],
    },
    Attack {
        cases: &[13],
        name: "nor behind a fragment header",
        tool: Once("atk6-fake_advertise6 -f -n 2 -w 1 eth0 VICTIM ff02::1 OWN_MAC OWN_LINK"),
        dropped: &["fragment_chain"],
        perhaps: &[],
    },
    Attack {
        cases: &[13, 12],
        name: "nor in a flood",
        tool: Flood("atk6-flood_advertise6 -k eth0 ff02::1"),
        dropped: &["nd_spoof"],
        // What it forges is random: some of it is another message, from addresses of which the host deals with few.
        perhaps: &["nd_invalid", "link_local_limited"],
    },
    Attack {
        cases: &[14],
        name: "discovery that is no neighbour's is dropped",
        tool: Frames(&[
            "eth/IPv6(src='OWN_LINK', dst='GATEWAY', hlim=254)/ICMPv6ND_NS(tgt='GATEWAY')",
            "eth/IPv6(src='OWN_LINK', dst='GATEWAY', hlim=255)/ICMPv6ND_NS(tgt='GATEWAY', code=1)",
            "eth/IPv6(src='OWN_LINK', dst='GATEWAY', hlim=255)/ICMPv6ND_NS(tgt='GATEWAY', cksum=1)",
            "eth/IPv6(src='OWN_LINK', dst='GATEWAY', hlim=255)/ICMPv6ND_NS(tgt='GATEWAY')/bytes([1, 0, 0, 0, 0, 0, 0, 0])",
        ]),
        dropped: &["nd_invalid"],
        perhaps: &[],
    },
    Attack {
        cases: &[15],
        name: "so are solicitations for groups, and DAD with a MAC",
        tool: Frames(&[
            "eth/IPv6(src='OWN_LINK', dst='GATEWAY', hlim=255)/ICMPv6ND_NS(tgt='ff02::1')",
            "Ether(src='OWN_MAC', dst='33:33:ff:ed:ca:fe')/IPv6(src='::', dst='ff02::1:ffed:cafe', hlim=255)\
             /ICMPv6ND_NS(tgt='GATEWAY')/ICMPv6NDOptSrcLLAddr(lladdr='OWN_MAC')",
        ]),
        dropped: &["nd_invalid"],
        perhaps: &[],
    },
    Attack {
        cases: &[17],
        name: "a solicitation of the router is legal",
        tool: Once("ndisc6 -1 GATEWAY eth0"),
        dropped: &[],
        perhaps: &[],
    },
    Attack {
        cases: &[18],
        name: "a solicitation of routers is legal",
        tool: Once("rdisc6 -1 eth0"),
        dropped: &[],
        perhaps: &[],
    },
    Attack {
        cases: &[11],
        name: "nobody else's address is a source, nor what is none",
        tool: Frames(&[
            "eth/IPv6(src='VICTIM', dst='WORLD')/UDP(dport=9)/b'x'",
            "eth/IPv6(src='::', dst='WORLD')/UDP(dport=9)/b'x'",
            "eth/IPv6(src='ff02::1', dst='WORLD')/UDP(dport=9)/b'x'",
            "eth/IPv6(src='::1', dst='WORLD')/UDP(dport=9)/b'x'",
            "eth/IPv6(src='::ffff:192.0.2.1', dst='WORLD')/UDP(dport=9)/b'x'",
            "eth/IPv6(src='WORLD', dst='VICTIM')/TCP(dport=22)",
        ]),
        dropped: &["source_address"],
        perhaps: &[],
    },
    Attack {
        cases: &[12],
        name: "nobody else's MAC is a source, nor a group's",
        tool: Frames(&[
            "Ether(src='VICTIM_MAC', dst='GATEWAY_MAC')/IPv6(src='OWN', dst='WORLD')/UDP(dport=9)/b'x'",
            "Ether(src='33:33:00:00:00:01', dst='GATEWAY_MAC')/IPv6(src='OWN', dst='WORLD')/UDP(dport=9)/b'x'",
        ]),
        dropped: &["source_mac"],
        perhaps: &[],
    },
];

const PACKETS: &[Attack] = &[
    Attack {
        cases: &[6],
        name: "fragments, overlapping or not",
        tool: Once("atk6-fragmentation6 -p eth0 VICTIM"),
        dropped: &["fragment_chain"],
        perhaps: &["malformed", "header_chain"],
    },
    Attack {
        cases: &[5, 7, 8],
        name: "what implementations stumble over",
        tool: Once("atk6-implementation6 -p eth0 VICTIM"),
        dropped: &["fragment_chain", "header_chain"],
        perhaps: &["malformed", "source_address"],
    },
    Attack {
        cases: &[7],
        name: "180 extension headers",
        tool: Frames(&[
            "Ether(src='OWN_MAC', dst='GATEWAY_MAC', type=0x86dd)/Raw(bytes(IPv6(src='OWN', dst='VICTIM', nh=60, plen=1448))+bytes([60,0,1,4,0,0,0,0])*179\
             +bytes([59,0,1,4,0,0,0,0])+bytes(8))",
        ]),
        dropped: &["header_chain"],
        perhaps: &[],
    },
    Attack {
        cases: &[9],
        name: "routing header type 0",
        tool: Frames(&[
            "eth/IPv6(src='OWN', dst='VICTIM')/IPv6ExtHdrRouting(addresses=['WORLD'])/UDP(dport=9)/b'x'",
        ]),
        dropped: &["routing_header"],
        perhaps: &[],
    },
    Attack {
        cases: &[10],
        name: "lengths that lie",
        tool: Frames(&[
            "eth/IPv6(src='OWN', dst='VICTIM', plen=0)/UDP(dport=9)/b'x'",
            "eth/IPv6(src='OWN', dst='VICTIM', plen=1000)/UDP(dport=9)/b'x'",
            "eth/IPv6(src='OWN', dst='VICTIM', plen=0, nh=0)/IPv6ExtHdrHopByHop(options=[Jumbo(jumboplen=70000)])/UDP(dport=9)/b'x'",
        ]),
        dropped: &["malformed"],
        perhaps: &[],
    },
    Attack {
        cases: &[25],
        name: "a forged Packet Too Big from somebody else's address",
        tool: Once("atk6-toobig6 -u eth0 VICTIM WORLD 1280"),
        dropped: &["source_address"],
        perhaps: &["gateway_spoof"],
    },
    Attack {
        cases: &[37],
        name: "frames in a VLAN",
        tool: Frames(&[
            "Ether(src='OWN_MAC', dst='VICTIM_MAC')/Dot1Q(vlan=5)/IPv6(src='OWN', dst='VICTIM')/UDP(dport=9)/b'x'",
            "Ether(src='OWN_MAC', dst='VICTIM_MAC')/Dot1AD(vlan=5)/Dot1Q(vlan=6)/IPv6(src='OWN', dst='VICTIM')/UDP()/b'x'",
        ]),
        dropped: &["vlan"],
        perhaps: &[],
    },
    Attack {
        cases: &[37],
        name: "frames that are no IPv6",
        tool: Frames(&[
            "Ether(src='OWN_MAC', dst='ff:ff:ff:ff:ff:ff')/ARP(psrc='192.0.2.1', pdst='192.0.2.2')",
            "Ether(src='OWN_MAC', dst='ff:ff:ff:ff:ff:ff')/IP(src='192.0.2.1', dst='255.255.255.255')/UDP()/b'x'",
            "Ether(src='OWN_MAC', dst='01:80:c2:00:00:0e', type=0x88cc)/(b'x' * 60)",
            "Dot3(src='OWN_MAC', dst='01:80:c2:00:00:00')/LLC()/STP()",
        ]),
        dropped: &[],
        perhaps: &[],
    },
];

fn all_are_withstood(label: &str, attacks: &[Attack]) -> Result<()> {
    let scene = Scene::new(label)?;
    scene.unharmed().context("before")?;
    let failed: Vec<_> = attacks
        .iter()
        .filter_map(|attack| Some(format!("{}: {:#}", attack.name, scene.withstands(attack).err()?)))
        .collect();
    anyhow::ensure!(failed.is_empty(), "{} of {}:\n{}", failed.len(), attacks.len(), failed.join("\n"));
    Ok(())
}

#[test]
fn a_vm_is_no_router_and_no_server() -> Result<()> {
    require_rig!();
    all_are_withstood("rogue", ROUTERS)
}

#[test]
fn a_vm_speaks_for_itself_alone() -> Result<()> {
    require_rig!();
    all_are_withstood("spoof", NEIGHBOURS)
}

#[test]
fn packets_are_what_they_claim_to_be() -> Result<()> {
    require_rig!();
    all_are_withstood("craft", PACKETS)
}
