//! Two route reflectors in place of a mesh, as Calico's resources have it, which win over the hosts' configuration.

use anyhow::{Result, ensure};
use serval_tests::bgp::{node, share};
use serval_tests::cloud::{address, running};
use serval_tests::fabric::{Fabric, host_address};
use serval_tests::host::{bgp_event, session};
use serval_tests::require_rig;
use serval_tests::scene::Scene;
use serval_tests::stream::Stream;
use serval_tests::tap::Offloads;

/// Hosts 1 to 3 are clients of hosts 4 and 5.
const CLIENTS: [u8; 3] = [1, 2, 3];
const REFLECTORS: [u8; 2] = [4, 5];

/// What all hosts are given. A reflector that is silent for six seconds is dead.
fn resources(fabric: &Fabric) -> String {
    let clients = CLIENTS.iter().map(|&number| node(fabric.host(number), number, "", ""));
    let reflectors = REFLECTORS.iter().map(|&number| {
        node(fabric.host(number), number, "reflector: 'yes'", ", routeReflectorClusterID: 192.0.2.250")
    });
    let peering = "---
apiVersion: projectcalico.org/v3
kind: BGPConfiguration
metadata: { name: default }
spec: { asNumber: 64599, nodeToNodeMeshEnabled: false }
---
apiVersion: projectcalico.org/v3
kind: BGPPeer
metadata: { name: rr }
spec: { nodeSelector: all(), peerSelector: has(reflector), keepaliveTime: 2s }
";
    clients.chain(reflectors).chain([peering.to_owned()]).collect()
}

fn name_of(scene: &Scene, reflector: u8) -> String {
    format!("rr/{}", scene.fabric.host(reflector).node())
}

#[test]
fn one_of_two_reflectors_dies_and_nothing_is_lost() -> Result<()> {
    require_rig!();
    let mut fabric = Fabric::new("rr", 5)?;
    // The resources say otherwise, and win.
    share(&fabric, "[bird]\nas = 64512\nmesh.enabled = true", &resources(&fabric))?;
    fabric.start()?;
    let mut scene = Scene::populate(fabric, 3, Offloads::NONE)?;
    for at in CLIENTS {
        for to in CLIENTS.into_iter().filter(|&to| to != at) {
            // From VM to VM, not by way of a reflector.
            scene.fabric.host(at).wait_learnt(address(to), "by its host", |route| {
                route.contains(&format!("via {}", host_address(to)))
            })?;
            scene.settle(at, address(to))?;
        }
        let names = REFLECTORS.map(|reflector| name_of(&scene, reflector));
        scene.fabric.host(at).wait_bird("both reflectors, and nobody else", |bird| {
            bird["peers"].as_array().is_some_and(|peers| peers.len() == 2)
                && names.iter().all(|name| {
                    session(bird, name).is_some_and(|peer| {
                        (&peer["as"], &peer["state"], &peer["imported"])
                            == (&64_599.into(), &"established".into(), &2.into())
                    })
                })
        })?;
    }
    let streams = [scene.stream(1, 2, 500)?, scene.stream(2, 3, 500)?, scene.stream(3, 1, 500)?];
    let advance = || Stream::advance_all(&streams, 250);
    advance()?;

    // A connection that is reset costs nothing: the other reflector knows the same.
    let since = |scene: &Scene| -> Result<_> {
        Ok(session(&scene.fabric.host(2).bird()?, &name_of(scene, 5)).map(|peer| peer["since"].clone()))
    };
    let before = since(&scene)?;
    let reset = format!("ss --kill --tcp state established dst [{}]", host_address(5));
    scene.fabric.host(2).namespace.run(&reset)?;
    bgp_event("another session", || Ok(since(&scene)? != before))?;
    scene.fabric.host(2).wait_session(&name_of(&scene, 5))?;
    advance()?;

    // A reflector dies as a whole.
    scene.fabric.silence(4)?;
    scene.fabric.host_mut(4).kill()?;
    scene.fabric.host(4).crash_bird()?;
    let dead = name_of(&scene, 4);
    for at in CLIENTS {
        scene.fabric.host(at).wait_bird("one reflector less", |bird| {
            session(bird, &dead).is_some_and(|peer| peer["state"] != "established")
        })?;
    }
    advance()?;
    // What comes later comes by way of the other one.
    let _late = running(scene.fabric.host(1), 6, Offloads::ALL)?;
    for at in [2, 3] {
        let took = scene.fabric.host(at).wait_route(address(6))?;
        println!("host {at} has learnt a VM from the other reflector after {} ms", took.as_millis());
    }
    scene.fabric.host(1).remove_endpoint(&serval_tests::cloud::name(6))?;
    scene.fabric.host(2).wait_no_route(address(6))?;
    for account in Stream::finish_all(streams)? {
        println!("a session reset, a reflector dead: {account}");
        account.complete()?;
    }
    for (from, to) in [(1, 3), (2, 1)] {
        scene.converse(from, to)?;
    }
    ensure!(scene.fabric.host(3).all_learnt()?.len() == 2, "{:?}", scene.fabric.host(3).all_learnt()?);
    Ok(())
}
