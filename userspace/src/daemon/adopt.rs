//! The fast path at the start: what an earlier daemon left is adopted, or taken off where that cannot be.

use super::HANDOVER;
use crate::apply::fastpath::{FastPath, FastPathError, Settings, detach_pinned};
use crate::cause::in_one_line;
use crate::config::{Config, EndpointToHost, HostToEndpoint, XdpMode};
use crate::status::{FastPathState, FastPathStatus};
use dataplane_ebpf::abi::Rate;
use std::time::Instant;

/// Opens the fast path, waiting for a daemon that has just been killed to let go of its pins. Without one the kernel
/// forwards alone.
pub async fn fast_path(config: &Config) -> Result<FastPath, FastPathStatus> {
    let end = Instant::now() + HANDOVER;
    loop {
        match open(config) {
            Err(FastPathError::PinInUse { .. }) if Instant::now() < end => {
                tokio::time::sleep(HANDOVER / 20).await;
            }
            Err(error) => {
                let reason = in_one_line(&error);
                tracing::warn!("the kernel forwards alone, without the fast path: {reason}");
                return Err(FastPathStatus { state: FastPathState::Unavailable, reason: Some(reason) });
            }
            Ok(fast_path) => return Ok(fast_path),
        }
    }
}

/// Takes off the programs of an earlier daemon.
pub fn take_off(config: &Config) {
    match detach_pinned(&config.paths.pin) {
        Ok(0) => {}
        Ok(taps) => tracing::warn!("took the programs of an earlier run from {taps} TAPs"),
        Err(error) => tracing::debug!("programs of an earlier run: {}", in_one_line(&error)),
    }
}

/// Opens the fast path.
pub fn open(config: &Config) -> Result<FastPath, FastPathError> {
    FastPath::open(&Settings {
        pin: config.paths.pin.clone(),
        max_endpoints: config.limits.endpoints,
        tc: config.fastpath.tc,
        xdp: config.fastpath.xdp != XdpMode::Off,
        max_routes: config.limits.routes,
        uplink: config.fastpath.uplink,
        policed: config.policy.enforce,
        host_is_open: config.policy.endpoint_to_host == EndpointToHost::Accept,
        host_is_judged: config.policy.host_to_endpoint == HostToEndpoint::Policy,
        max_flows: config.limits.flows,
        flows_per_endpoint: config.limits.flows_per_endpoint,
        answer_rate: Rate::new(config.limits.answer_rate, config.limits.answer_burst),
        host_rate: Rate::new(config.limits.host_rate, config.limits.host_burst),
    })
}
