//! What good documents become, in every form; `faults` has the messages about bad ones, `robust` what no bytes may do.

mod bgp;
mod faults;
mod policy;
mod robust;

use super::*;

const ENDPOINT: &str = "\
apiVersion: projectcalico.org/v3
kind: WorkloadEndpoint
metadata:
  name: web1
  namespace: openstack
spec:
  node: compute-1
  interfaceName: tap1
  mac: fa:16:3e:00:00:01
  ipNetworks: ['2001:db8::10/128', 192.0.2.1/32]
  ipv6Gateway: 2001:db8::1
";

const SUBNET: &str = "\
apiVersion: serval/v1
kind: Subnet
metadata: { name: tenant-v6 }
spec:
  cidr: 2001:db8::/64
";

fn yaml(text: impl AsRef<[u8]>) -> Vec<Document> {
    parse(Path::new("f"), Format::Yaml, text.as_ref()).unwrap()
}

fn problems(documents: &[Document]) -> Vec<String> {
    documents.iter().flat_map(|d| &d.problems).map(ToString::to_string).collect()
}

/// The messages about `text` with `from` replaced by `to`.
#[track_caller]
fn faults(text: &str, from: &str, to: &str) -> Vec<String> {
    assert!(text.contains(from), "{from}");
    problems(&yaml(text.replacen(from, to, 1)))
}

fn endpoint(text: &str) -> crate::resource::WorkloadEndpoint {
    let documents = yaml(text);
    assert!(!documents[0].problems.iter().any(Problem::is_error), "{documents:?}");
    match &documents[0].content {
        Content::Resource(resource) => match resource.as_ref() {
            Resource::WorkloadEndpoint(endpoint) => endpoint.clone(),
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_good_endpoint_is_read_whole() {
    let endpoint = endpoint(ENDPOINT);
    assert_eq!(endpoint.name.to_string(), "openstack/web1");
    assert_eq!(endpoint.addresses.len(), 1, "IPv4 is no matter of ours");
    assert_eq!(endpoint.allowed_pairs, []);
    assert_eq!(problems(&yaml(ENDPOINT)), [""; 0]);
}

#[test]
fn a_network_among_the_addresses_costs_only_itself() {
    for text in ["2001:db8:a41:2::/64/128", "2001:db8:a41:2::/64", "2001:db8:a41:2::5/64"] {
        let found = faults(ENDPOINT, "192.0.2.1/32", &format!("'{text}'"));
        let e = "WorkloadEndpoint openstack/web1";
        assert_eq!(
            found,
            [format!(
                "f:10:36: note: {e}: spec.ipNetworks[1]: `{text}` is a network; only single addresses (/128) are used, this entry is skipped"
            )]
        );
    }
    assert_eq!(faults(ENDPOINT, "192.0.2.1/32", "192.0.2.0/24/32"), [""; 0]);
}

#[test]
fn pairs_are_not_leased_unless_they_are_fixed_addresses_too() {
    let text = ENDPOINT
        .replace("192.0.2.1/32", "'2001:db8::20/128', '2001:db8::10/128', '2001:db8::30'")
        .replace("  ipv6Gateway", "  allowedIps: ['2001:db8::20/128', '2001:db8::10/128']\n  ipv6Gateway");
    let endpoint = endpoint(&text);
    let show =
        |list: &[crate::resource::HostAddress]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(show(&endpoint.addresses), ["2001:db8::10", "2001:db8::30"]);
    assert_eq!(show(&endpoint.allowed_pairs), ["2001:db8::20"]);
}

#[test]
fn what_openstack_leaves_open_is_tolerated() {
    let text = ENDPOINT.replace(
        "  namespace: openstack\n",
        "  labels: { projectcalico.org/openstack-project-parent-id: null }
  annotations: { openstack.projectcalico.org/fqdn: 'VM1.Example.' }
  creationTimestamp: null
  uid: 1234\n",
    );
    let endpoint = endpoint(&text.replace("ipv6Gateway: 2001:db8::1", "ipv6Gateway: null"));
    assert_eq!(endpoint.name.to_string(), "web1");
    assert_eq!(endpoint.fqdn.as_deref(), Some("vm1.example"));
    assert_eq!(endpoint.gateway, None);
    let link_local = faults(ENDPOINT, "2001:db8::1\n", "fe80::1\n");
    assert!(link_local[0].starts_with("f:11:16: note: "), "{link_local:?}");
}

#[test]
fn json_comes_as_object_array_and_list() {
    let subnet = |name: &str| {
        format!(
            "{{\"apiVersion\":\"serval/v1\",\"kind\":\"Subnet\",\n\t\"metadata\":{{\"name\":\"{name}\"}},\"spec\":{{\"cidr\":\"2001:db8::/64\"}}}}"
        )
    };
    let json = |text: &str| parse(Path::new("f"), Format::Json, text.as_bytes());
    assert_eq!(problems(&json(&subnet("a")).unwrap()), [""; 0]);
    let array = json(&format!("[{}, {{\"kind\": 3}}, {}]", subnet("a"), subnet("b"))).unwrap();
    assert_eq!(array.len(), 3);
    assert!(matches!(array[2].content, Content::Resource(_)));
    assert_eq!(
        problems(&array),
        [
            "f:2:60: [1].apiVersion: missing; it is required",
            "f:2:69: [1].kind: expected a text in quotes, found the number 3"
        ]
    );
    let list = json(&format!(
        "{{\"apiVersion\":\"v3\",\"kind\":\"SubnetList\",\"items\":[{}]}}",
        subnet("a").replace("::/64", "::/65/")
    ));
    assert!(problems(&list.unwrap())[0].contains("Subnet a: items[0].spec.cidr: "));
    assert_eq!(json("{\"a\": }").unwrap_err().to_string(), "f:1:7: not JSON: expected value");
    assert_eq!(json("kind: Subnet").unwrap_err().message, "not JSON: expected value");
}

#[test]
fn a_document_that_does_not_parse_still_shows_its_name() {
    for text in [
        ENDPOINT.replace("spec:", "spec: ]"),
        ENDPOINT.replace("metadata:\n", "metadata:\n  labels:\n    name: x\n") + "]",
    ] {
        let id = yaml(&text)[0].id.clone().unwrap();
        assert_eq!(id.to_string(), "WorkloadEndpoint openstack/web1", "{text}");
    }
    let id = yaml(SUBNET.to_owned() + " ]")[0].id.clone().unwrap();
    assert_eq!(id.to_string(), "Subnet tenant-v6");
    assert_eq!(yaml("kind: Subnet\nmetadata: ]")[0].id, None);
}
