//! With whom this host speaks: BGPPeers first, then the configuration's peers, then the mesh. One session with a
//! neighbour: the first that names it has it.

use super::local::{Local, Other};
use super::names::{MESH, Names, PEER};
use super::{Findings, Reach, Session, Side};
use crate::config::{Bfd, PeerConfig};
use crate::resource::{BgpPeer, Hosts, InterfaceName, NextHop, Node, Remote};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};

pub(super) fn plan(local: &Local<'_>, findings: &mut Findings) -> Vec<Session> {
    let mut sessions = Sessions { local, names: Names::default(), known: BTreeMap::new() };
    for peer in local.resources.bgp_peers.values() {
        sessions.add_resource(peer, findings);
    }
    for peer in &local.config.peers {
        sessions.add_configured(peer, findings);
    }
    if local.in_mesh() {
        for other in local.others().filter(|other| other.cluster_id.is_none()) {
            sessions.add_mesh(&other);
        }
    }
    let mut sessions: Vec<Session> = sessions.known.into_values().collect();
    sessions.sort_by(|a, b| a.protocol.cmp(&b.protocol));
    sessions
}

struct Sessions<'a> {
    local: &'a Local<'a>,
    names: Names,
    known: BTreeMap<(Ipv6Addr, Option<InterfaceName>), Session>,
}

