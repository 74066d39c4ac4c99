//! Names of protocols in BIRD: symbols made from the names of nodes and peers, each once.

use std::collections::BTreeSet;

/// Prefix of sessions of the mesh.
pub(super) const MESH: &str = "mesh";
/// Prefix of all other sessions.
pub(super) const PEER: &str = "peer";
/// With which words the names of sessions begin.
pub const SESSION_PREFIXES: [&str; 2] = [MESH, PEER];

/// Longest part that comes from a name; BIRD takes symbols of 64 characters.
const LONGEST: usize = 48;

/// The names that are taken.
#[derive(Debug, Default)]
pub(super) struct Names {
    taken: BTreeSet<String>,
}

impl Names {
    /// The symbol of `name`: `mesh_compute_1` of `compute-1`.
    pub fn symbol(&mut self, prefix: &str, name: &str) -> String {
        let plain: String =
            name.chars().take(LONGEST).map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
        let wanted = format!("{prefix}_{plain}");
        let numbered = (2..).map(|n| format!("{wanted}_{n}"));
        let free =
            std::iter::once(wanted.clone()).chain(numbered).find(|symbol| !self.taken.contains(symbol));
        // The numbers do not end before the names do.
        let symbol = free.unwrap_or(wanted);
        self.taken.insert(symbol.clone());
        symbol
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn symbols_are_plain_short_and_different() {
        let mut names = Names::default();
        assert_eq!(names.symbol("mesh", "compute-1.example"), "mesh_compute_1_example");
        assert_eq!(names.symbol("mesh", "compute_1-example"), "mesh_compute_1_example_2");
        assert_eq!(names.symbol("peer", "compute-1.example"), "peer_compute_1_example");
        let long = "x".repeat(253);
        assert!(names.symbol("mesh", &long).len() < 64);
        assert_ne!(names.symbol("mesh", &long), names.symbol("mesh", &long));
    }
}
