//! Every way in which a document can be wrong, with the whole message.

use super::*;

#[test]
fn an_endpoint_says_line_column_resource_and_field() {
    let e = "WorkloadEndpoint openstack/web1";
    for (from, to, expected) in [
        ("  mac: fa:16:3e:00:00:01\n", "", format!("f:7:3: {e}: spec.mac: missing; it is required")),
        (
            "fa:16:3e:00:00:01",
            "fa:16:3e:00:00",
            format!(
                "f:9:8: {e}: spec.mac: `fa:16:3e:00:00` is no MAC address; write six hex bytes like fa:16:3e:00:00:01"
            ),
        ),
        (
            "fa:16:3e:00:00:01",
            "01:00:5e:00:00:01",
            format!(
                "f:9:8: {e}: spec.mac: `01:00:5e:00:00:01` is a multicast MAC address; the first byte of a host's is even"
            ),
        ),
        ("tap1", "[tap1]", format!("f:8:18: {e}: spec.interfaceName: expected a text, found a list")),
        (
            "tap1",
            "an-interface-name",
            format!(
                "f:8:18: {e}: spec.interfaceName: `an-interface-name` is no interface name: 1 to 15 printable characters, no `/`, `:` or space"
            ),
        ),
        ("compute-1", "17", format!("f:7:9: {e}: spec.node: expected a text in quotes, found the number 17")),
        (
            "2001:db8::1\n",
            "192.0.2.254\n",
            format!(
                "f:11:16: {e}: spec.ipv6Gateway: `192.0.2.254` is an IPv4 address; the IPv4 gateway goes into `ipv4Gateway`"
            ),
        ),
        (
            "2001:db8::1\n",
            "2001:db8::1/64\n",
            format!(
                "f:11:16: {e}: spec.ipv6Gateway: `2001:db8::1/64` is no IPv6 address; write one like 2001:db8::1, without prefix"
            ),
        ),
        (
            "192.0.2.1/32",
            "'ff02::1/128'",
            format!(
                "f:10:36: {e}: spec.ipNetworks[1]: `ff02::1` is a multicast address; give a global or unique local unicast address"
            ),
        ),
        (
            "192.0.2.1/32",
            "'fe80::1/128'",
            format!(
                "f:10:36: {e}: spec.ipNetworks[1]: `fe80::1` is a link-local address, which is not routed; give a global or unique local unicast address"
            ),
        ),
        (
            "192.0.2.1/32",
            "web1",
            format!(
                "f:10:36: {e}: spec.ipNetworks[1]: `web1` is no address; write one like 2001:db8::10/128"
            ),
        ),
        (
            "192.0.2.1/32",
            "'2001:db8::1/129'",
            format!(
                "f:10:36: {e}: spec.ipNetworks[1]: `2001:db8::1/129` is no address; write one like 2001:db8::10/128"
            ),
        ),
        (
            "projectcalico.org/v3",
            "serval/v1",
            format!(
                "f:1:13: {e}: apiVersion: `serval/v1` is not the apiVersion of a WorkloadEndpoint; write projectcalico.org/v3"
            ),
        ),
        (
            "apiVersion: projectcalico.org/v3\n",
            "",
            format!("f:1:1: {e}: apiVersion: missing; it is required"),
        ),
        (
            "  node:",
            "  mac: fa:16:3e:00:00:01\n  node:",
            format!("f:10:3: {e}: spec.mac: the key `mac` is there twice; remove one"),
        ),
        (
            "spec:",
            "status: {}\nspec:",
            format!("f:6:1: {e}: status: unknown key; known here: apiVersion, kind, metadata, spec"),
        ),
        (
            "  name: web1\n",
            "  name: web1\n  labels: {a: 1}\n",
            format!("f:5:15: {e}: metadata.labels[\"a\"]: expected a text in quotes, found the number 1"),
        ),
        (
            "name: web1",
            "name: web/1",
            "f:4:9: metadata.name: `web/1` is no name: 1 to 253 letters, digits, `-`, `_` or `.`".to_owned(),
        ),
    ] {
        assert_eq!(faults(ENDPOINT, from, to), [expected], "{to}");
    }
    let unknown = faults(ENDPOINT, "ipNetworks", "ipNetwork");
    assert!(
        unknown[0].starts_with(&format!("f:10:3: {e}: spec.ipNetwork: unknown key; known here: node, "))
            && unknown[0].contains(" ipNetworks,"),
        "{unknown:?}"
    );
}

