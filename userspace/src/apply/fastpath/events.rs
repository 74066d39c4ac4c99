//! What the hooks tell of packets: read as it comes, and only as much of it as somebody wants to know.

use super::routes::failed;
use super::{FastPath, FastPathError};
use aya::maps::{Array, Map, MapData, MapError, RingBuf};
use dataplane_ebpf::abi::{Event, EventControl, names};
use std::io;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;

/// `EVENTS` and `EVENT_CONTROL`.
pub struct EventMaps {
    ring: RingBuf<MapData>,
    control: Array<MapData, EventControl>,
}

/// Says what is to be told.
pub struct EventSwitch(Array<MapData, EventControl>);

impl EventMaps {
    /// Takes the maps out of a loaded object. They tell nothing yet.
    pub(super) fn open(
        mut take: impl FnMut(&'static str) -> Result<Map, FastPathError>,
    ) -> Result<Self, FastPathError> {
        let ring = take(names::EVENTS)?.try_into();
        let control = take(names::EVENT_CONTROL)?.try_into();
        Ok(Self {
            ring: ring.map_err(|error| unexpected(names::EVENTS, error))?,
            control: control.map_err(|error| unexpected(names::EVENT_CONTROL, error))?,
        })
    }

    /// Follows what is told, on the current tokio runtime, until the receiver is dropped. When that is slow, the ring
    /// buffer fills and the hooks count what has no room.
    pub fn follow(self, listener: mpsc::Sender<Vec<Event>>) -> io::Result<EventSwitch> {
        // SAFETY: the ring owns the file descriptor of its map, never changes it, and closes it only when it is dropped.
        let ring = unsafe { AsyncFd::register_with_interest(self.ring, Interest::READABLE) }?;
        tokio::spawn(async move {
            if let Err(error) = forward(ring, listener).await {
                tracing::warn!("what the hooks tell of packets cannot be read any more: {error}");
            }
        });
        Ok(EventSwitch(self.control))
    }
}

impl EventSwitch {
    /// From now on this is told.
    pub fn set(&mut self, control: EventControl) -> Result<(), FastPathError> {
        let written = self.0.set(0, control, 0).map_err(io::Error::other);
        written.map_err(failed(names::EVENT_CONTROL, "cannot be written"))
    }
}

impl FastPath {
    /// The maps of events, for whoever listens; once.
    pub fn take_events(&mut self) -> Option<EventMaps> {
        self.events.take()
    }
}

async fn forward(mut ring: AsyncFd<RingBuf<MapData>>, listener: mpsc::Sender<Vec<Event>>) -> io::Result<()> {
    /// Events that are passed on at a time.
    const MOST: usize = 256;
    loop {
        let mut ready = tokio::select! {
            ready = ring.readable_mut() => ready?,
            () = listener.closed() => return Ok(()),
        };
        let mut events = Vec::new();
        while let Some(record) = ready.get_inner_mut().next() {
            events.extend(Event::from_record(&record));
            if events.len() == MOST {
                break;
            }
        }
        if events.len() < MOST {
            ready.clear_ready();
        }
        if !events.is_empty() && listener.send(events).await.is_err() {
            return Ok(());
        }
    }
}

fn unexpected(map: &'static str, error: MapError) -> FastPathError {
    failed(map, "unexpected type")(io::Error::other(error))
}
