//! What is noticed, when, and in how many readings.

use super::*;

/// Far more than a change takes; a test that waits so long fails.
const PATIENCE: Duration = Duration::from_secs(20);

async fn changed(watch: &mut Watch) -> Vec<String> {
    tokio::time::timeout(PATIENCE, watch.changed()).await.expect("the change is noticed");
    names(watch.snapshot())
}

/// Waits through states in between until the directory says `expected`.
async fn until(watch: &mut Watch, expected: &[&str]) {
    let begin = Instant::now();
    while names(watch.snapshot()) != expected || watch.snapshot().has_errors() {
        assert!(begin.elapsed() < PATIENCE, "{:?}", watch.snapshot());
        changed(watch).await;
    }
}

#[tokio::test]
async fn sees_files_come_change_and_go() {
    let d = tempfile::tempdir().unwrap();
    let file = d.path().join("a.yaml");
    let mut watch = Watch::open(d.path());
    assert_eq!(**watch.snapshot(), Snapshot::default());
    fs::write(&file, subnet("a", "2001:db8:1::/64")).unwrap();
    until(&mut watch, &["a 2001:db8:1::/64"]).await;
    fs::write(&file, subnet("a", "2001:db8:2::/64")).unwrap();
    until(&mut watch, &["a 2001:db8:2::/64"]).await;
    fs::write(d.path().join("a.new"), subnet("a", "2001:db8:3::/64")).unwrap();
    fs::rename(d.path().join("a.new"), &file).unwrap();
    assert_eq!(changed(&mut watch).await, ["a 2001:db8:3::/64"]);
    fs::rename(&file, d.path().join("a.off")).unwrap();
    assert_eq!(changed(&mut watch).await, [""; 0]);
    fs::hard_link(d.path().join("a.off"), &file).unwrap();
    assert_eq!(changed(&mut watch).await, ["a 2001:db8:3::/64"]);
    fs::remove_file(&file).unwrap();
    assert_eq!(changed(&mut watch).await, [""; 0]);
}

#[tokio::test]
async fn half_a_file_is_none_and_the_same_again_no_change() {
    use std::io::Write;
    let d = tempfile::tempdir().unwrap();
    let text = subnet("a", "2001:db8:1::/64") + &subnet("b", "2001:db8:2::/64");
    fs::write(d.path().join("a.yaml"), &text).unwrap();
    let mut watch = Watch::open(d.path());
    let before = Snapshot::clone(watch.snapshot());
    // In place and slowly: emptied, then the first document only.
    let mut slow = fs::File::create(d.path().join("a.yaml")).unwrap();
    slow.write_all(subnet("a", "2001:db8:1::/64").as_bytes()).unwrap();
    fs::write(d.path().join("c.yaml"), subnet("c", "2001:db8:3::/64")).unwrap();
    until(&mut watch, &["a 2001:db8:1::/64", "b 2001:db8:2::/64", "c 2001:db8:3::/64"]).await;
    slow.write_all(subnet("b", "2001:db8:2::/64").as_bytes()).unwrap();
    drop(slow);
    // What a.yaml says is what it said; so the next change is the end of c.
    fs::remove_file(d.path().join("c.yaml")).unwrap();
    changed(&mut watch).await;
    assert_eq!(**watch.snapshot(), before);
}

#[tokio::test]
async fn sees_the_directory_come_go_and_be_replaced() {
    let d = tempfile::tempdir().unwrap();
    let directory = d.path().join("etc/resources");
    let mut watch = Watch::open(&directory);
    assert!(watch.snapshot().has_errors());
    fs::create_dir_all(&directory).unwrap();
    until(&mut watch, &[]).await;
    fs::write(directory.join("a.yaml"), subnet("a", "2001:db8:1::/64")).unwrap();
    until(&mut watch, &["a 2001:db8:1::/64"]).await;
    fs::rename(&directory, d.path().join("etc/old")).unwrap();
    assert_eq!(changed(&mut watch).await, ["a 2001:db8:1::/64"]);
    assert_eq!(kept(watch.snapshot()), [true]);
    let new = d.path().join("etc/new");
    fs::create_dir(&new).unwrap();
    fs::write(new.join("b.yaml"), subnet("b", "2001:db8:2::/64")).unwrap();
    fs::rename(&new, &directory).unwrap();
    until(&mut watch, &["b 2001:db8:2::/64"]).await;
    fs::remove_dir_all(d.path().join("etc")).unwrap();
    while kept(watch.snapshot()) != [true] {
        changed(&mut watch).await;
    }
    fs::create_dir_all(&directory).unwrap();
    until(&mut watch, &[]).await;
    fs::write(directory.join("c.yaml"), subnet("c", "2001:db8:3::/64")).unwrap();
    until(&mut watch, &["c 2001:db8:3::/64"]).await;
}

