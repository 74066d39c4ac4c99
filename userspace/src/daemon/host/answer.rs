//! What control clients are told and may have done: at once, or by a task of its own where that takes longer.

use super::Host;
use crate::cause::in_one_line;
use crate::config::{Config, EndpointToHost};
use crate::daemon::compare::{self, Present};
use crate::daemon::explain::rules::Judged;
use crate::daemon::explain::{self, Knowledge};
use crate::serve::Server;
use crate::serve::control::{Reply, Verb};
use crate::status::{ExplainQuery, RoutesQuery, RoutesReport, Selection};
use std::collections::BTreeSet;
use std::net::Ipv6Addr;
use std::path::PathBuf;
use tokio::sync::oneshot;

impl Host {
    /// Answers a control client, at once, or as soon as BIRD has said its part or all routes are collected.
    pub fn answer(&mut self, verb: Verb, client: oneshot::Sender<Reply>, server: &Server) {
        let reply = match verb {
            Verb::Status => {
                let status = self.routing.complete(self.status(server));
                tokio::spawn(async move { send(client, reply(&status.await)) });
                return;
            }
            Verb::Routes(query) => {
                self.tell_routes(query, client);
                return;
            }
            Verb::Explain(query) => {
                self.explain(&query, client);
                return;
            }
            Verb::Compare { directory } => {
                self.compare(directory, client);
                return;
            }
            Verb::Monitor(_) => Reply::Error("whoever listens is served elsewhere".to_owned()),
            Verb::Endpoints => reply(&self.details(server)),
            Verb::Detach => match self.detach() {
                Ok(detached) => reply(&detached),
                Err(error) => Reply::Error(in_one_line(error.as_ref())),
            },
        };
        send(client, reply);
    }

    /// Sends a control client routes and who speaks for them, as soon as they are collected.
    fn tell_routes(&self, query: RoutesQuery, client: oneshot::Sender<Reply>) {
        let report = self.uplinks.report(query);
        let bird = self.routing.status();
        tokio::spawn(async move {
            let reply = match report {
                Ok(report) => match report.await {
                    Ok(routes) => reply(&RoutesReport { bird: bird.await, ..routes }),
                    Err(_) => Reply::Error("routes are not followed any more; restart the daemon".to_owned()),
                },
                Err(reason) => Reply::Error(reason),
            };
            send(client, reply);
        });
    }

    /// Tells a control client what would become of a packet, as soon as the programs have been asked.
    fn explain(&self, query: &ExplainQuery, client: oneshot::Sender<Reply>) {
        let prepared = match &self.fast_path {
            Err(_) => return self.explain_rules(query, client),
            Ok(fast_path) => {
                let uplinks =
                    self.uplinks.applied().map(|(ifindex, uplink)| (ifindex, uplink.clone())).collect();
                let resources = &self.snapshot.resources;
                explain::prepare(query, &Knowledge { resources, plan: &self.plan, fast_path, uplinks })
            }
        };
        let prepared = match prepared {
            Ok(prepared) => prepared,
            Err(message) => return send(client, Reply::Error(message)),
        };
        let chains = self.policing.chains(prepared.endpoints());
        let selection = Selection::Towards(prepared.destination());
        let route = self.uplinks.report(RoutesQuery { selection, limit: Some(1) });
        tokio::spawn(async move {
            let route = match route {
                Ok(report) => report.await.ok().and_then(|report| report.routes.into_iter().next()),
                Err(_) => None,
            };
            let reply = match tokio::task::spawn_blocking(move || prepared.run()).await {
                Ok(Ok(shown)) => reply(&shown.explain(route, &chains)),
                Ok(Err(error)) => Reply::Error(in_one_line(&error)),
                Err(error) => Reply::Error(format!("the programs could not be asked: {error}")),
            };
            send(client, reply);
        });
    }

    /// The same where rules of nftables judge in place of the programs.
    fn explain_rules(&self, query: &ExplainQuery, client: oneshot::Sender<Reply>) {
        if let Some(fault) = self.rules.fault() {
            return send(client, Reply::Error(fault));
        }
        let Config { policy, .. } = &self.config;
        let judged = Judged {
            resources: self.snapshot.resources.clone(),
            plan: self.plan.clone(),
            policies: policy.enforce.then(|| self.policing.policies().clone()),
            host: own_addresses(),
            host_is_open: policy.endpoint_to_host == EndpointToHost::Accept,
        };
        let query = query.clone();
        tokio::spawn(async move {
            let reply = match tokio::task::spawn_blocking(move || judged.explain(&query)).await {
                Ok(Ok(explanation)) => reply(&explanation),
                Ok(Err(message)) => Reply::Error(message),
                Err(error) => Reply::Error(format!("policy could not be asked: {error}")),
            };
            send(client, reply);
        });
    }

    /// Tells a control client what a directory of resources would change, as soon as it is read and planned.
    fn compare(&self, directory: PathBuf, client: oneshot::Sender<Reply>) {
        if !self.known {
            let message = "the resources that count are not known yet".to_owned();
            return send(client, Reply::Error(message));
        }
        let present = Present {
            config: self.config.clone(),
            facts: self.facts.clone(),
            resources: self.snapshot.resources.clone(),
        };
        tokio::spawn(async move {
            let compared = tokio::task::spawn_blocking(move || compare::compare(&present, &directory));
            let reply = match compared.await {
                Ok(Ok(comparison)) => reply(&comparison),
                Ok(Err(message)) => Reply::Error(message),
                Err(error) => Reply::Error(format!("it could not be compared: {error}")),
            };
            send(client, reply);
        });
    }
}

/// The host's own addresses; without them, only those of VMs' routers are known as such.
fn own_addresses() -> BTreeSet<Ipv6Addr> {
    let all = nix::ifaddrs::getifaddrs().inspect_err(|error| {
        tracing::warn!("the host's own addresses cannot be listed: {error}");
    });
    let addresses = all.into_iter().flatten().filter_map(|interface| interface.address);
    addresses.filter_map(|address| Some(address.as_sockaddr_in6()?.ip())).collect()
}

fn reply(answer: &impl serde::Serialize) -> Reply {
    serde_json::to_value(answer).map_or_else(|error| Reply::Error(format!("no answer: {error}")), Reply::Ok)
}

fn send(client: oneshot::Sender<Reply>, reply: Reply) {
    if client.send(reply).is_err() {
        tracing::debug!("a control client left before its answer");
    }
}
