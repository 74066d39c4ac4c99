//! BIRD beside the endpoints: it is brought to its plan whenever the resources have changed, and asked for `status`.

use crate::apply::bird::{Bird, BirdStatus, Retired, Settings, leave};
use crate::cause::in_one_line;
use crate::config::Config;
use crate::plan::Conflict;
use crate::plan::bird::{self, BirdPlan};
use crate::resource::Resources;
use crate::status::Status;
use std::net::Ipv6Addr;
use std::path::PathBuf;
use std::time::Duration;

/// How long to wait before trying once more to end a BIRD.
const PAUSE: Duration = Duration::from_secs(10);

/// BIRD, if the configuration has a section for it.
pub struct Routing {
    bird: Option<Bird>,
    plan: Option<BirdPlan>,
}

impl Routing {
    /// Begins to look after BIRD, within a tokio runtime.
    pub fn open(config: &Config) -> Self {
        let bird = config.bird.as_ref().map(|bird| Bird::spawn(Settings::of(bird, &config.paths.run)));
        if bird.is_none() {
            tokio::spawn(give_up(config.paths.run.clone()));
        }
        Self { bird, plan: None }
    }

    /// Plans again; BIRD follows in its own time, and says in `status` what became of it.
    pub fn replan(&mut self, config: &Config, resources: &Resources) {
        let (Some(bird), Some(section)) = (&self.bird, &config.bird) else { return };
        let host = bird::Host { node: &config.node, tap_prefix: &config.tap_prefix };
        let plan = bird::plan(section, host, resources);
        if self.plan.as_ref() == Some(&plan) {
            return;
        }
        for conflict in &plan.conflicts {
            tracing::warn!("{conflict}");
        }
        let (bird, wanted) = (bird.clone(), plan.clone());
        self.plan = Some(plan);
        tokio::spawn(async move {
            if let Err(error) = bird.apply(&wanted).await {
                tracing::error!("BIRD: {error}");
            }
        });
    }

    /// Addresses of endpoints that BIRD is not to announce.
    fn unannounced(&self, status: &Status) -> Vec<Ipv6Addr> {
        let Some(plan) = &self.plan else { return Vec::new() };
        let announced = |address: &Ipv6Addr| plan.networks.iter().any(|network| network.contains(address));
        let all = status.endpoints.iter().flat_map(|endpoint| endpoint.addresses.iter().copied());
        all.filter(|address| !announced(address)).collect()
    }

    /// Where resources of BGP contradict each other.
    pub fn conflicts(&self) -> &[Conflict] {
        self.plan.as_ref().map_or(&[], |plan| &plan.conflicts)
    }

    /// What BIRD says, which may take a moment; `None` when the configuration has no section for it.
    pub fn status(&self) -> impl Future<Output = Option<BirdStatus>> + Send + use<> {
        let bird = self.bird.clone();
        async move {
            match bird {
                Some(bird) => Some(bird.status().await),
                None => None,
            }
        }
    }

    /// Adds what BIRD says to a status, which may take a moment: not for the main loop to wait for.
    pub fn complete(&self, mut status: Status) -> impl Future<Output = Status> + Send + use<> {
        let bird = self.status();
        let unannounced = self.unannounced(&status);
        async move {
            if let Some(told) = bird.await {
                let told = BirdStatus { unannounced, ..told };
                status.drift += told.kernel.as_ref().map_or(0, |kernel| kernel.drift);
                status.bird = Some(told);
            }
            status
        }
    }
}

/// The configuration has no section for BIRD: one that an earlier daemon has started must not go on announcing.
async fn give_up(run: PathBuf) {
    loop {
        match leave(&run).await {
            Ok(Retired::Nothing) => return,
            Ok(retired) => {
                tracing::info!("{retired}");
                return;
            }
            Err(error) => tracing::warn!(
                "a BIRD of an earlier configuration may still announce this host's VMs: {}; trying again in {} s",
                in_one_line(&error),
                PAUSE.as_secs()
            ),
        }
        tokio::time::sleep(PAUSE).await;
    }
}