#[tokio::test]
async fn sees_links_swapped_and_their_targets_changed() {
    let d = tempfile::tempdir().unwrap();
    let at = |name: &str| d.path().join(name);
    // As Kubernetes mounts a ConfigMap.
    for (version, cidr) in [("d/..1", "2001:db8:1::/64"), ("d/..2", "2001:db8:2::/64")] {
        fs::create_dir_all(at(version)).unwrap();
        fs::write(at(version).join("a.yaml"), subnet("a", cidr)).unwrap();
    }
    symlink("..1", at("d/..data")).unwrap();
    symlink("..data/a.yaml", at("d/a.yaml")).unwrap();
    fs::create_dir(at("elsewhere")).unwrap();
    fs::write(at("elsewhere/b.txt"), subnet("b", "2001:db8:b::/64")).unwrap();
    symlink("../elsewhere/b.txt", at("d/b.yaml")).unwrap();
    symlink("d", at("link")).unwrap();
    let mut watch = Watch::open(&at("link"));
    assert_eq!(names(watch.snapshot()), ["a 2001:db8:1::/64", "b 2001:db8:b::/64"]);
    symlink("..2", at("d/..tmp")).unwrap();
    fs::rename(at("d/..tmp"), at("d/..data")).unwrap();
    assert_eq!(changed(&mut watch).await, ["a 2001:db8:2::/64", "b 2001:db8:b::/64"]);
    fs::write(at("elsewhere/b.new"), subnet("b", "2001:db8:bb::/64")).unwrap();
    fs::rename(at("elsewhere/b.new"), at("elsewhere/b.txt")).unwrap();
    assert_eq!(changed(&mut watch).await, ["a 2001:db8:2::/64", "b 2001:db8:bb::/64"]);
    fs::create_dir(at("e")).unwrap();
    fs::write(at("e/c.yaml"), subnet("c", "2001:db8:c::/64")).unwrap();
    symlink("e", at("link.new")).unwrap();
    fs::rename(at("link.new"), at("link")).unwrap();
    assert_eq!(changed(&mut watch).await, ["c 2001:db8:c::/64"]);
    fs::remove_file(at("e/c.yaml")).unwrap();
    assert_eq!(changed(&mut watch).await, [""; 0]);
}

#[tokio::test]
async fn is_not_kept_busy_by_what_goes_on_beside_the_directory() {
    use std::io::Write;
    use std::sync::atomic::{AtomicBool, Ordering};
    let d = tempfile::tempdir().unwrap();
    let directory = d.path().join("resources");
    fs::create_dir(&directory).unwrap();
    // More places to listen in, each of which could have to wait.
    let mut expected = vec!["a 2001:db8:a::/64".to_owned()];
    for n in 10..60 {
        let name = format!("s{n}");
        fs::create_dir(d.path().join(&name)).unwrap();
        symlink(format!("../{name}/s.yaml"), directory.join(format!("{name}.yaml"))).unwrap();
        fs::write(directory.join(format!("{name}.yaml")), subnet(&name, "2001:db8:1::/64")).unwrap();
        expected.push(format!("{name} 2001:db8:1::/64"));
    }
    let done = Arc::new(AtomicBool::new(false));
    let (tell, under_way) = std::sync::mpsc::channel();
    let writers = [["a", "b"], ["c", "d"], ["e", "f"], ["g", "h"]].map(|names| {
        // By turns, because the kernel joins equal events that follow each other.
        let mut logs = names.map(|name| fs::File::create(d.path().join(name)).unwrap());
        let (done, tell) = (done.clone(), tell.clone());
        std::thread::spawn(move || {
            tell.send(()).unwrap();
            while !done.load(Ordering::Relaxed) {
                for log in &mut logs {
                    log.write_all(b".").unwrap();
                }
            }
        })
    });
    for _ in &writers {
        under_way.recv().unwrap();
    }
    let place = directory.clone();
    let opening = tokio::task::spawn_blocking(move || Watch::open(&place));
    let mut opened = tokio::time::timeout(PATIENCE, opening).await;
    if let Ok(Ok(watch)) = &mut opened {
        fs::write(directory.join("a.yaml"), subnet("a", "2001:db8:a::/64")).unwrap();
        until(watch, &expected.iter().map(String::as_str).collect::<Vec<_>>()).await;
    }
    done.store(true, Ordering::Relaxed);
    for writer in writers {
        writer.join().unwrap();
    }
    let watch = opened.expect("the start does not wait for the end of the writing").unwrap();
    assert_eq!(watch.snapshot().problems, []);
}

