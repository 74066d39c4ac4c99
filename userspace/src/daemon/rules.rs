//! The guard and the policy as nftables rules, for as long as there is no fast path: there before the hooks go, and gone
//! only when all hooks are back.

use super::LAST_GOOD;
use crate::apply::links;
use crate::apply::nftables::{Nftables, NftablesError};
use crate::cause::in_one_line;
use crate::config::{Config, EndpointToHost, HostToEndpoint};
use crate::plan::nftables::{Settings, ruleset};
use crate::plan::policy::{Policies, policies};
use crate::plan::{self, Plan};
use crate::source;
use anyhow::Context;

/// Why a detach does not happen.
const STAYS: &str = "the fast path stays on, as nothing would guard VMs' hosts and neighbours without it";

/// The rules: guard, limits, and policy if that counts.
#[derive(Debug, Default)]
pub struct Rules {
    nftables: Nftables,
    /// There may be a table of ours.
    there: bool,
    /// Why the rules are not as they should be.
    fault: Option<String>,
}

impl Rules {
    /// Nothing is known yet of what an earlier daemon left.
    pub fn new() -> Self {
        Self { there: true, ..Self::default() }
    }

    /// Has the rules say what policies and plan say; whether somebody judges now as the configuration wants. Comes before
    /// TAPs are opened.
    pub fn keep(&mut self, config: &Config, policies: &Policies, plan: &Plan) -> bool {
        self.apply(config, policies, plan).is_ok()
    }

    /// The same, before hooks go, which stay where it fails.
    pub fn replace_hooks(&mut self, config: &Config, policies: &Policies, plan: &Plan) -> anyhow::Result<()> {
        self.apply(config, policies, plan).context(STAYS)
    }

    fn apply(&mut self, config: &Config, policies: &Policies, plan: &Plan) -> Result<(), NftablesError> {
        self.there = true;
        let policies = config.policy.enforce.then_some(policies);
        let settings = Settings {
            tap_prefix: &config.tap_prefix,
            host_is_open: config.policy.endpoint_to_host == EndpointToHost::Accept,
            host_is_judged: config.policy.host_to_endpoint == HostToEndpoint::Policy,
            limits: &config.limits,
        };
        let outcome = self.nftables.apply(&ruleset(policies, plan, settings));
        self.note(outcome.as_ref().err());
        outcome.map(drop)
    }

    /// The hooks are all there again, and judge.
    pub fn remove(&mut self) {
        if !self.there {
            return;
        }
        match self.nftables.remove() {
            Ok(removed) => {
                self.there = false;
                self.fault = None;
                if removed {
                    tracing::info!("the nftables rules that stood in for the fast path are gone");
                }
            }
            // It is tried again when next there is nothing else to do.
            Err(error) => self.note(Some(&error)),
        }
    }

    /// Repairs what others changed; how many times.
    pub fn audit(&mut self) -> usize {
        match self.nftables.verify() {
            Ok(repaired) => usize::from(repaired),
            Err(error) => {
                self.note(Some(&error));
                0
            }
        }
    }

    /// Why the rules are not as they should be, and what to do.
    pub fn fault(&self) -> Option<String> {
        self.fault.clone()
    }

    fn note(&mut self, error: Option<&NftablesError>) {
        let fault =
            error.map(|error| format!("guard and policy without the fast path: {}", in_one_line(error)));
        if let Some(fault) = fault.as_ref().filter(|fault| self.fault.as_ref() != Some(fault)) {
            tracing::error!("{fault}");
        }
        self.fault = fault;
    }
}

/// Writes the rules where no daemon runs that would: from the documents as they are, or last were without a mistake.
pub async fn write(config: &Config) -> anyhow::Result<()> {
    let watch = source::Watch::resume(&config.resources.directory, &config.paths.run.join(LAST_GOOD));
    let resources = &watch.snapshot().resources;
    let links = links::Watch::open().await?;
    let settings = plan::Settings { node: &config.node, tap_prefix: &config.tap_prefix };
    let plan = plan::plan(resources, links.facts(), settings);
    let policies = policies(resources, &config.node, config.policy.into());
    Rules::new().replace_hooks(config, &policies, &plan)
}
