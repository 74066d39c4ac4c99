//! The task that looks after BIRD: takes plans, notices when BIRD ends or is reconfigured by others, tries again what
//! failed.

use super::control::{Connection, ControlError};
use super::error::BirdError;
use super::files::{Files, group_of};
use super::program::{Program, dialect};
use super::report::{Report, Trouble};
use super::{Applied, Mode, Retired, Settings, inputs, load, process, retire};
use crate::cause::in_one_line;
use crate::plan::bird::{BirdPlan, Inputs, render};
use std::path::PathBuf;
use std::time::Duration;
use tokio::process::Child;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};

/// How often everything is looked at although nothing was heard: BIRD does not tell when others reconfigure it, and
/// password files are not watched.
const AUDIT: Duration = Duration::from_secs(10);

/// Pauses before trying again, from the first to the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));

/// Pause before looking again for a BIRD that the system is to start.
const ABSENCE: Duration = Duration::from_millis(500);

/// A BIRD that has run for so long has not died of its start.
const STEADY: Duration = Duration::from_secs(10);

/// How long BIRD may take from its start to its first answer.
const START: Duration = Duration::from_secs(10);

/// How often to look whether it answers.
const LOOK: Duration = Duration::from_millis(10);

/// A plan to bring BIRD to, and who wants to know what came of it.
#[derive(Debug)]
pub(super) struct Request {
    pub plan: Box<BirdPlan>,
    pub answer: oneshot::Sender<Result<Applied, BirdError>>,
}

pub(super) struct Supervisor {
    settings: Settings,
    files: Files,
    socket: PathBuf,
    desired: Option<Box<BirdPlan>>,
    known: Inputs,
    child: Option<Child>,
    /// An idle connection: its end is how we see that BIRD has ended, whoever its parent is.
    link: Option<Connection>,
    /// When BIRD was last started by us.
    started: Option<Instant>,
    /// It has run: a start is one more, from then on.
    has_run: bool,
    /// The pause after the next failure.
    pause: Duration,
    publish: watch::Sender<Report>,
}

impl Supervisor {
    pub fn new(settings: Settings, publish: watch::Sender<Report>) -> Self {
        Self {
            files: Files::of(&settings.run),
            socket: settings.socket(),
            settings,
            desired: None,
            known: Inputs::default(),
            child: None,
            link: None,
            started: None,
            has_run: false,
            pause: PAUSES.0,
            publish,
        }
    }

    /// Works until nobody can ask any more.
    pub async fn run(mut self, mut requests: mpsc::Receiver<Request>) {
        if let Mode::Attach { .. } = self.settings.mode {
            self.give_way().await;
        }
        let mut next = Instant::now() + AUDIT;
        loop {
            let mut answer = None;
            tokio::select! {
                request = requests.recv() => match request {
                    Some(request) => {
                        self.desired = Some(request.plan);
                        answer = Some(request.answer);
                    }
                    None => return,
                },
                () = ended(&mut self.link) => {
                    self.link = None;
                    self.mourn().await;
                    next = Instant::now() + self.delay_after_death();
                    continue;
                }
                () = sleep_until(next), if self.desired.is_some() => {}
            }
            let outcome = self.reconcile().await;
            next = Instant::now() + self.pause_after(&outcome);
            if self.link.is_none() {
                self.link = Connection::open(&self.socket).await.ok();
                self.has_run |= self.link.is_some();
            }
            self.tell(&outcome);
            if let Some(Err(_)) = answer.map(|answer| answer.send(outcome)) {
                tracing::debug!("nobody waits for what came of a plan for BIRD");
            }
        }
    }

    /// A BIRD of our own, from when the configuration was another, must not stand beside the system's.
    async fn give_way(&self) {
        match retire(&self.settings.run).await {
            Ok(Retired::Nothing) => {}
            Ok(retired) => tracing::info!("{retired}"),
            Err(error) => {
                tracing::warn!("the BIRD that serval had started still runs: {}", in_one_line(&error))
            }
        }
    }

    async fn reconcile(&mut self) -> Result<Applied, BirdError> {
        let Some(plan) = self.desired.clone() else { return Ok(Applied::Unchanged) };
        let supervised = matches!(self.settings.mode, Mode::Start { .. });
        let (inputs, problems) = inputs::gather(&plan, supervised, &self.known);
        self.known = inputs.clone();
        for problem in &problems {
            if !self.publish.borrow().problems.contains(problem) {
                tracing::warn!("BIRD: {problem}");
            }
        }
        self.publish.send_modify(|report| {
            report.problems = plan.notes.iter().cloned().chain(problems).collect();
            report.plan = Some(plan.clone());
        });
        match (Connection::open(&self.socket).await, &self.settings.mode) {
            (Ok(connection), _) => self.bring(connection, &plan, &inputs).await,
            (Err(error), Mode::Start { executable }) if error.is_absence() => {
                let program = Program::find(executable.as_deref()).await?;
                self.start(&program, &plan, &inputs).await
            }
            (Err(error), _) => Err(error.into()),
        }
    }

