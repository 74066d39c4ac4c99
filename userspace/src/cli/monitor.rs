//! `serval monitor`: what becomes of packets, as it happens, until Ctrl-C.

use super::{Answer, Format, client, print};
use crate::config::Config;
use crate::serve::control::Verb;
use crate::serve::monitor::MonitorQuery;
use crate::status::PacketEvent;

pub(super) fn run(config: &Config, query: MonitorQuery, format: Format) -> anyhow::Result<Answer> {
    let run = &config.paths.run;
    let events = client::follow(run, Verb::Monitor(query))?.ok_or_else(|| client::not_running(run))?;
    for event in events {
        let event: PacketEvent = event?;
        let line = if format.json {
            serde_json::to_string(&event)? + "\n"
        } else {
            format!("{} {event}\n", clock(event.time))
        };
        if !print::line(&line)? {
            return Ok(Answer::Yes);
        }
    }
    anyhow::bail!("the daemon has ended")
}

/// Time of day (UTC) of milliseconds since 1970.
fn clock(milliseconds: u64) -> String {
    let (seconds, milliseconds) = (milliseconds / 1000 % 86_400, milliseconds % 1000);
    format!("{:02}:{:02}:{:02}.{milliseconds:03}Z", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_day() {
        assert_eq!(clock(0), "00:00:00.000Z");
        assert_eq!(clock(86_400_000 * 365 + 3_600_000 * 23 + 59_999), "23:00:59.999Z");
    }
}