impl Sessions<'_> {
    fn add_resource(&mut self, peer: &BgpPeer, findings: &mut Findings) {
        let local = self.local;
        let own = local.resources.nodes.get(local.node);
        let we_have_it = match &peer.hosts {
            Hosts::All => true,
            Hosts::One(name) => name == local.node,
            Hosts::Chosen(selector) => own.is_some_and(|node| selector.matches(&node.labels)),
        };
        match &peer.remote {
            Remote::Router { address: IpAddr::V6(address), port, as_number } if we_have_it => {
                if local.address().is_some_and(|own| own.get() == *address) {
                    return;
                }
                let mut session = self.host_session(PEER, peer.name.clone(), *address);
                session.remote_as = *as_number;
                session.port = port.unwrap_or_else(|| self.port_of(*address));
                session.bfd = Bfd::Off;
                session.reflector_client = self.is_client(&session, None);
                let same_name = local.config.peers.iter().find(|configured| configured.name == peer.name);
                if let Some(configured) = same_name {
                    session.bfd = configured.bfd;
                    session.hold = configured.hold;
                    session.accept.clone_from(&configured.accept);
                    session.password.clone_from(&configured.password_file);
                    session.restart_time = configured.graceful_restart_time;
                }
                self.add(refine(session, peer, local));
            }
            Remote::Router { .. } => {}
            Remote::Hosts(remote) => {
                let chosen_as_remote = own.is_some_and(|node| remote.matches(&node.labels));
                let selected = |node: &Node| match &peer.hosts {
                    Hosts::All => true,
                    Hosts::One(name) => *name == node.name,
                    Hosts::Chosen(selector) => selector.matches(&node.labels),
                };
                for other in local.others() {
                    let forwards = we_have_it && remote.matches(&other.node.labels);
                    let backwards = peer.reverse && chosen_as_remote && selected(other.node);
                    if forwards || backwards {
                        let name = format!("{}/{}", peer.name, other.node.name);
                        let session = self.session_with(&other, PEER, name);
                        self.add(refine(session, peer, local));
                    }
                }
            }
        }
        if let Some(configured) = self.overridden(peer) {
            findings.notes.push(format!(
                "peer `{configured}` of the configuration has the address of BGPPeer {}, which counts",
                peer.name
            ));
        }
    }

    /// The configured peer of another name whose neighbour a BGPPeer has taken.
    fn overridden(&self, peer: &BgpPeer) -> Option<&str> {
        let Remote::Router { address: IpAddr::V6(address), .. } = peer.remote else { return None };
        let taken = self.known.get(&(address, None)).is_some_and(|session| session.name == peer.name);
        let configured = self.local.config.peers.iter().find(|configured| {
            taken
                && configured.name != peer.name
                && (configured.address, &configured.interface) == (address, &None)
        });
        configured.map(|configured| configured.name.as_str())
    }

    fn add_configured(&mut self, peer: &PeerConfig, findings: &mut Findings) {
        let local = self.local;
        if local.resources.bgp_peers.contains_key(&peer.name) {
            return;
        }
        let local_as = peer.local_as.unwrap_or_else(|| local.as_number());
        let remote_as = peer.as_number.unwrap_or_else(|| local.as_number());
        let internal = remote_as == local_as;
        let reach = match peer.multihop {
            Some(hops) => Reach::Multihop(Some(hops)),
            None if internal && peer.interface.is_none() => Reach::Multihop(None),
            None => Reach::Direct,
        };
        // On a link of ours the address of that link is right, and BIRD knows it.
        let source = peer.source.or_else(|| local.address().filter(|_| matches!(reach, Reach::Multihop(_))));
        if peer.reflector_client && local.cluster_id().is_none() {
            findings.notes.push(format!(
                "peer `{}` is no reflector client without a cluster_id of ours; set bird.cluster_id",
                peer.name
            ));
        }
        if peer.reflector_client && !internal {
            findings.notes.push(format!("peer `{}` is of another AS, and so no reflector client", peer.name));
        }
        let session = Session {
            protocol: self.names.symbol(PEER, &peer.name),
            name: peer.name.clone(),
            side: if internal { Side::Inside } else { Side::Outside },
            neighbour: peer.address,
            interface: peer.interface.clone(),
            port: peer.port,
            remote_as,
            local_as,
            source,
            passive: peer.passive,
            reach,
            ttl_security: peer.ttl_security,
            password: peer.password_file.clone(),
            bfd: peer.bfd,
            reflector_client: peer.reflector_client && internal && local.cluster_id().is_some(),
            next_hop: peer.next_hop,
            allow_local_as: peer.allow_local_as,
            hold: peer.hold,
            restart_time: peer.graceful_restart_time,
            accept: peer.accept.clone(),
        };
        self.add(session);
    }

    fn add_mesh(&mut self, other: &Other<'_>) {
        if self.known.contains_key(&(other.address.get(), None)) {
            return;
        }
        let session = self.session_with(other, MESH, other.node.name.clone());
        self.add(Session {
            password: self.local.mesh_password(),
            restart_time: self.local.mesh_restart_time(),
            ..session
        });
    }

    /// A session with a host, as both ends make it of the same resources.
    fn session_with(&mut self, other: &Other<'_>, prefix: &str, name: String) -> Session {
        let mut session = self.host_session(prefix, name, other.address.get());
        session.remote_as = other.as_number;
        session.port = other.port;
        session.reflector_client = self.is_client(&session, other.cluster_id);
        // One end connects and the other waits, so that no two connections collide: as Calico has it, by the addresses
        // as texts.
        session.passive = self
            .local
            .address()
            .is_some_and(|own| other.address != own && other.address.to_string() > own.to_string());
        session
    }

    fn host_session(&mut self, prefix: &str, name: String, neighbour: Ipv6Addr) -> Session {
        let local = self.local;
        Session {
            protocol: self.names.symbol(prefix, &name),
            name,
            side: Side::Inside,
            neighbour,
            interface: None,
            port: local.config.port,
            remote_as: local.as_number(),
            local_as: local.as_number(),
            source: local.address(),
            passive: false,
            reach: Reach::Multihop(None),
            ttl_security: false,
            password: None,
            bfd: local.config.mesh.bfd,
            reflector_client: false,
            next_hop: NextHop::Standard,
            allow_local_as: 0,
            hold: local.config.mesh.hold,
            restart_time: None,
            accept: Vec::new(),
        }
    }

    /// A reflector serves neighbours of its AS that are not reflectors of its own cluster.
    fn is_client(&self, session: &Session, cluster: Option<crate::resource::BgpId>) -> bool {
        let own = self.local.cluster_id();
        own.is_some() && session.internal() && cluster != own
    }

    /// Where the host with this address listens; a router listens at the usual port.
    fn port_of(&self, address: Ipv6Addr) -> u16 {
        self.local.others().find(|other| other.address.get() == address).map_or(179, |other| other.port)
    }

    fn add(&mut self, session: Session) {
        let own = self.local.address().is_some_and(|own| own.get() == session.neighbour);
        if !own {
            self.known.entry((session.neighbour, session.interface.clone())).or_insert(session);
        }
    }
}

/// What a BGPPeer says of its sessions.
fn refine(session: Session, peer: &BgpPeer, local: &Local<'_>) -> Session {
    let local_as = peer.local_as.unwrap_or(session.local_as);
    let router = matches!(peer.remote, Remote::Router { .. });
    Session {
        side: if router && session.remote_as != local_as { Side::Outside } else { Side::Inside },
        local_as,
        source: session.source.filter(|_| peer.source_is_node),
        reach: Reach::Multihop(peer.ttl_security),
        ttl_security: peer.ttl_security.is_some(),
        password: peer.password.as_ref().map(|key| local.secret(key)).or(session.password),
        reflector_client: session.reflector_client && session.remote_as == local_as,
        next_hop: peer.next_hop,
        allow_local_as: peer.allow_local_as.unwrap_or(session.allow_local_as),
        hold: peer.keepalive.map_or(session.hold, |keepalive| keepalive.saturating_mul(3).max(3)),
        restart_time: peer.restart_time.or(session.restart_time),
        ..session
    }
}
