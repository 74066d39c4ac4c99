//! Policy in the daemon: compiled when resources change, and in the maps before a TAP is opened.

use crate::apply::fastpath::FastPath;
use crate::apply::policy::{Counted, PolicyPath};
use crate::cause::in_one_line;
use crate::config::PolicyConfig;
use crate::plan::Plan;
use crate::plan::policy::{Chain, Direction, Origin, Policies, policies};
use crate::resource::{EndpointName, Resources};
use crate::status::{RuleCount, RuleName};
use std::collections::BTreeMap;
use std::time::Instant;

/// Policy, if it counts.
pub struct Policing {
    config: PolicyConfig,
    /// What the resources say.
    policies: Policies,
    /// The maps; `None` without a fast path.
    path: Option<PolicyPath>,
    /// `policies` has to be written.
    news: bool,
    /// Why the maps are not as they should be.
    fault: Option<String>,
}

/// What policy says about an endpoint, for `status`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PolicyReport {
    /// The policies that are about it, in order.
    pub applied: Vec<String>,
    /// Why it is not as they say.
    pub fault: Option<String>,
}

impl Policing {
    /// Nothing is known yet.
    pub fn new(config: PolicyConfig) -> Self {
        Self { config, policies: Policies::default(), path: None, news: true, fault: None }
    }

    /// There is a fast path.
    pub fn open(&mut self, fast_path: &mut FastPath) {
        self.path = fast_path.take_policy().map(PolicyPath::open);
        self.news = true;
    }

    /// The fast path ends.
    pub fn stop(&mut self) {
        self.path = None;
        self.fault = None;
    }

    /// The resources changed.
    pub fn see_resources(&mut self, resources: &Resources, node: &str) {
        if !self.config.enforce {
            return;
        }
        let now = policies(resources, node, self.config.into());
        for (name, policy) in &now.endpoints {
            let before = self.policies.endpoints.get(name).and_then(|policy| policy.fault.as_ref());
            if let Some(fault) = policy.fault.as_ref().filter(|fault| before != Some(fault)) {
                tracing::error!("WorkloadEndpoint {name}: {fault}");
            }
        }
        self.news |= now != self.policies;
        self.policies = now;
    }

    /// What the resources say.
    pub fn policies(&self) -> &Policies {
        &self.policies
    }

    /// Brings the maps to what resources and TAPs say. Comes before a TAP is opened.
    pub fn apply(&mut self, plan: &Plan) {
        let Some(path) = &mut self.path else { return };
        let attached: BTreeMap<u32, EndpointName> =
            plan.attached().map(|(name, attached)| (attached.ifindex, name.clone())).collect();
        let outcome = if self.news {
            path.set_policies(&self.policies, &attached)
        } else {
            path.set_endpoints(&attached)
        };
        match outcome {
            Ok(written) => {
                self.news = false;
                self.fault = None;
                tracing::debug!("policy: {written} entries written");
            }
            Err(error) => {
                // Until it works, everything is tried again.
                self.news = true;
                let fault = in_one_line(&error);
                if self.fault.as_ref() != Some(&fault) {
                    tracing::error!("policy stays as it was: {fault}");
                }
                self.fault = Some(fault);
            }
        }
    }

    /// When [`collect`](Self::collect) has something to do.
    pub fn wake(&self) -> Option<Instant> {
        self.path.as_ref().and_then(PolicyPath::wake)
    }

    /// Removes what an earlier policy left in the maps.
    pub fn collect(&mut self) {
        if let Some(path) = &mut self.path
            && let Err(error) = path.collect(Instant::now())
        {
            tracing::warn!("what is left of an earlier policy stays: {}", in_one_line(&error));
            self.news = true;
        }
    }

    /// Repairs what others changed in the maps; how many entries.
    pub fn audit(&mut self, plan: &Plan) -> usize {
        if self.news {
            self.apply(plan);
        }
        let Some(path) = &mut self.path else { return 0 };
        path.verify().unwrap_or_else(|error| {
            tracing::warn!("cannot verify policy: {}", in_one_line(&error));
            self.news = true;
            0
        })
    }

    /// Where a step of a chain comes from, and which way the packets go.
    pub fn step(&self, chain: u32, step: u32) -> Option<(Direction, Origin)> {
        self.path.as_ref()?.step(chain, step)
    }

    /// The chains of these endpoints, by the numbers that events have.
    pub fn chains<'a>(
        &self,
        endpoints: impl IntoIterator<Item = &'a EndpointName>,
    ) -> BTreeMap<u32, (Direction, Chain)> {
        let path = self.path.as_ref();
        endpoints
            .into_iter()
            .flat_map(|name| path.into_iter().flat_map(move |path| path.chains(name)))
            .collect()
    }

    /// What each rule did so far; nothing when policy is not in the maps.
    pub fn counted(&self) -> Vec<RuleCount> {
        let Some(path) = &self.path else { return Vec::new() };
        let counted = path.counted().unwrap_or_else(|error| {
            tracing::warn!("rules: {}", in_one_line(&error));
            Vec::new()
        });
        counted
            .into_iter()
            .map(|(direction, origin, Counted { allows, packets })| RuleCount {
                rule: RuleName::new(direction, &origin),
                allowed: allows.then_some(packets),
                denied: (!allows).then_some(packets),
            })
            .collect()
    }

    /// Why policy as a whole is not as the resources say.
    pub fn fault(&self) -> Option<String> {
        self.fault.as_ref().map(|fault| format!("policy stays as it was: {fault}"))
    }

    /// What policy says about an endpoint; `None` when it does not count.
    pub fn of(&self, name: &EndpointName) -> Option<PolicyReport> {
        let policy = self.policies.endpoints.get(name).filter(|_| self.config.enforce)?;
        Some(PolicyReport {
            applied: policy.applied.iter().map(ToString::to_string).collect(),
            fault: policy.fault.clone(),
        })
    }
}
