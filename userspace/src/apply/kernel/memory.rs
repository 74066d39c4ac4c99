//! Which routes of ours are on which interface: read from the kernel once, and kept by noting our own changes.
//!
//! The kernel can list the routes of one interface only by walking its whole table, where BIRD may have put a hundred
//! thousand. Whether a *wanted* route is there is asked for each one, which costs microseconds; only routes that are no
//! longer wanted need this memory. To remove one that is gone already does no harm, so the memory need not follow what
//! the kernel flushes by itself.

use super::METRIC;
use super::requests::Requests;
use super::state::{Change, Route};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::Ipv6Addr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::OnceCell;

#[derive(Default)]
pub(super) struct Memory {
    loaded: OnceCell<()>,
    routes: Mutex<BTreeMap<u32, BTreeSet<Route>>>,
}

impl Memory {
    /// Reads what is there, the first time.
    pub(super) async fn load(&self, requests: &Requests) -> io::Result<()> {
        let load = async || {
            let routes = requests.our_routes().await?;
            for (ifindex, there) in routes {
                self.routes().entry(ifindex).or_default().extend(there);
            }
            Ok(())
        };
        self.loaded.get_or_try_init(load).await.copied()
    }

    /// Remembers a change that was made.
    pub(super) fn note(&self, ifindex: u32, change: Change) {
        let mut routes = self.routes();
        match change {
            Change::AddRoute(destination) => {
                let route = Route { destination, prefix_length: 128, metric: METRIC };
                routes.entry(ifindex).or_default().insert(route);
            }
            Change::RemoveRoute(route) => {
                if let Some(there) = routes.get_mut(&ifindex) {
                    there.remove(&route);
                    if there.is_empty() {
                        routes.remove(&ifindex);
                    }
                }
            }
            _ => {}
        }
    }

    /// Routes on the interface that are not `wanted`.
    pub(super) fn stale(&self, ifindex: u32, wanted: &BTreeSet<Ipv6Addr>) -> Vec<Route> {
        let wanted = |route: &&Route| {
            route.prefix_length == 128 && route.metric == METRIC && wanted.contains(&route.destination)
        };
        let routes = self.routes();
        routes.get(&ifindex).into_iter().flatten().filter(|route| !wanted(route)).copied().collect()
    }

    fn routes(&self) -> MutexGuard<'_, BTreeMap<u32, BTreeSet<Route>>> {
        // A panic elsewhere leaves the map whole: every change of it is one call.
        self.routes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
