//! What control clients are told and may have done: at once, or by a task of its own where that takes longer.

use super::Host;
use crate::apply::fastpath::FastPathError;
use crate::cause::in_one_line;
use crate::config::{Config, EndpointToHost, HostToEndpoint};
use crate::daemon::compare::{self, Present};
use crate::daemon::explain::rules::Judged;
use crate::daemon::explain::{self, Knowledge};
use crate::daemon::report::{self, Evidence};
use crate::plan::{Attached, EndpointPlan};
use crate::resource::EndpointName;
use crate::serve::Server;
use crate::serve::control::{Reply, Verb};
use crate::status::{
    self, EndpointDetail, ExplainQuery, FastPathState, FastPathStatus, RoutesQuery, RoutesReport, Selection,
    Status,
};
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
            host_is_judged: policy.host_to_endpoint == HostToEndpoint::Policy,
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

    fn status(&self, server: &Server) -> Status {
        let fast_path = match &self.fast_path {
            Ok(_) => FastPathStatus { state: FastPathState::On, reason: None },
            Err(status) => status.clone(),
        };
        let on = self.fast_path.is_ok();
        let conflicts = [&self.plan.conflicts, self.routing.conflicts()].concat();
        let routes = self.uplinks.routes();
        Status {
            node: self.config.node.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ready: self.ready,
            faults: self
                .host_fault
                .iter()
                .cloned()
                .chain(server.problems())
                .chain(self.policing.fault())
                .chain(self.rules.fault())
                .collect(),
            fast_path,
            endpoints: self
                .plan
                .endpoints
                .iter()
                .map(|(name, plan)| report::status(name, plan, on, &self.evidence(name, plan, server)))
                .collect(),
            blocked: self.plan.blocked.values().map(ToString::to_string).collect(),
            policies: self.policing.counted(),
            problems: status::problems(&self.snapshot, &conflicts),
            bird: None,
            uplinks: self.uplinks.status(),
            drift: self.drift + routes.as_ref().map_or(0, |routes| routes.drift),
            routes,
        }
    }

    fn details(&self, server: &Server) -> Vec<EndpointDetail> {
        let on = self.fast_path.is_ok();
        let endpoints = self.plan.endpoints.iter();
        let detail = |(name, plan)| report::detail(name, plan, on, &self.evidence(name, plan, server));
        endpoints.map(detail).collect()
    }

    fn evidence(&self, name: &EndpointName, plan: &EndpointPlan, server: &Server) -> Evidence<'_> {
        let policy = self.policing.of(name);
        let EndpointPlan::Attached(attached) = plan else {
            return Evidence { policy, ..Evidence::default() };
        };
        let fast_path = self.fast_path.as_ref().ok();
        fn read<T>(attached: &Attached, read: Result<Option<T>, FastPathError>) -> Option<T> {
            read.unwrap_or_else(|error| {
                tracing::warn!("{}: {}", attached.interface, in_one_line(&error));
                None
            })
        }
        let counters = fast_path.and_then(|path| read(attached, path.counters(attached.ifindex)));
        let pressure = fast_path.and_then(|path| read(attached, path.flow_pressure(attached.ifindex)));
        Evidence {
            entry: self.ledger.get(attached.ifindex),
            counters: counters.unwrap_or_default(),
            flow_pressure: pressure.unwrap_or_default(),
            served: server.stats(attached.ifindex).unwrap_or_default(),
            policy,
        }
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
