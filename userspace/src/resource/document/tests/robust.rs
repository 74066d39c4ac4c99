//! Damage stays where it is, and no bytes make the parser panic or take long.

use super::*;
use proptest::prelude::*;
use std::time::{Duration, Instant};

#[test]
fn a_bad_document_leaves_its_neighbours_alone() {
    let bad_syntax = ENDPOINT.replace("'2001:db8::10/128'", "'2001:db8::10/128");
    let mut stream = format!("# first\n{SUBNET}---\n{bad_syntax}---\n").into_bytes();
    let line = stream.iter().filter(|&&b| b == b'\n').count();
    stream.extend(b"kind: \xff\n...\n---\n---\n");
    stream.extend(ENDPOINT.replace("web1", "web2").into_bytes());
    let documents = yaml(&stream);
    let ids: Vec<_> = documents.iter().map(|d| d.id.as_ref().map(ToString::to_string)).collect();
    assert_eq!(
        ids,
        [
            Some("Subnet tenant-v6".to_owned()),
            Some("WorkloadEndpoint openstack/web1".to_owned()),
            None,
            Some("WorkloadEndpoint openstack/web2".to_owned())
        ]
    );
    assert!(matches!(documents[3].content, Content::Resource(_)));
    assert_eq!(documents[3].at.line as usize, line + 5);
    let found = problems(&documents);
    assert_eq!(found.len(), 2);
    // The quote that is not closed ends with its document.
    assert!(found[0].starts_with("f:") && (8..=line).contains(&(documents[1].at.line as usize)), "{found:?}");
    assert_eq!(found[1], format!("f:{}:7: not UTF-8; save the file as UTF-8", line + 1));
}

#[test]
fn bombs_are_one_problem_and_quick() {
    let laughs: String =
        (1..12).map(|i| format!("a{i}: &a{i} [{}]\n", vec![format!("*a{}", i - 1); 10].join(", "))).collect();
    let long = "x".repeat(1 << 20);
    let mib = |text: &str| text.repeat((3 << 20) / text.len());
    for (name, text) in [
        ("nested flow", "[".repeat(200_000)),
        ("nested maps", (0..2000).map(|i| " ".repeat(i) + "a:\n").collect()),
        ("nested sequences", "- ".repeat(100_000)),
        ("billion laughs", format!("a0: &a0 ha\n{laughs}")),
        ("long laughs", format!("a0: &a0 {long}\nb: [{}]\n", vec!["*a0"; 10_000].join(", "))),
        ("itself", "a: &a [*a]\n".to_owned()),
        ("values", mib("- 1\n")),
        ("keys", (0..100_000).map(|i| format!("k{i}: 1\n")).collect()),
        (
            "anchored nest",
            (0..60).map(|i| format!("{}a{i}: &a{i}\n", " ".repeat(i))).collect::<String>()
                + &(0..40_000).map(|i| format!("{}k{i}: 1\n", " ".repeat(60))).collect::<String>(),
        ),
        ("question marks", mib("? ")),
        ("quotes", mib("\"")),
        ("colons", mib(": ")),
        ("one key", mib("abc ") + ":"),
        ("comments", mib("#\n") + "a: b"),
        ("tags", mib("!!str ")),
        ("block scalar", format!("a: |\n{}", mib("  text\n"))),
    ] {
        let begin = Instant::now();
        let documents = yaml(&text);
        assert!(begin.elapsed() < Duration::from_secs(20), "{name}: {:?}", begin.elapsed());
        assert_eq!(documents.len(), 1, "{name}");
        assert_eq!(documents[0].content, Content::Refused, "{name}");
        let found = problems(&documents);
        assert!(found.iter().all(|message| message.len() < 2000), "{name}");
        println!("{name}: {:?} {}", begin.elapsed(), found[0]);
    }
    let nested = format!("{}{}", "[".repeat(5000), "]".repeat(5000));
    assert!(parse(Path::new("f"), Format::Json, nested.as_bytes()).is_err());
}

