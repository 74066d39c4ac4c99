//! The catalogue of attacks, and what shows that each is survived: tests, and entries of the case table and the stories of
//! policy, which the host build and the loaded programs go through byte for byte.

use serval_tests::cases::{self, policy};
use std::collections::BTreeSet;
use std::path::Path;

/// What shows it.
enum Shown {
    /// A test, by the file it is in, from the workspace on.
    Test(&'static str, &'static str),
    /// An entry of the case table, or a story.
    Case(&'static str),
}

use Shown::{Case, Test};

const FIRST_HOP: &str = "tests/tests/attacks/first_hop.rs";
const FLOODS: &str = "tests/tests/attacks/floods.rs";
const ANY_FRAME: &str = "tests/tests/decision/any_frame.rs";
const ROGUE: Shown = Test(FIRST_HOP, "a_vm_is_no_router_and_no_server");
const SPOOF: Shown = Test(FIRST_HOP, "a_vm_speaks_for_itself_alone");
const CRAFT: Shown = Test(FIRST_HOP, "packets_are_what_they_claim_to_be");
const FLOOD: Shown = Test(FLOODS, "a_flood_takes_nothing_from_others");

/// Number, attack, and what shows that it is survived.
const CATALOGUE: &[(u8, &str, &[Shown])] = &[
    (1, "router advertisement", &[ROGUE, Case("RA"), Case("RA to another VM")]),
    (
        2,
        "the same behind hop-by-hop or destination options",
        &[ROGUE, Case("RA behind hop-by-hop options"), Case("RA behind destination options")],
    ),
    (3, "the same in fragments", &[ROGUE, Case("RA in a first fragment"), Case("RA in an atomic fragment")]),
    (
        4,
        "a first fragment without the whole chain",
        &[
            ROGUE,
            Case("first fragment without the whole UDP header"),
            Case("first fragment that ends in the chain"),
        ],
    ),
    (
        5,
        "fragment headers in fragments, and atomic ones",
        &[CRAFT, Case("fragment in a fragment"), Case("atomic fragment in an atomic fragment")],
    ),
    (6, "overlapping fragments", &[ROGUE, CRAFT]),
    (7, "more headers than are followed", &[CRAFT, Case("more headers than are followed")]),
    (
        8,
        "AH, ESP, no next header, unknown headers",
        &[
            CRAFT,
            Case("authentication header"),
            Case("ESP"),
            Case("no next header"),
            Case("a protocol we do not know"),
        ],
    ),
    (9, "routing headers", &[CRAFT, Case("routing header type 0"), Case("segment routing header")]),
    (
        10,
        "lengths that lie",
        &[
            CRAFT,
            Case("payload length beyond the frame"),
            Case("jumbogram: payload length 0"),
            Test("dataplane-ebpf/src/decide/tests/vm.rs", "any_bytes_are_survived"),
        ],
    ),
    (
        11,
        "source addresses of others, and of nobody",
        &[
            SPOOF,
            Case("another VM's address"),
            Case("multicast source"),
            Case("loopback source"),
            Case("IPv4-mapped source"),
            Case("unspecified source of a datagram"),
        ],
    ),
    (
        12,
        "source MACs of others, and of groups",
        &[SPOOF, Case("another VM's source MAC"), Case("multicast source MAC")],
    ),
    (
        13,
        "neighbour advertisements for others",
        &[SPOOF, Case("NA for another VM's address"), Case("the router's link-local address")],
    ),
    (
        14,
        "neighbour discovery with a wrong hop limit, code, checksum or option",
        &[SPOOF, Case("hop limit 254"), Case("code 1"), Case("wrong checksum"), Case("option of length 0")],
    ),
    (
        15,
        "solicitations for groups, and from `::` with a MAC",
        &[SPOOF, Case("multicast target"), Case("DAD with a source link-layer address")],
    ),
    (
        16,
        "somebody who claims every address",
        &[
            Test(FLOODS, "a_vm_boots_beside_hostile_ones"),
            Case("DAD for its own address"),
            Case("DAD for an address that another VM has"),
        ],
    ),
    (
        17,
        "solicitations: unicast, multicast, without a MAC",
        &[
            SPOOF,
            Case("who is the router"),
            Case("is the router still there (NUD)"),
            Case("NUD without an option: the answer is longer"),
        ],
    ),
    (
        18,
        "router solicitations, and a flood of them",
        &[SPOOF, FLOOD, Case("from ::"), Case("from :: again within 3 s")],
    ),
    (
        19,
        "floods that fill the table of neighbours",
        &[FLOOD, Test(FLOODS, "forged_link_local_addresses_leave_the_kernels_neighbours_alone")],
    ),
    (20, "a scan from the world", &[Test(FLOODS, "a_scan_from_the_world_leaves_no_neighbours")]),
    (21, "redirects", &[ROGUE, Case("redirect"), Case("redirect behind destination options")]),
    (
        22,
        "a DHCPv6 server",
        &[
            ROGUE,
            Case("DHCPv6 advertise"),
            Case("DHCPv6 advertise in a first fragment"),
            Case("DHCPv6 advertise behind hop-by-hop options"),
            Case("DHCPv6 relay message"),
        ],
    ),
    (
        23,
        "DHCPv6 messages gone wrong",
        &[FLOOD, Test("userspace/src/serve/dhcp6/tests/survival.rs", "survives_messages_gone_wrong")],
    ),
    (
        24,
        "a flood of DHCPv6 clients",
        &[
            FLOOD,
            Test(FLOODS, "a_vm_boots_beside_hostile_ones"),
            Test("tests/tests/serve.rs", "a_flood_is_ignored_and_harms_no_other"),
        ],
    ),
    (25, "Packet Too Big about nothing", &[CRAFT, Case("an error about nothing")]),
    (
        26,
        "errors with a forged packet inside",
        &[
            Case("an error about nothing"),
            Case("an error about another protocol"),
            Test("tests/tests/nftables/flows.rs", "errors_pass_only_about_what_was_sent"),
        ],
    ),
    (
        27,
        "hop limits that run out, and loops",
        &[
            Test("tests/tests/router/errors.rs", "a_loop_of_routes_ends"),
            Test("tests/tests/router/errors.rs", "a_loop_through_the_vm_itself_ends"),
        ],
    ),
    (
        28,
        "packets that are too long",
        &[
            Test("tests/tests/router/path_mtu.rs", "the_tap_is_smaller"),
            Test("tests/tests/router/path_mtu.rs", "the_route_is_smaller"),
        ],
    ),
    (
        29,
        "partial checksums and segments",
        &[
            Test("tests/tests/rig.rs", "kernel_guests_reach_each_other_with_offloads_intact"),
            Test(ANY_FRAME, "host_and_kernel_agree_on_any_frame_from_a_vm"),
        ],
    ),
    (30, "hostile virtio-net headers", &[Test(FLOODS, "virtio_net_headers_that_lie_harm_nobody")]),
    (
        31,
        "runts and giants",
        &[
            Test(FLOODS, "virtio_net_headers_that_lie_harm_nobody"),
            Test(ANY_FRAME, "host_and_kernel_agree_on_any_frame_from_a_vm"),
        ],
    ),
    (32, "a flood that fills the table of flows", &[Case("a flood spares what lives")]),
    (
        33,
        "a flood that displaces others' flows",
        &[Test(
            "dataplane-ebpf/src/decide/flow/tests.rs",
            "a_flood_takes_its_own_endpoints_places_and_spares_what_lives",
        )],
    ),
    (
        34,
        "addresses chosen to collide in hashes, of which the kernel seeds each map's at random",
        &[Test(
            "dataplane-ebpf/src/decide/flow/tests.rs",
            "a_flood_takes_its_own_endpoints_places_and_spares_what_lives",
        )],
    ),
    (
        35,
        "segments of no connection, or of others'",
        &[Case("nobody else sends in a flow"), Case("SYN against an established connection")],
    ),
    (
        36,
        "a flow that goes on when policy has changed",
        &[
            Test(
                "tests/tests/policy/changes.rs",
                "a_flow_that_is_no_longer_allowed_stops_with_the_next_packet",
            ),
            Test("tests/tests/policy/changes.rs", "what_before_and_after_deny_never_passes"),
        ],
    ),
    (
        37,
        "VLANs, 802.3, IPv4, ARP, LLDP",
        &[CRAFT, Case("in a VLAN"), Case("ARP is the kernel's"), Case("LLDP is the kernel's")],
    ),
    (
        38,
        "floods of listener reports, and smurfs",
        &[FLOOD, Case("MLDv2 report from ::"), Case("echo request from :: to all nodes")],
    ),
    (
        39,
        "services of the host",
        &[
            Test("tests/tests/policy/host.rs", "the_host_is_closed_but_for_what_every_vm_needs"),
            Test("tests/tests/policy/host.rs", "a_scan_of_the_host_finds_nothing"),
            Case("the host is closed"),
        ],
    ),
    (
        40,
        "packets before there is an endpoint",
        &[Test("tests/tests/lifecycle.rs", "tap_comes_before_its_document_and_forwards_nothing_until_then")],
    ),
    (
        41,
        "a TAP that goes down or away, and another with its number",
        &[
            Test("tests/tests/lifecycle.rs", "tap_goes_down_and_up"),
            Test("tests/tests/lifecycle.rs", "tap_vanishes_and_returns_with_another_ifindex"),
        ],
    ),
];

#[test]
fn every_attack_of_the_catalogue_is_shown() {
    let numbers: Vec<_> = CATALOGUE.iter().map(|(number, ..)| *number).collect();
    assert_eq!(numbers, (1..=41).collect::<Vec<_>>());
    let (cases, stories) = (cases::all(), policy::stories());
    let names: BTreeSet<_> =
        cases.iter().map(|case| case.name).chain(stories.iter().map(|story| story.name)).collect();
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a workspace");
    let mut missing = Vec::new();
    for (number, attack, shown) in CATALOGUE {
        for shown in *shown {
            match shown {
                Case(name) if !names.contains(name) => missing.push(format!("{number} {attack}: {name}")),
                Case(_) => {}
                Test(file, name) => {
                    let text = std::fs::read_to_string(workspace.join(file)).unwrap_or_default();
                    if !text.contains(&format!("fn {name}(")) {
                        missing.push(format!("{number} {attack}: {name} in {file}"));
                    }
                }
            }
        }
    }
    assert!(missing.is_empty(), "not there:\n{}", missing.join("\n"));
}
