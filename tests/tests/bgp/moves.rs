//! A VM moves from host 1 to host 2 of a mesh while others talk to it. Its document may leave the one before or after it
//! comes to the other: either way everybody finds it in the end.

use anyhow::{Result, ensure};
use serval_tests::bgp::{nodes, share};
use serval_tests::cloud::{address, endpoint, name, running};
use serval_tests::fabric::{Fabric, host_address};
use serval_tests::require_rig;
use serval_tests::scene::{PINGS, Scene};
use serval_tests::stream::Stream;
use serval_tests::tap::Offloads;
use std::sync::Arc;
use std::time::Instant;

/// Datagrams a second.
const RATE: u32 = 1_000;

/// Datagrams that must come through before and after.
const STEP: u64 = 300;

/// Three hosts of a mesh with a VM each, which know each other.
fn mesh() -> Result<Scene> {
    let mut fabric = Fabric::new("move", 3)?;
    share(&fabric, "[bird]", &nodes(&fabric, 3))?;
    fabric.start()?;
    let scene = Scene::populate(fabric, 3, Offloads::NONE)?;
    for (at, to) in [(2, 1), (3, 1), (1, 2), (1, 3)] {
        scene.fabric.host(at).wait_route(address(to))?;
        scene.settle(at, address(to))?;
    }
    Ok(scene)
}

/// Waits until all hosts lead to VM 1 on host `number`, and nowhere else.
fn found(scene: &Scene, number: u8) -> Result<()> {
    let there = format!("via {} ", host_address(number));
    for other in (1..=3).filter(|&other| other != number) {
        scene.fabric.host(other).wait_learnt(address(1), "by its host alone", |route| {
            route.contains(&there) && route.matches("via ").count() == 1
        })?;
    }
    scene.fabric.host(number).wait_no_route(address(1)).map(drop)
}

/// Which document is changed first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum First {
    /// It comes to the new host, as a live migration has it.
    Added,
    /// It leaves the old host: nobody announces the VM for a while.
    Removed,
}

/// VM 1 moves while VMs 2 and 3 talk to it.
fn moves(scene: &mut Scene, first: First, from: u8, to: u8) -> Result<()> {
    let streams = [scene.stream(2, 1, RATE)?, scene.stream(3, 1, RATE)?];
    let advance = || Stream::advance_all(&streams, STEP);
    advance()?;
    let target = Arc::clone(&scene.fabric.host(to).namespace);
    let begun = Instant::now();
    match first {
        First::Added => {
            scene.fabric.host(to).put_endpoint(&endpoint(1))?;
            scene.fabric.host(to).wait_state(&name(1), "pending")?;
            scene.guests[0].move_to(&target)?;
        }
        First::Removed => {
            scene.fabric.host(from).remove_endpoint(&name(1))?;
            scene.fabric.host(3).wait_no_route(address(1))?;
            scene.guests[0].move_to(&target)?;
            scene.fabric.host(to).put_endpoint(&endpoint(1))?;
        }
    }
    scene.fabric.host(to).wait_state(&name(1), "up")?;
    found(scene, to)?;
    println!("{first:?} first: all have found it after {} ms", begun.elapsed().as_millis());
    advance()?;
    if first == First::Added {
        scene.fabric.host(from).remove_endpoint(&name(1))?;
        scene.fabric.host(from).wait_status("VM 1 gone", |status| status.endpoint(&name(1)).is_none())?;
        found(scene, to)?;
        advance()?;
    }
    for (sender, account) in [2, 3].into_iter().zip(Stream::finish_all(streams)?) {
        let lost = account.sent - account.received;
        println!("{first:?} first, from VM {sender}: {account}: {lost} lost are as many ms");
        ensure!(account.duplicates == 0, "{account}");
        // Once all have found it, and while the old document goes, nothing is lost any more.
        account.ends_whole(STEP / 2)?;
    }
    let before = scene.fabric.host(to).endpoint(&name(1))?;
    scene.echoes(&scene.guest(1).namespace, address(3))?;
    let after = scene.fabric.host(to).endpoint(&name(1))?;
    ensure!(after.forwarded()? >= before.forwarded()? + u64::from(PINGS), "{before:?} -> {after:?}");
    Ok(())
}

#[test]
fn a_vm_that_moves_is_found_whichever_document_changes_first() -> Result<()> {
    require_rig!();
    let mut scene = mesh()?;
    // It stays where the other one was.
    let neighbour = running(scene.fabric.host(1), 4, Offloads::NONE)?;
    for other in [2, 3] {
        scene.fabric.host(other).wait_route(address(4))?;
    }
    let echoes = |scene: &Scene| {
        let others = [&scene.guest(2).namespace, &scene.guest(3).namespace, &neighbour.namespace];
        others.iter().try_for_each(|other| scene.echoes(other, address(1)))
    };
    moves(&mut scene, First::Added, 1, 2)?;
    echoes(&scene)?;
    moves(&mut scene, First::Removed, 2, 1)?;
    echoes(&scene)?;

    // It runs at host 2, and host 1 has still document and TAP, as of a hypervisor that has not cleaned up. Nobody can
    // tell which one is real: host 3 spreads over both, and host 1 believes itself.
    scene.guest(1).pause()?;
    let moved = running(scene.fabric.host(2), 1, Offloads::NONE)?;
    scene.fabric.host(3).wait_learnt(address(1), "by hosts 1 and 2", |route| {
        [1, 2].iter().all(|&number| route.contains(&format!("via {} ", host_address(number))))
    })?;
    ensure!(scene.fabric.host(1).learnt(address(1))?.is_empty());
    let begun = Instant::now();
    scene.fabric.host(1).remove_endpoint(&name(1))?;
    found(&scene, 2)?;
    println!("all have found it {} ms after the old document went", begun.elapsed().as_millis());
    echoes(&scene)?;
    let stream = Stream::start(&scene.guest(3).namespace, &moved.namespace, address(1), 7_000, RATE)?;
    stream.advance(STEP)?;
    stream.finish()?.complete()
}
