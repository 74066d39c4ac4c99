//! The sizes of the programs are recorded, so that growth is seen in the commit that causes it.

use crate::runs::in_namespace;
use serval_tests::program::{Programs, Size};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

const RECORD: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/programs.txt");

/// Set to write the record rather than compare with it.
const ACCEPT: &str = "SERVAL_ACCEPT_PROGRAMS";

const HEAD: &str = "\
# How large the programs are, with policy; `tests/tests/decision/recorded.rs` compares. To accept a change:
# SERVAL_ACCEPT_PROGRAMS=1 cargo xtask test programs_are_as_recorded
";

const COLUMNS: [&str; 5] = ["program", "verified", "translated", "jited", "stack"];

/// How much of a number may change without a word.
const TOLERANCE: f64 = 0.1;

/// The verifier gives up at 1,000,000, and older ones count more.
const MOST_VERIFIED: u32 = 800_000;

#[test]
fn programs_are_as_recorded() {
    in_namespace(|object, _| {
        let sizes = Programs::load_policed(object).sizes();
        let made_by = made_by(object);
        let text = render(&made_by, &sizes);
        println!("{text}");
        for (name, size) in &sizes {
            assert!(size.verified < MOST_VERIFIED, "{name}: {size:?}");
        }
        if std::env::var_os(ACCEPT).is_some() {
            fs::write(RECORD, text).expect("the record is written");
            return;
        }
        let recorded = fs::read_to_string(RECORD).expect("the record is there");
        if !recorded.lines().any(|line| line == made_by) {
            println!("not compared: the record in {RECORD} is of another kernel or compiler than {made_by}");
            return;
        }
        let changed = changes(&numbers(&recorded), &numbers(&text));
        assert!(
            changed.is_empty(),
            "programs have changed by more than {:.0} %:\n{}\nIf that is meant, record it in the same commit: \
             {ACCEPT}=1 cargo xtask test programs_are_as_recorded",
            100.0 * TOLERANCE,
            changed.join("\n")
        );
    });
}

/// The kernel's and the compiler's version, as far as numbers depend on them.
fn made_by(object: &Path) -> String {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").expect("the kernel's version");
    let bytes = fs::read(object).expect("the object");
    let text = String::from_utf8_lossy(&bytes);
    let compiler = text.split("rustc version ").nth(1).expect("debug information says who made it");
    format!("Linux {}, rustc {}", minor(&release), minor(compiler))
}

/// The `6.18` of `6.18.44-something`.
fn minor(version: &str) -> String {
    version.splitn(3, '.').take(2).collect::<Vec<_>>().join(".")
}

fn render(made_by: &str, sizes: &BTreeMap<String, Size>) -> String {
    let mut text = format!("{HEAD}{made_by}\n");
    let mut row = |cells: [String; 5]| {
        let [name, rest @ ..] = cells;
        writeln!(text, "{name:<12}{}", rest.map(|cell| format!("{cell:>12}")).concat()).expect("a string");
    };
    row(COLUMNS.map(str::to_owned));
    for (name, Size { verified, translated, jited, stack }) in sizes {
        let [verified, translated, jited, stack] = [verified, translated, jited, stack].map(u32::to_string);
        row([name.clone(), verified, translated, jited, stack]);
    }
    text
}

/// Every number of a record, by program and column.
fn numbers(record: &str) -> BTreeMap<(&str, &str), u32> {
    let rows = record.lines().map(|line| line.split_ascii_whitespace().collect::<Vec<_>>());
    rows.filter(|row| row.len() == COLUMNS.len())
        .flat_map(|row| {
            COLUMNS.into_iter().zip(row.clone()).map(move |(column, cell)| (row[0], column, cell))
        })
        .filter_map(|(program, column, cell)| Some(((program, column), cell.parse().ok()?)))
        .collect()
}

/// What is not as it was. What has become smaller counts as well: it could grow again unseen.
fn changes(before: &BTreeMap<(&str, &str), u32>, after: &BTreeMap<(&str, &str), u32>) -> Vec<String> {
    let mut keys: Vec<_> = before.keys().chain(after.keys()).collect();
    keys.sort();
    keys.dedup();
    let describe = |number: Option<&u32>| number.map_or("nothing".to_owned(), u32::to_string);
    keys.into_iter()
        .filter_map(|key| {
            let (old, new) = (before.get(key), after.get(key));
            let same = old.zip(new).is_some_and(|(&old, &new)| {
                (f64::from(new) - f64::from(old)).abs() <= TOLERANCE * f64::from(old)
            });
            let (program, column) = key;
            (!same).then(|| format!("{program}: {column} {} -> {}", describe(old), describe(new)))
        })
        .collect()
}

#[test]
fn changes_of_more_than_a_tenth_are_told() {
    let size = |verified| Size { verified, translated: 100, jited: 200, stack: 300 };
    let record = |verified| render("Linux 6.18, rustc 1.96", &[("tap_in".to_owned(), size(verified))].into());
    let [before, near, more, less] = [1000, 1100, 1101, 899].map(record);
    let compare = |after: &str| changes(&numbers(&before), &numbers(after));
    assert!(compare(&near).is_empty());
    assert_eq!(compare(&more), ["tap_in: verified 1000 -> 1101"]);
    assert_eq!(compare(&less), ["tap_in: verified 1000 -> 899"]);
    assert_eq!(compare("").len(), 4, "a program that is gone");
}