#[tokio::test]
async fn loses_nothing_when_it_is_dropped_while_waiting() {
    let d = tempfile::tempdir().unwrap();
    let mut watch = Watch::open(d.path());
    let mut dropped = 0_u32;
    for n in 1..=20 {
        fs::write(d.path().join("a.yaml"), subnet("a", &format!("2001:db8:{n}::/64"))).unwrap();
        let expected = [format!("a 2001:db8:{n}::/64")];
        while names(watch.snapshot()) != expected {
            // Mostly shorter than a reading takes.
            let wait = Duration::from_millis(u64::from(dropped % 16));
            if tokio::time::timeout(wait, watch.changed()).await.is_err() {
                dropped += 1;
            }
            assert!(dropped < 10_000);
        }
    }
    assert!(dropped > 0);
}

#[tokio::test]
async fn a_reading_goes_on_while_nobody_waits_for_it() {
    let d = tempfile::tempdir().unwrap();
    let mut watch = Watch::open(d.path());
    fs::write(d.path().join("a.yaml"), subnet("a", "2001:db8:1::/64")).unwrap();
    let begin = Instant::now();
    // As a busy main loop does: one look, and on to the next step, which takes less than a reading.
    loop {
        tokio::select! {
            biased;
            () = watch.changed() => break,
            () = tokio::task::yield_now() => assert!(begin.elapsed() < PATIENCE),
        }
    }
    assert_eq!(names(watch.snapshot()), ["a 2001:db8:1::/64"]);
}

#[tokio::test]
async fn many_changes_are_few_readings() {
    const FILES: usize = 1000;
    /// No reading begins sooner after another.
    const QUIET: Duration = Duration::from_millis(5);
    let d = tempfile::tempdir().unwrap();
    let mut watch = Watch::open(d.path());
    let begin = Instant::now();
    let directory = d.path().to_owned();
    let writer = std::thread::spawn(move || {
        for n in 0..FILES {
            let draft = directory.join(".draft");
            fs::write(&draft, subnet(&format!("s{n}"), &format!("2001:db8:{n:x}::/64"))).unwrap();
            fs::rename(&draft, directory.join(format!("{n}.yaml"))).unwrap();
        }
    });
    let mut readings = 0;
    while watch.snapshot().resources.subnets.len() < FILES {
        changed(&mut watch).await;
        readings += 1;
    }
    writer.join().unwrap();
    let most = 1 + begin.elapsed().div_duration_f64(QUIET) as usize;
    println!("{readings} readings in {:?}", begin.elapsed());
    assert!(readings <= most, "{readings} readings, and there was time for {most}");
}

#[tokio::test]
async fn is_quick_enough_for_a_thousand_files() {
    let d = tempfile::tempdir().unwrap();
    for n in 0..1000 {
        fs::write(
            d.path().join(format!("{n}.yaml")),
            subnet(&format!("s{n}"), &format!("2001:db8:{n:x}::/64")),
        )
        .unwrap();
    }
    let mut watch = Watch::open(d.path());
    assert_eq!(watch.snapshot().resources.subnets.len(), 1000);
    let begin = Instant::now();
    fs::remove_file(d.path().join("7.yaml")).unwrap();
    assert_eq!(changed(&mut watch).await.len(), 999);
    println!("noticed after {:?}", begin.elapsed());
}
