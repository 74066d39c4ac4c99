//! What stays and what goes when texts turn bad (pure), and that every way to change a directory is noticed.

use super::state::{Listing, State};
use super::*;
use crate::resource::ResourceId;
use crate::resource::document::{Format, parse};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

mod watching;

fn subnet(name: &str, cidr: &str) -> String {
    format!(
        "---\napiVersion: serval/v1\nkind: Subnet\nmetadata: {{name: {name}}}\nspec: {{cidr: '{cidr}'}}\n"
    )
}

fn names(snapshot: &Snapshot) -> Vec<String> {
    snapshot.resources.subnets.values().map(|subnet| format!("{} {}", subnet.name, subnet.cidr)).collect()
}

fn kept(snapshot: &Snapshot) -> Vec<bool> {
    snapshot.problems.iter().map(|problem| problem.kept).collect()
}

mod last_good_state {
    use super::*;

    fn listing(files: &[(&str, &str)]) -> Listing {
        let parsed = |&(name, text): &(&str, &str)| {
            let path = PathBuf::from(name);
            let parsed = parse(&path, Format::of(&path).unwrap(), text.as_bytes());
            (path, Arc::new(parsed))
        };
        Ok(files.iter().map(parsed).collect())
    }

    #[test]
    fn a_document_that_turns_bad_stays_and_its_neighbour_changes() {
        let mut state = State::default();
        let good = subnet("a", "2001:db8:a::/64");
        state.merge(listing(&[("f.yaml", &(good.clone() + &subnet("b", "2001:db8:b::/64")))]));
        for bad in
            [subnet("a", "nonsense"), good.replace("spec: {", "spec: {{{"), good.replace("cidr", "net")]
        {
            let now = state.merge(listing(&[("f.yaml", &(bad + &subnet("b", "2001:db8:bb::/64")))]));
            assert_eq!(names(&now), ["a 2001:db8:a::/64", "b 2001:db8:bb::/64"]);
            assert!(now.has_errors() && kept(&now).iter().all(|&kept| kept), "{:?}", now.problems);
            assert!(now.problems[0].to_string().ends_with("(kept: last good state)"));
        }
        let now = state.merge(listing(&[("f.yaml", &subnet("a", "2001:db8:aa::/64"))]));
        assert_eq!(names(&now), ["a 2001:db8:aa::/64"], "repaired, and the other document is gone");
        assert_eq!(now.problems, []);
    }

    #[test]
    fn a_document_that_was_never_good_is_just_refused() {
        let now = State::default().merge(listing(&[("f.yaml", &subnet("a", "nonsense"))]));
        assert_eq!((names(&now), kept(&now)), (vec![], vec![false]));
    }

    #[test]
    fn a_document_without_a_name_may_be_any_of_its_file() {
        let mut state = State::default();
        let (a, b) = (subnet("a", "2001:db8:a::/64"), subnet("b", "2001:db8:b::/64"));
        state.merge(listing(&[("f.yaml", &(a.clone() + &b)), ("g.yaml", &subnet("c", "2001:db8:c::/64"))]));
        let now = state.merge(listing(&[("f.yaml", &(a + "---\nkind: [\n"))]));
        assert_eq!(names(&now), ["a 2001:db8:a::/64", "b 2001:db8:b::/64"], "c was in a file that is gone");
        assert_eq!(kept(&now), [true]);
    }

    #[test]
    fn a_file_that_cannot_be_read_keeps_all_it_defined() {
        let mut state = State::default();
        let both = subnet("a", "2001:db8:a::/64") + &subnet("b", "2001:db8:b::/64");
        state.merge(listing(&[("f.yaml", &both)]));
        for whole in [("f.yaml", ""), ("f.yaml", &*"x".repeat(5 << 20))] {
            let now = state.merge(listing(&[whole]));
            assert_eq!((names(&now).len(), kept(&now)), (2, vec![true]));
        }
        assert_eq!(names(&state.merge(listing(&[]))), [""; 0], "a file that is deleted is meant to be");
    }

    #[test]
    fn a_directory_that_cannot_be_read_changes_nothing() {
        let mut state = State::default();
        let before = state.merge(listing(&[("f.yaml", &subnet("a", "2001:db8:a::/64"))]));
        let gone = state.merge(Err(Problem::file(Path::new("/d"), "does not exist; create it")));
        assert_eq!((&gone.resources, kept(&gone)), (&before.resources, vec![true]));
        let never = State::default().merge(Err(Problem::file(Path::new("/d"), "does not exist; create it")));
        assert_eq!((never.resources, never.problems[0].kept), (Resources::default(), false));
    }

    #[test]
    fn the_first_of_a_name_counts_even_when_it_turns_bad() {
        let mut state = State::default();
        let second = subnet("a", "2001:db8:2::/64");
        let now = state.merge(listing(&[("f.yaml", &subnet("a", "2001:db8:1::/64")), ("g.yaml", &second)]));
        assert_eq!(names(&now), ["a 2001:db8:1::/64"]);
        assert_eq!(
            now.problems[0].to_string(),
            "g.yaml:2:1: Subnet a: metadata.name: already defined at f.yaml:2, which counts; remove or rename one"
        );
        let now = state.merge(listing(&[("f.yaml", &subnet("a", "nonsense")), ("g.yaml", &second)]));
        assert_eq!(names(&now), ["a 2001:db8:1::/64"]);
        assert_eq!(kept(&now), [true, false]);
        let now = state.merge(listing(&[("g.yaml", &second)]));
        assert_eq!((names(&now), now.problems), (vec!["a 2001:db8:2::/64".to_owned()], vec![]));
    }