    /// Brings a running BIRD to the plan.
    async fn bring(
        &mut self,
        mut connection: Connection,
        plan: &BirdPlan,
        inputs: &Inputs,
    ) -> Result<Applied, BirdError> {
        let dialect = dialect(connection.version());
        let running = load::running(&mut connection).await?;
        let inputs = &Inputs { device: running.device, ..inputs.clone() };
        if let Some(revision) = running.revision {
            let taken = self.files.taken().map_err(|source| self.unusable(source))?;
            if taken.is_some_and(|taken| taken == render(plan, inputs, dialect, &revision)) {
                return Ok(Applied::Unchanged);
            }
        }
        let revision = new_revision();
        self.propose(&render(plan, inputs, dialect, &revision))?;
        load::load(&self.socket, &self.files, &revision).await?;
        Ok(Applied::Loaded)
    }

    /// Starts a BIRD with the plan; when it does not take the plan, with what one of ours took last.
    async fn start(
        &mut self,
        program: &Program,
        plan: &BirdPlan,
        inputs: &Inputs,
    ) -> Result<Applied, BirdError> {
        // A second one would tear at the same routes.
        let lost = process::end_lost(&self.files).await > 0;
        self.link = None;
        let again = self.files.taken().map_err(|source| self.unusable(source))?.is_some();
        self.propose(&render(plan, inputs, program.dialect, &new_revision()))?;
        let refusal = match program.check(&self.files.candidate()).await {
            Ok(()) => {
                self.files.adopt().map_err(|source| self.unusable(source))?;
                None
            }
            Err(refusal) if again => Some(refusal),
            Err(error) => return Err(error),
        };
        let mut child = program.start(&self.files, again || lost)?;
        self.started = Some(Instant::now());
        if self.has_run {
            self.publish.send_modify(|report| report.restarts += 1);
        }
        let answers = async {
            while Connection::open(&self.socket).await.is_err() {
                sleep(LOOK).await;
            }
        };
        tokio::select! {
            () = answers => {}
            status = child.wait() => {
                let status = status.map_or_else(|error| error.to_string(), |status| status.to_string());
                return Err(BirdError::Ended(status));
            }
            () = sleep(START) => {
                self.child = Some(child);
                return Err(ControlError::Silent.into());
            }
        }
        self.child = Some(child);
        refusal.map_or(Ok(Applied::Started), Err)
    }

    fn propose(&self, text: &str) -> Result<(), BirdError> {
        let reader = match self.settings.mode {
            Mode::Start { .. } => None,
            Mode::Attach { .. } => group_of(&self.socket),
        };
        self.files.propose(text, reader).map_err(|source| self.unusable(source))
    }

    fn unusable(&self, source: std::io::Error) -> BirdError {
        BirdError::File { path: self.files.candidate(), source }
    }

    /// BIRD has ended: says how, if it was a child of ours.
    async fn mourn(&mut self) {
        let status = match self.child.take() {
            Some(mut child) => timeout(STEADY, child.wait()).await.ok().and_then(Result::ok),
            None => None,
        };
        match status {
            Some(status) => tracing::warn!("BIRD has ended: {status}"),
            None => tracing::warn!("BIRD has ended"),
        }
    }

    fn delay_after_death(&mut self) -> Duration {
        if self.started.is_none_or(|started| started.elapsed() >= STEADY) {
            self.pause = PAUSES.0;
            return Duration::ZERO;
        }
        self.longer_pause()
    }

    fn pause_after(&mut self, outcome: &Result<Applied, BirdError>) -> Duration {
        match outcome {
            Ok(Applied::Unchanged) => {
                self.pause = PAUSES.0;
                AUDIT
            }
            // What somebody must mend first is not more urgent than an audit.
            Ok(_) | Err(BirdError::Refused { .. } | BirdError::Absent) => AUDIT,
            Err(BirdError::Control(error)) if error.is_absence() => ABSENCE,
            Err(_) => self.longer_pause(),
        }
    }

    fn longer_pause(&mut self) -> Duration {
        let pause = self.pause;
        self.pause = (pause * 2).min(PAUSES.1);
        pause
    }

    /// Makes an outcome known, and says what is new.
    fn tell(&mut self, outcome: &Result<Applied, BirdError>) {
        let before = self.publish.borrow().trouble.clone();
        let trouble = match outcome {
            Ok(_) => None,
            // Too busy to answer: for seconds, while it loads many routes. It is a fault only if it stays so.
            Err(BirdError::Control(ControlError::Silent)) => match before {
                Some(Trouble::Silent { .. }) => before.clone(),
                _ => Some(Trouble::Silent { since: std::time::Instant::now() }),
            },
            Err(error) => Some(Trouble::Fault(in_one_line(error))),
        };
        match outcome {
            Ok(Applied::Started) => tracing::info!("BIRD has been started"),
            Ok(Applied::Loaded) => tracing::info!("BIRD has been reconfigured"),
            Ok(Applied::Unchanged) => {}
            Err(_) if trouble == before => {}
            Err(BirdError::Control(ControlError::Silent)) => tracing::info!("BIRD is busy"),
            Err(error) => tracing::warn!("{}", in_one_line(error)),
        }
        self.publish.send_modify(|report| report.trouble = trouble);
    }
}

/// Ends when the connection does; never without one.
async fn ended(link: &mut Option<Connection>) {
    match link {
        Some(connection) => connection.closed().await,
        None => std::future::pending().await,
    }
}

/// A word that no configuration has had before.
fn new_revision() -> String {
    format!("{:016x}", fastrand::u64(..))
}
