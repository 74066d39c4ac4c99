//! The interfaces towards other hosts: their hooks and map entries.

use super::pins::Role;
use super::routes::RouteMaps;
use super::{FastPath, FastPathError, HookReport, TcHook, XdpHook};
use dataplane_ebpf::abi::{Mac, Uplink, uplink_flags};
use std::collections::{BTreeMap, BTreeSet};

impl FastPath {
    /// The maps of routes, for whoever mirrors the FIB; once.
    pub fn take_routes(&mut self) -> Option<RouteMaps> {
        self.routes.take()
    }

    /// Makes these interfaces, with their MACs, the uplinks, and takes the fast path from all others that were. A failure of one does not
    /// keep the others; until the first call, what an earlier process left goes on.
    pub fn apply_uplinks(
        &mut self,
        wanted: &BTreeMap<u32, Mac>,
    ) -> Result<BTreeMap<u32, Result<HookReport, FastPathError>>, FastPathError> {
        let mut gone: BTreeSet<u32> = self.maps.uplinks.content().keys().copied().collect();
        gone.extend(self.pins.interfaces(Role::Uplink)?);
        for ifindex in gone.difference(&wanted.keys().copied().collect()) {
            self.remove_uplink(*ifindex)?;
        }
        self.uplinks = Some(wanted.clone());
        Ok(wanted.iter().map(|(ifindex, mac)| (*ifindex, self.apply_uplink(*ifindex, *mac))).collect())
    }

    /// Whether XDP may be told to redirect to the interface.
    pub fn is_uplink_device(&self, ifindex: u32) -> bool {
        self.maps.uplinks.content().contains_key(&ifindex) && self.maps.has_device(ifindex)
    }

    /// As [`verify`](Self::verify), for uplinks: repairs, and counts.
    pub(super) fn verify_uplinks(&mut self) -> Result<usize, FastPathError> {
        let Some(wanted) = self.uplinks.clone() else { return Ok(0) };
        let missing: BTreeSet<u32> =
            wanted.keys().copied().filter(|ifindex| !self.maps.has_device(*ifindex)).collect();
        let mut lost: usize = wanted.keys().map(|ifindex| self.hooks.lost(*ifindex, Role::Uplink)).sum();
        for (ifindex, outcome) in self.apply_uplinks(&wanted)? {
            match outcome {
                // A device that went away takes its entry with it, and that it went is an event.
                Err(error) => tracing::debug!("uplink {ifindex}: {error}"),
                Ok(_) => lost += usize::from(missing.contains(&ifindex)),
            }
        }
        Ok(lost)
    }

    fn apply_uplink(&mut self, ifindex: u32, mac: Mac) -> Result<HookReport, FastPathError> {
        if self.hooks.is_replaced(ifindex, Role::Uplink, &self.pins)? {
            self.remove_uplink(ifindex)?;
        }
        // As it was before, until it is known which hooks there are.
        let flags = self.maps.uplinks.content().get(&ifindex).map_or(0, |uplink| uplink.flags);
        self.maps.write_uplink(ifindex, Uplink { mac, flags })?;
        let report = self.hooks.attach(ifindex, Role::Uplink, Some(&self.pins));
        let steered = report.xdp != XdpHook::Off && report.tc != TcHook::Off;
        let flags = if steered { uplink_flags::STEERED } else { 0 };
        self.maps.write_uplink(ifindex, Uplink { mac, flags })?;
        Ok(report)
    }

    fn remove_uplink(&mut self, ifindex: u32) -> Result<(), FastPathError> {
        // First the map: without its entry the hooks pass everything.
        self.maps.clear_uplink(ifindex)?;
        self.hooks.detach(ifindex, Role::Uplink, Some(&self.pins))
    }
}
