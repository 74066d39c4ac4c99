//! Who listens to what becomes of packets, and what they are told.

use crate::status::{EventKind, PacketEvent};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use tokio::sync::{broadcast, watch};

/// Events that a listener may be behind; older ones are lost to it.
const BACKLOG: usize = 1024;

/// What a listener wants to hear.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MonitorQuery {
    /// Only what concerns this endpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// One in so many of the flows that may begin; 0: none.
    pub sample: u32,
}

/// Where events go out. Clones are the same.
#[derive(Clone, Debug)]
pub struct Monitor {
    events: broadcast::Sender<Arc<PacketEvent>>,
    samples: watch::Sender<Vec<u32>>,
}

/// Somebody who listens.
#[derive(Debug)]
pub struct Listener {
    query: MonitorQuery,
    events: broadcast::Receiver<Arc<PacketEvent>>,
    samples: watch::Sender<Vec<u32>>,
}

impl Default for Monitor {
    fn default() -> Self {
        Self { events: broadcast::Sender::new(BACKLOG), samples: watch::Sender::default() }
    }
}

impl Monitor {
    /// Begins to listen.
    pub fn listen(&self, query: MonitorQuery) -> Listener {
        self.samples.send_modify(|samples| samples.push(query.sample));
        Listener { events: self.events.subscribe(), samples: self.samples.clone(), query }
    }

    /// One entry for everybody who listens: of how many flows that begin they want to hear one.
    pub fn samples(&self) -> watch::Receiver<Vec<u32>> {
        self.samples.subscribe()
    }

    /// Tells everybody who listens.
    pub fn tell(&self, event: PacketEvent) {
        if self.events.send(Arc::new(event)).is_err() {
            tracing::trace!("nobody listens");
        }
    }
}

impl Listener {
    /// The next event that it wants to hear; `None` when there will be none.
    pub async fn next(&mut self) -> Option<Arc<PacketEvent>> {
        loop {
            match self.events.recv().await {
                Ok(event) if self.query.wants(&event) => return Some(event),
                // It was too slow; what is left comes next.
                Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.samples.send_modify(|samples| {
            if let Some(mine) = samples.iter().position(|sample| *sample == self.query.sample) {
                samples.swap_remove(mine);
            }
        });
    }
}

impl MonitorQuery {
    fn wants(&self, event: &PacketEvent) -> bool {
        if event.kind == EventKind::Allowed && self.sample == 0 {
            return false;
        }
        let sides = [&event.source, &event.destination];
        self.endpoint.is_none() || sides.iter().any(|side| side.endpoint == self.endpoint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::{EventHook, Side};

    fn event(kind: EventKind, from: &str) -> PacketEvent {
        let side = |endpoint: Option<&str>| Side {
            endpoint: endpoint.map(str::to_owned),
            address: std::net::Ipv6Addr::LOCALHOST,
            port: None,
        };
        PacketEvent {
            time: 0,
            kind,
            reason: None,
            rule: None,
            source: side(Some(from)),
            destination: side(None),
            protocol: 6,
            icmp: None,
            hook: EventHook::Tc,
            error: false,
            answer: false,
            suppressed: 0,
        }
    }

    #[tokio::test]
    async fn listeners_hear_what_they_asked_for() {
        let monitor = Monitor::default();
        let samples = monitor.samples();
        let mut all = monitor.listen(MonitorQuery { endpoint: None, sample: 10 });
        let mut web = monitor.listen(MonitorQuery { endpoint: Some("web1".into()), sample: 0 });
        assert_eq!(*samples.borrow(), [10, 0]);
        for (kind, from) in
            [(EventKind::Denied, "db1"), (EventKind::Allowed, "web1"), (EventKind::Denied, "web1")]
        {
            monitor.tell(event(kind, from));
        }
        assert_eq!(*all.next().await.unwrap(), event(EventKind::Denied, "db1"));
        assert_eq!(*all.next().await.unwrap(), event(EventKind::Allowed, "web1"));
        assert_eq!(*web.next().await.unwrap(), event(EventKind::Denied, "web1"));
        drop((all, web));
        assert!(samples.borrow().is_empty());
        monitor.tell(event(EventKind::Denied, "web1"));
    }
}
