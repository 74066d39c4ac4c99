//! The files in `examples/` are what a new user copies: they are valid, and say the truth about defaults.

use serval::config::{BirdConfig, Config, MeshConfig};
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
    let bird = shown.bird.take().unwrap();
    assert_eq!(shown, as_it_is);
    // Without default: what depends on the host, and what there is none of.
    let examples = bird.clone();
    let BirdConfig { executable, router_id, address, cluster_id, extra, mesh, .. } = BirdConfig::default();
    assert_eq!(
        BirdConfig { executable, router_id, address, cluster_id, extra, mesh, ..bird },
        BirdConfig::default()
    );
    assert_eq!(MeshConfig { password_file: None, ..examples.mesh }, MeshConfig::default());
}

#[test]
fn tables_that_are_shown_in_comments_are_valid() {
    let text = std::fs::read_to_string(example("serval.toml")).unwrap();
    let tables: String = text
        .lines()
        .skip_while(|line| *line != "# [[bird.aggregates]]")
        .filter_map(|line| line.strip_prefix("# "))
        .filter(|line| line.starts_with("[[") || line.contains(" = "))
        .flat_map(|line| [line, "\n"])
        .collect();
    // A link-local peer has neither a source nor several hops; they are shown nevertheless.
    let tables = tables
        .replace("address = \"fe80::1\"", "address = \"fd00::1\"")
        .replace("interface = \"eth0\"\n", "");
    let bird = Config::parse(&example("serval.toml"), tables.as_bytes()).unwrap().bird.unwrap();
    assert_eq!((bird.aggregates.len(), bird.communities.len(), bird.peers.len()), (1, 1, 1));
}

#[test]
fn resources_are_two_endpoints_and_their_subnet() {
    let snapshot = Directory::read(&example("resources"));
    assert_eq!(snapshot.problems, []);
    assert_eq!(snapshot.resources.endpoints.len(), 2);
    assert_eq!(snapshot.resources.subnets.len(), 1);
}
