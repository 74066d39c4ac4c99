//! Router advertisements: what they say and when the daemon repeats them. Pure.

mod render;
mod schedule;

pub use render::{render, render_to, render_withdrawal};
pub use schedule::Schedule;

use std::time::Duration;

/// `MaxRtrAdvInterval` for a router lifetime in seconds: three advertisements may be lost before the lifetime runs out,
/// and it is within 4 s and the default of 600 s (RFC 4861 section 6.2.1).
fn max_interval(router_lifetime: u16) -> Duration {
    let seconds = match router_lifetime {
        0 => 600,
        lifetime => (lifetime / 3).clamp(4, 600),
    };
    Duration::from_secs(seconds.into())
}

/// `MinRtrAdvInterval`: a third of the maximum, at least 3 s (RFC 4861 section 6.2.1).
fn min_interval(max: Duration) -> Duration {
    (max / 3).max(Duration::from_secs(3))
}