/// The tree of a JSON value as [`yaml`] reads it, without places.
fn plain(node: &Node) -> serde_json::Value {
    use serde_json::Value as Json;
    match &node.value {
        Value::Null => Json::Null,
        Value::Bool(value) => Json::Bool(*value),
        Value::Number(text) => serde_json::from_str(text).unwrap(),
        Value::String(text) => Json::String(text.clone()),
        Value::List(items) => items.iter().map(plain).collect(),
        Value::Map(entries) => entries.iter().map(|(key, node)| (key.text.clone(), plain(node))).collect(),
    }
}

/// As a person with tabs writes it.
fn pretty(value: &serde_json::Value) -> String {
    let mut text = Vec::new();
    let tabs = serde_json::ser::PrettyFormatter::with_indent(b"\t");
    serde::Serialize::serialize(value, &mut serde_json::Serializer::with_formatter(&mut text, tabs)).unwrap();
    String::from_utf8(text).unwrap()
}

fn any_json() -> impl Strategy<Value = serde_json::Value> {
    use serde_json::Value as Json;
    // All but raw DEL and C1 controls: YAML wants those escaped, and says so.
    let text = "\\PC{0,20}|[\n\t\r\"\\\\/\u{1}\u{1f}\u{2028}: #,-]{0,9}";
    let leaf = prop_oneof![
        Just(Json::Null),
        any::<bool>().prop_map(Json::from),
        any::<i64>().prop_map(Json::from),
        any::<f64>().prop_filter("JSON has no NaN", |f| f.is_finite()).prop_map(Json::from),
        text.prop_map(Json::from),
    ];
    leaf.prop_recursive(5, 40, 6, move |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..6).prop_map(Json::from),
            proptest::collection::btree_map(text, inner, 0..6).prop_map(|map| map.into_iter().collect()),
        ]
    })
}

proptest! {
    /// JSON is read by the YAML parser; it must mean the same there.
    #[test]
    fn json_means_the_same_as_yaml(value in any_json()) {
        for text in [value.to_string(), pretty(&value)] {
            let tree = yaml::parse(&text, 1).map_err(|e| TestCaseError::fail(format!("{e:?} {text}")))?;
            prop_assert_eq!(tree.as_ref().map_or(serde_json::Value::Null, plain), serde_json::from_str::<serde_json::Value>(&text).unwrap());
        }
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        for format in [Format::Yaml, Format::Json] {
            if let Ok(documents) = parse(Path::new("f"), format, &bytes) {
                for document in documents {
                    prop_assert_eq!(document.content == Content::Refused, document.problems.iter().any(Problem::is_error));
                }
            }
        }
    }

    #[test]
    fn no_yaml_makes_it_panic(text in "([-a-c:{}\\[\\],\"'&*!|>%#? \n]|kind|metadata|spec|: |\n---\n|\n\\.\\.\\.\n|\u{feff}|é){0,120}") {
        for format in [Format::Yaml, Format::Json] {
            if let Ok(documents) = parse(Path::new("f"), format, text.as_bytes()) {
                for document in documents {
                    prop_assert_eq!(document.content == Content::Refused, document.problems.iter().any(Problem::is_error));
                }
            }
        }
    }

    /// A valid document with one line damaged: whatever comes of it, the neighbour stands, with its line right.
    #[test]
    fn damage_stays_in_its_document(line in 0usize..11, damage in "[^\r\n]{0,30}") {
        prop_assume!(!damage.starts_with("---") && !damage.starts_with("..."));
        let mut lines: Vec<&str> = ENDPOINT.lines().collect();
        lines[line] = &damage;
        let documents = yaml(format!("{}\n---\n{SUBNET}", lines.join("\n")));
        let last = documents.last().unwrap();
        prop_assert_eq!(last.id.as_ref().map(ToString::to_string), Some("Subnet tenant-v6".to_owned()));
        prop_assert!(matches!(last.content, Content::Resource(_)));
        prop_assert_eq!(last.at.line, 13);
    }
}