#[test]
fn a_subnet_says_line_column_resource_and_field() {
    let s = "Subnet tenant-v6";
    for (line, expected) in [
        (
            "validLifetime: soon",
            format!(
                "f:6:18: {s}: spec.validLifetime: expected a whole number from 60 to 4294967295, found the text `soon`"
            ),
        ),
        (
            "routerLifetime: 9001",
            format!(
                "f:6:19: {s}: spec.routerLifetime: expected a whole number from 30 to 9000, found the number 9001"
            ),
        ),
        (
            "dnsServers: [192.0.2.53]",
            format!(
                "f:6:16: {s}: spec.dnsServers[0]: `192.0.2.53` is no IPv6 address; write one like 2001:db8:53::1"
            ),
        ),
        (
            "ntpServers: ['ff05::101']",
            format!(
                "f:6:16: {s}: spec.ntpServers[0]: `ff05::101` is no server's address; give a unicast one"
            ),
        ),
        (
            "searchDomains: [a b]",
            format!(
                "f:6:19: {s}: spec.searchDomains[0]: `a b` is no domain name; write one like openstack.example"
            ),
        ),
        (
            "dnsServers: 2001:db8::1",
            format!("f:6:15: {s}: spec.dnsServers: expected a list, found the text `2001:db8::1`"),
        ),
    ] {
        assert_eq!(problems(&yaml(format!("{SUBNET}  {line}\n"))), [expected]);
    }
    for (cidr, expected) in [
        ("192.0.2.0/24", "`192.0.2.0/24` is an IPv4 network; give an IPv6 one like 2001:db8:1:2::/64"),
        ("2001:db8::1/64", "`2001:db8::1/64` has bits after the prefix; write 2001:db8::/64"),
        ("fe80::/64", "`fe80::/64` is no network of hosts; give a global or unique local one"),
        ("tenant", "`tenant` is no network; write one like 2001:db8:1:2::/64"),
    ] {
        let found = faults(SUBNET, "2001:db8::/64", cidr);
        assert_eq!(found, [format!("f:5:9: {s}: spec.cidr: {expected}")]);
    }
}

#[test]
fn all_faults_of_a_document_are_told_at_once() {
    let text = ENDPOINT.replace("tap1", "").replace("fa:16", "zz:16").replace("ipNetworks", "networks");
    let found = problems(&yaml(text));
    assert_eq!(found.len(), 3, "{found:?}");
    let many: String = (0..100).map(|i| format!("  unknown{i}: 1\n")).collect();
    let found = problems(&yaml(format!("{SUBNET}{many}")));
    assert_eq!(found.len(), 20);
    assert!(found[19].ends_with("(and 80 more in this document)"), "{found:?}");
}

#[test]
fn kinds_of_later_versions_are_notes_and_unknown_ones_errors() {
    let policy = "apiVersion: projectcalico.org/v3\nkind: IPPool\nmetadata: {name: p}\nspec: {}\n";
    assert_eq!(problems(&yaml(policy)), ["f:2:7: note: kind: IPPool is not used by this version"]);
    assert_eq!(yaml(policy)[0].content, Content::Unused);
    assert_eq!(
        faults(policy, "IPPool", "Pod"),
        [
            "f:2:7: kind: unknown kind `Pod`; used are WorkloadEndpoint, NetworkPolicy, GlobalNetworkPolicy, Tier, Profile, NetworkSet, GlobalNetworkSet, Node, BGPConfiguration and BGPPeer (projectcalico.org/v3), and Subnet (serval/v1)"
        ]
    );
    assert_eq!(problems(&yaml("just words\n")), ["f:1:1: expected a mapping, found the text `just words`"]);
}

#[test]
fn an_etcd_dump_names_the_key_that_is_wrong() {
    let json = |key: &str, value: &str| {
        let text = format!("{{\"key\":\"{key}\",\"value\":{value}}}");
        problems(&parse(Path::new("f"), Format::Json, text.as_bytes()).unwrap())
    };
    let key = "/calico/dhcp/v2/no-region/subnet/s1";
    assert_eq!(
        json(key, "{\"cidr\":\"2001:db8::/64\",\"dns_servers\":[\"192.0.2.1\",\"2001:db8::53\"]}"),
        [""; 0]
    );
    assert_eq!(json(key, "{}"), ["f:1:54: Subnet s1: value.cidr: missing; it is required"]);
    assert_eq!(json("/other", "{}"), ["f:1:8: key: not a key of Calico's: those begin with /calico/"]);
    assert_eq!(json("/calico/felix/v2/x", "{}"), ["f:1:8: note: key: not used by this version"]);
}

#[test]
fn a_file_without_text_is_one_problem() {
    let message = |bytes: &[u8]| parse(Path::new("f"), Format::Yaml, bytes).unwrap_err().to_string();
    assert_eq!(message(b""), "f: the file is empty; write a resource into it or delete it");
    assert_eq!(message(b" \n\n"), "f: the file is empty; write a resource into it or delete it");
    assert_eq!(
        message(&vec![b'a'; 10 << 20]),
        "f: larger than 4 MiB; spread the resources over several files"
    );
    assert_eq!(problems(&yaml(b"a: b\nc: \0\n")), ["f:2:4: a NUL byte; is this a text file?"]);
    assert_eq!(yaml("# nothing\n---\n# yet\n"), []);
}
