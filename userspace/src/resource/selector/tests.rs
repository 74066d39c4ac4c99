//! The grammar by examples, every refusal with its column, and properties that hold for any selector and any text.

use super::*;
use proptest::prelude::*;

fn matches(selector: &str, labels: &[(&str, &str)]) -> bool {
    let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    selector.parse::<Selector>().unwrap_or_else(|error| panic!("{selector}: {error}")).matches(&labels)
}

#[test]
fn every_operator_means_what_calico_means() {
    let web = &[("role", "web"), ("sg.projectcalico.org/openstack-1", ""), ("in", "x")];
    for (selector, expected) in [
        ("", true),
        (" \t", true),
        ("all()", true),
        ("all( )", true),
        ("global()", true),
        ("has(role)", true),
        ("has( role )", true),
        ("has(sg.projectcalico.org/openstack-1)", true),
        ("has(absent)", false),
        ("!has(absent)", true),
        ("role == 'web'", true),
        ("role=='web'", true),
        ("role == \"web\"", true),
        ("role == 'db'", false),
        ("absent == ''", false),
        ("role != 'web'", false),
        ("role != 'db'", true),
        ("absent != 'web'", true),
        ("role in {'db', 'web'}", true),
        ("role in {'web',}", true),
        ("role in{'db'}", false),
        ("role in {}", false),
        ("absent in {''}", false),
        ("role not in {'db'}", true),
        ("role notin {'web'}", false),
        ("role not\t in {}", true),
        ("absent not in {'web'}", true),
        ("role contains 'e'", true),
        ("role contains 'x'", false),
        ("absent contains ''", false),
        ("role starts with 'w'", true),
        ("role startswith 'e'", false),
        ("role ends with 'b'", true),
        ("role endswith 'w'", false),
        ("in in {'x'}", true),
        ("in == 'x'", true),
        ("!role == 'web'", false),
        ("!!role == 'web'", true),
        ("! (role == 'db')", true),
        // && binds tighter than ||, and ! tightest.
        ("all() || all() && !all()", true),
        ("(all() || all()) && !all()", false),
        ("!all() || all()", true),
        ("role == 'it\"s'", false),
    ] {
        assert_eq!(matches(selector, web), expected, "{selector}");
    }
}

#[test]
fn a_mistake_says_its_column() {
    for (selector, expected) in [
        (
            "role",
            "column 5: expected `==`, `!=`, `in`, `not in`, `contains`, `starts with` or `ends with` after the label `role`",
        ),
        (
            "has (role)",
            "column 5: expected `==`, `!=`, `in`, `not in`, `contains`, `starts with` or `ends with` after the label `has`",
        ),
        ("role == web", "column 9: expected a text in quotes"),
        ("rôle == 'web'", "column 2: expected `==`,"),
        ("'ö' == role", "column 1: expected a label,"),
        ("role == 'ö' &", "column 13: expected `&&`, `||` or the end"),
        ("role == 'web", "column 9: the text is not closed; end it with '"),
        ("role in 'web'", "column 9: expected `{`"),
        ("role in {'a' 'b'}", "column 14: expected `,` or `}`"),
        ("role in {,}", "column 10: expected a text in quotes"),
        ("(all()", "column 7: expected `)`"),
        ("all())", "column 6: expected `&&`, `||` or the end"),
        ("all() and all()", "column 7: expected `&&`, `||` or the end"),
        ("all() &&", "column 9: expected a label,"),
        ("!= 'a'", "column 1: expected a label before `!=`"),
        ("role starts 'w'", "column 6: expected `==`,"),
        ("all()\n|| all()", "column 6: expected `&&`, `||` or the end"),
    ] {
        let error = selector.parse::<Selector>().unwrap_err().to_string();
        assert!(error.starts_with(&format!("selector, {expected}")), "{selector}: {error}");
    }
}

#[test]
fn nesting_and_names_have_a_limit() {
    let nested = |depth: usize| format!("{}all(){}", "(".repeat(depth), ")".repeat(depth));
    assert_eq!(nested(64).parse(), Ok(Selector::All));
    let error = nested(100_000).parse::<Selector>().unwrap_err();
    assert_eq!(error.to_string(), "selector, column 66: nested deeper than 64 levels");
    assert!("!".repeat(100_000).parse::<Selector>().is_err());
    assert!(format!("has({})", "x".repeat(512)).parse::<Selector>().is_ok());
    assert!(format!("has({})", "x".repeat(513)).parse::<Selector>().is_err());
}

fn label() -> impl Strategy<Value = Label> {
    prop_oneof![Just("in"), Just("not"), Just("a"), Just("b/c-d.e_f"), Just("has"), Just("7")]
        .prop_map(|name| Label(name.to_owned()))
}

fn text() -> impl Strategy<Value = Text> {
    prop_oneof!["[ab]{0,2}", "[^'\"\n]{0,4}", "[a']{0,3}", "[a\"]{0,3}"].prop_map(Text)
}

fn any_selector() -> impl Strategy<Value = Selector> {
    let set = || prop::collection::btree_set(text(), 0..3);
    let leaf = prop_oneof![
        Just(Selector::All),
        Just(Selector::Global),
        label().prop_map(Selector::Has),
        (label(), text()).prop_map(|(l, t)| Selector::Is(l, t)),
        (label(), text()).prop_map(|(l, t)| Selector::IsNot(l, t)),
        (label(), text()).prop_map(|(l, t)| Selector::Contains(l, t)),
        (label(), text()).prop_map(|(l, t)| Selector::StartsWith(l, t)),
        (label(), text()).prop_map(|(l, t)| Selector::EndsWith(l, t)),
        (label(), set()).prop_map(|(l, s)| Selector::In(l, s)),
        (label(), set()).prop_map(|(l, s)| Selector::NotIn(l, s)),
    ];
    leaf.prop_recursive(4, 24, 3, |inner| {
        let several = || prop::collection::vec(inner.clone(), 2..4);
        prop_oneof![
            inner.clone().prop_map(|inner| Selector::Not(Box::new(inner))),
            several().prop_map(Selector::Every),
            several().prop_map(Selector::Any),
        ]
    })
}

proptest! {
    #[test]
    fn what_is_printed_parses_to_the_same(selector in any_selector()) {
        prop_assert_eq!(selector.to_string().parse(), Ok(selector));
    }

    #[test]
    fn negation_and_its_operators_agree(
        (l, t, s) in (label(), text(), prop::collection::btree_set(text(), 0..3)),
        labels in prop::collection::btree_map("in|not|a", "[ab]{0,2}", 0..3),
    ) {
        let is = Selector::Is(l.clone(), t.clone());
        prop_assert_eq!(Selector::IsNot(l.clone(), t).matches(&labels), !is.matches(&labels));
        let inside = Selector::In(l.clone(), s.clone());
        prop_assert_eq!(Selector::NotIn(l, s).matches(&labels), !inside.matches(&labels));
    }

    #[test]
    fn no_text_makes_it_panic(text in "[a-c!=&|(){}, '\"\t\u{e9}]{0,40}|.{0,40}") {
        let parsed = text.parse::<Selector>();
        if let Err(error) = parsed {
            prop_assert!(error.column <= text.chars().count() + 1);
        }
    }
}
