//! The files in `examples/` are what a new user copies: they are valid, and say the truth about defaults.

use serval::config::Config;
use serval::source::Directory;
use std::path::{Path, PathBuf};

fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(name)
}

#[test]
fn configuration_shows_every_key_with_its_default() {
    let file = example("serval.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    let as_it_is = Config::load(Some(&file)).unwrap();
    assert_eq!(as_it_is, Config::parse(&file, b"").unwrap());

    let shown: String = text
        .lines()
        .filter_map(|line| line.strip_prefix('#').filter(|key| !key.is_empty() && !key.starts_with(' ')))
        .flat_map(|line| [line, "\n"])
        .collect();
    let mut shown = Config::parse(&file, shown.as_bytes()).unwrap();
    assert_eq!(shown.node, "compute-1");
    assert_eq!(shown.uplinks.iter().map(ToString::to_string).collect::<Vec<_>>(), ["eth0"]);
    shown.node.clone_from(&as_it_is.node);
    shown.uplinks.clear();
    assert_eq!(shown, as_it_is);
}

#[test]
fn resources_are_two_endpoints_and_their_subnet() {
    let snapshot = Directory::read(&example("resources"));
    assert_eq!(snapshot.problems, []);
    assert_eq!(snapshot.resources.endpoints.len(), 2);
    assert_eq!(snapshot.resources.subnets.len(), 1);
}
