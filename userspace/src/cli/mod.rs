//! The command line: one verb a file. Answers go to standard output, everything else to standard error; the exit code is
//! 0 when it is done, 1 when the answer is no, 2 for misuse.

mod check;
mod client;
mod detach;
mod endpoints;
mod explain;
mod load;
mod monitor;
mod policies;
mod print;
mod routes;
mod run;
mod status;

use crate::cause;
use crate::config::{Config, DEFAULT_FILE};
use crate::serve::monitor::MonitorQuery;
use crate::status::Selection;
use clap::{ArgAction, Parser, Subcommand};
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// The IPv6 edge of a compute host: forwards between the TAPs of VMs, guards them, and is their router.
#[derive(Debug, Parser)]
#[command(name = "serval", version, propagate_version = true)]
struct Arguments {
    /// Host configuration [default: /etc/serval/serval.toml, if it is there]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Log more: -v what changes, -vv decisions, -vvv packets. RUST_LOG overrides it
    #[arg(short, long, global = true, action = ArgAction::Count)]
    verbose: u8,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Run the daemon
    Run,
    /// Validate configuration and resources, say which file, line and field is wrong, and, where the daemon runs, what
    /// they would change
    Check {
        /// Look at these resources rather than at those of the configuration
        #[arg(long, value_name = "DIR")]
        resources: Option<PathBuf>,
        #[command(flatten)]
        format: Format,
    },
    /// Show how the daemon and its endpoints are
    Status {
        #[command(flatten)]
        format: Format,
    },
    /// Show who the endpoints are: addresses, MACs, leases
    Endpoints {
        #[command(flatten)]
        format: Format,
    },
    /// Show the BGP sessions, the routes to other hosts, and who forwards by them: the fast path or the kernel
    Routes {
        /// Only to this prefix or into it; of an address, what packets to it would take, the best way first
        #[arg(value_name = "PREFIX|ADDRESS", value_parser = routes::selection)]
        selection: Option<Selection>,
        /// At most so many; 0 is all [default: 100, with --json all]
        #[arg(long, value_name = "COUNT")]
        limit: Option<usize>,
        #[command(flatten)]
        format: Format,
    },
    /// Show the rules of policy that are about endpoints of this host, and how many packets each let pass or dropped
    Policies {
        #[command(flatten)]
        format: Format,
    },
    /// Say what would become of a packet, and by which rule; nothing is sent, and nothing is counted
    Explain {
        #[command(flatten)]
        packet: explain::Packet,
        #[command(flatten)]
        format: Format,
    },
    /// Show what becomes of packets, as it happens: denials, what rules log, some of the flows that begin; until Ctrl-C
    Monitor {
        /// Only what this endpoint sends, or is sent
        #[arg(value_name = "ENDPOINT")]
        endpoint: Option<String>,
        /// Show one in so many of the flows that begin; 0 is none
        #[arg(long, value_name = "COUNT", default_value_t = 100)]
        sample: u32,
        #[command(flatten)]
        format: Format,
    },
    /// Take the fast path off; the kernel carries on, and the next start of the daemon puts it back
    Detach {
        #[command(flatten)]
        format: Format,
    },
    /// Attach the programs to one interface for a look: they count and let everything pass, until Ctrl-C
    Load {
        /// The interface
        #[arg(long)]
        interface: String,
    },
}

/// How a verb prints.
#[derive(Clone, Copy, Debug, clap::Args)]
struct Format {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What a verb found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    /// Done, or well.
    Yes,
    /// What was asked is not so; the verb has said why.
    No,
}

/// Parses the command line and runs the verb.
pub fn main() -> ExitCode {
    match dispatch(&Arguments::parse()) {
        Ok(Answer::Yes) => ExitCode::SUCCESS,
        Ok(Answer::No) => ExitCode::from(1),
        Err(error) => {
            eprintln!("serval: {}", cause::in_one_line(error.as_ref()));
            ExitCode::from(1)
        }
    }
}

fn dispatch(arguments: &Arguments) -> anyhow::Result<Answer> {
    start_log(arguments.verbose);
    let config = || Config::load(arguments.config.as_deref());
    match &arguments.verb {
        Verb::Run => run::run(config()?),
        Verb::Check { resources, format } => {
            let file = arguments.config.as_deref().unwrap_or(Path::new(DEFAULT_FILE));
            check::run(file, config(), resources.as_deref(), *format)
        }
        Verb::Status { format } => status::run(&config()?, *format),
        Verb::Endpoints { format } => endpoints::run(&config()?, *format),
        Verb::Routes { selection, limit, format } => {
            routes::run(&config()?, selection.unwrap_or_default(), *limit, *format)
        }
        Verb::Policies { format } => policies::run(&config()?, *format),
        Verb::Explain { packet, format } => explain::run(&config()?, packet, *format),
        Verb::Monitor { endpoint, sample, format } => {
            let query = MonitorQuery { endpoint: endpoint.clone(), sample: *sample };
            monitor::run(&config()?, query, *format)
        }
        Verb::Detach { format } => detach::run(&config()?, *format),
        Verb::Load { interface } => load::run(interface).map(|()| Answer::Yes),
    }
}

/// Quiet unless something is wrong; netlink crates are never chatty.
fn start_log(verbose: u8) {
    use tracing_subscriber::EnvFilter;
    let ours = match verbose {
        0 => "warn",
        1 => "info",
        2 => "debug",
        _ => "trace",
    };
    let filter =
        EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(format!("warn,serval={ours}")));
    // Without the clock: the journal has its own, and a terminal needs none.
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .without_time()
        .init();
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn options_may_stand_before_or_after_the_verb() {
        for line in [
            ["serval", "--config", "f", "status", "--json"].as_slice(),
            &["serval", "status", "--json", "--config", "f"],
        ] {
            let arguments = Arguments::try_parse_from(line).unwrap();
            assert_eq!(arguments.config, Some("f".into()));
            assert!(matches!(arguments.verb, Verb::Status { format: Format { json: true } }));
        }
    }

    #[test]
    fn misuse_is_2() {
        for line in [["serval"].as_slice(), &["serval", "fly"], &["serval", "run", "--json"]] {
            assert_eq!(Arguments::try_parse_from(line).unwrap_err().exit_code(), 2, "{line:?}");
        }
    }
}