    #[test]
    fn a_name_that_moves_to_another_file_is_the_same_resource() {
        let mut state = State::default();
        state.merge(listing(&[("f.yaml", &subnet("a", "2001:db8:a::/64"))]));
        let now = state.merge(listing(&[("g.yaml", &subnet("a", "nonsense"))]));
        assert_eq!((names(&now), kept(&now)), (vec!["a 2001:db8:a::/64".to_owned()], vec![true]));
        let id = ResourceId::Subnet("a".into());
        assert_eq!(now.problems[0].resource, Some(id.to_string()));
        assert_eq!(now.places[&id].0, Path::new("g.yaml"));
        let now = state.merge(listing(&[("g.yaml", "")]));
        assert_eq!(names(&now), ["a 2001:db8:a::/64"], "it was in this file last");
    }
}

mod reading {
    use super::*;

    #[test]
    fn takes_files_by_name_and_leaves_the_others() {
        let d = tempfile::tempdir().unwrap();
        let put = |name: &str, text: &str| fs::write(d.path().join(name), text).unwrap();
        put("b.yml", &subnet("b", "2001:db8:b::/64"));
        put("a.yaml", &subnet("a", "2001:db8:a::/64"));
        put(".hidden.yaml", "]");
        put("notes.txt", "]");
        put("c.yaml~", "]");
        fs::create_dir(d.path().join("sub.yaml")).unwrap();
        let snapshot = Directory::read(d.path());
        assert_eq!(names(&snapshot), ["a 2001:db8:a::/64", "b 2001:db8:b::/64"]);
        assert_eq!(snapshot.problems, []);
        assert_eq!(names(&check(&d.path().join("b.yml"))), ["b 2001:db8:b::/64"]);
        assert_eq!(
            check(&d.path().join("notes.txt")).problems[0].message,
            "neither .yaml, .yml nor .json; rename the file after its format"
        );
    }

    #[test]
    fn what_is_no_text_file_is_one_problem() {
        let d = tempfile::tempdir().unwrap();
        nix::unistd::mkfifo(&d.path().join("fifo.yaml"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        symlink("nowhere", d.path().join("link.yaml")).unwrap();
        fs::write(d.path().join("null.json"), "\0").unwrap();
        symlink("loop.yaml", d.path().join("loop.yaml")).unwrap();
        let found: Vec<_> = Directory::read(d.path()).problems.into_iter().map(|p| p.message).collect();
        assert_eq!(found[0], "not a regular file");
        assert_eq!(found[1], "does not exist; create it");
        assert!(found[2].contains("symbolic link"), "{found:?}");
        assert_eq!(found[3], "not JSON: expected value");
        let missing = Directory::read(&d.path().join("missing")).problems;
        assert_eq!(missing.len(), 1);
        assert!(missing[0].to_string().ends_with("/missing: does not exist; create it"), "{missing:?}");
    }
}

mod memory {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    /// The names after a restart, and which problems say that something was kept.
    fn restarted(directory: &Path, memory: &Path) -> (Vec<String>, Vec<bool>) {
        let watch = Watch::resume(directory, memory);
        (names(watch.snapshot()), kept(watch.snapshot()))
    }

    #[tokio::test]
    async fn a_restart_knows_what_was_good() {
        let d = tempfile::tempdir().unwrap();
        let (directory, memory) = (d.path().join("resources"), d.path().join("memory.json"));
        let file = directory.join("f.yaml");
        fs::create_dir(&directory).unwrap();
        let [a, b] = [subnet("a", "2001:db8:a::/64"), subnet("b", "2001:db8:b::/64")];
        fs::write(&file, a.clone() + &b).unwrap();
        let both = vec!["a 2001:db8:a::/64".to_owned(), "b 2001:db8:b::/64".to_owned()];
        assert_eq!(restarted(&directory, &memory), (both.clone(), vec![]));
        assert_eq!(fs::metadata(&memory).unwrap().permissions().mode() & 0o777, 0o600);

        // One document is bad, the file is, the directory is gone: each over a restart, and again.
        for _ in 0..2 {
            fs::write(&file, a.clone() + &subnet("b", "nonsense")).unwrap();
            assert_eq!(restarted(&directory, &memory), (both.clone(), vec![true]));
        }
        fs::write(&file, b"\xff").unwrap();
        assert_eq!(restarted(&directory, &memory), (both.clone(), vec![true]));
        fs::rename(&directory, d.path().join("away")).unwrap();
        assert_eq!(restarted(&directory, &memory), (both, vec![true]));

        // What is deleted while nobody watches is gone.
        fs::create_dir(&directory).unwrap();
        fs::write(&file, &a).unwrap();
        assert_eq!(restarted(&directory, &memory).0, ["a 2001:db8:a::/64"]);
        fs::remove_file(&file).unwrap();
        assert_eq!(restarted(&directory, &memory), (vec![], vec![]));
    }

    #[tokio::test]
    async fn a_spoilt_memory_costs_the_memory_only() {
        let d = tempfile::tempdir().unwrap();
        let (directory, memory) = (d.path().join("resources"), d.path().join("memory.json"));
        fs::create_dir(&directory).unwrap();
        fs::write(directory.join("f.yaml"), subnet("a", "2001:db8:a::/64")).unwrap();
        for spoilt in ["", "[1]", "{\"f.yaml\": \"{\", \"x\": \"\"}"] {
            fs::write(&memory, spoilt).unwrap();
            assert_eq!(restarted(&directory, &memory), (vec!["a 2001:db8:a::/64".to_owned()], vec![]));
        }
    }
}
