//! A stream of numbered UDP datagrams between two guests, every one of them accounted for.

use crate::netns::Namespace;
use crate::wait::eventually;
use anyhow::{Context, Result, anyhow, ensure};
use nix::sys::socket::{setsockopt, sockopt};
use std::collections::BTreeMap;
use std::fmt;
use std::io::ErrorKind;
use std::net::{Ipv6Addr, UdpSocket};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// How long the last datagrams may take.
const STRAGGLERS: Duration = Duration::from_secs(2);

/// Room for seconds of datagrams while the receiver waits for a CPU.
const RECEIVE_BUFFER: usize = 16 << 20;

/// A stream that flows until [`Stream::finish`].
#[derive(Debug)]
pub struct Stream {
    shared: Arc<Shared>,
    sender: JoinHandle<Result<()>>,
    receiver: JoinHandle<Result<BTreeMap<u64, u64>>>,
}

/// What became of a stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// Datagrams that left the sender.
    pub sent: u64,
    /// Datagrams that arrived, each counted once.
    pub received: u64,
    /// Numbers of those that did not arrive.
    pub missing: Vec<RangeInclusive<u64>>,
    /// Arrivals of what had arrived before.
    pub duplicates: u64,
    /// Datagrams that the sender's own kernel refused.
    pub refused: u64,
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    sent: AtomicU64,
    received: AtomicU64,
    refused: AtomicU64,
}

impl Stream {
    /// Sends `rate` datagrams a second from one guest to `port` of another.
    pub fn start(from: &Namespace, to: &Namespace, address: Ipv6Addr, port: u16, rate: u32) -> Result<Self> {
        let inbound = to.enter(|| Ok(UdpSocket::bind((address, port))?))?;
        setsockopt(&inbound, sockopt::RcvBufForce, &RECEIVE_BUFFER)?;
        inbound.set_read_timeout(Some(Duration::from_millis(20)))?;
        let outbound = from.enter(|| Ok(UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0))?))?;
        let shared = Arc::new(Shared::default());
        let sender = {
            let shared = Arc::clone(&shared);
            let interval = Duration::from_secs(1) / rate;
            thread::spawn(move || send(&shared, &outbound, (address, port), interval))
        };
        let receiver = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || receive(&shared, &inbound))
        };
        Ok(Self { shared, sender, receiver })
    }

    /// Waits until `count` more datagrams have arrived.
    pub fn advance(&self, count: u64) -> Result<()> {
        Self::advance_all(std::slice::from_ref(self), count)
    }

    /// Waits until `count` more datagrams of each stream have arrived.
    pub fn advance_all(streams: &[Self], count: u64) -> Result<()> {
        let received = |stream: &Self| stream.shared.received.load(Ordering::Relaxed);
        let goals: Vec<u64> = streams.iter().map(|stream| received(stream) + count).collect();
        eventually("the stream to go on", Duration::from_secs(20), || {
            let all = streams.iter().zip(&goals).all(|(stream, goal)| received(stream) >= *goal);
            Ok(all.then_some(()))
        })
        .with_context(|| format!("{streams:?}"))
    }

    /// Stops all senders at once, and says what became of all datagrams.
    pub fn finish_all(streams: impl IntoIterator<Item = Self>) -> Result<Vec<Account>> {
        let streams: Vec<Self> = streams.into_iter().collect();
        for stream in &streams {
            stream.shared.stop.store(true, Ordering::Relaxed);
        }
        streams.into_iter().map(Self::finish).collect()
    }

    /// Stops the sender, waits for the last datagrams and says what became of all.
    pub fn finish(self) -> Result<Account> {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.sender.join().map_err(|_| anyhow!("the sender panicked"))??;
        let sent = self.shared.sent.load(Ordering::Relaxed);
        let arrivals = self.receiver.join().map_err(|_| anyhow!("the receiver panicked"))??;
        let mut account = Account {
            sent,
            received: arrivals.len() as u64,
            duplicates: arrivals.values().map(|times| times - 1).sum(),
            refused: self.shared.refused.load(Ordering::Relaxed),
            missing: Vec::new(),
        };
        for number in (0..sent).filter(|number| !arrivals.contains_key(number)) {
            match account.missing.last_mut() {
                Some(last) if *last.end() + 1 == number => *last = *last.start()..=number,
                _ => account.missing.push(number..=number),
            }
        }
        Ok(account)
    }
}

impl Account {
    /// An error unless each datagram arrived, once.
    pub fn complete(&self) -> Result<()> {
        ensure!(
            self.sent > 0 && self.missing.is_empty() && self.duplicates == 0 && self.refused == 0,
            "{self}"
        );
        Ok(())
    }

    /// An error unless the last `count` datagrams arrived: what was lost was lost before.
    pub fn ends_whole(&self, count: u64) -> Result<()> {
        let whole = self.missing.last().map_or(self.sent, |lost| self.sent - 1 - lost.end());
        ensure!(self.sent >= count && whole >= count, "it still lost datagrams at its end: {self}");
        Ok(())
    }
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { sent, received, missing, duplicates, refused } = self;
        write!(f, "{sent} sent, {received} received, {duplicates} twice, {refused} refused")?;
        if !missing.is_empty() {
            write!(f, ", missing {missing:?}")?;
        }
        Ok(())
    }
}

fn send(shared: &Shared, socket: &UdpSocket, to: (Ipv6Addr, u16), interval: Duration) -> Result<()> {
    let mut due = Instant::now();
    while !shared.stop.load(Ordering::Relaxed) {
        let number = shared.sent.load(Ordering::Relaxed);
        match socket.send_to(&number.to_be_bytes(), to) {
            Ok(_) => shared.sent.fetch_add(1, Ordering::Relaxed),
            Err(_) => shared.refused.fetch_add(1, Ordering::Relaxed),
        };
        // Who was kept from sending does not make up for it: the burst would overflow the queues on the way.
        due = (due + interval).max(Instant::now());
        thread::sleep(due.saturating_duration_since(Instant::now()));
    }
    Ok(())
}

/// How often each number arrived.
fn receive(shared: &Shared, socket: &UdpSocket) -> Result<BTreeMap<u64, u64>> {
    let mut arrivals = BTreeMap::new();
    let mut quiet = Instant::now();
    loop {
        let mut number = [0; 8];
        match socket.recv(&mut number) {
            Ok(_) => {
                *arrivals.entry(u64::from_be_bytes(number)).or_insert(0) += 1;
                shared.received.fetch_add(1, Ordering::Relaxed);
                quiet = Instant::now();
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                let all = arrivals.len() as u64 >= shared.sent.load(Ordering::Relaxed);
                if shared.stop.load(Ordering::Relaxed) && (all || quiet.elapsed() > STRAGGLERS) {
                    return Ok(arrivals);
                }
            }
            Err(error) => return Err(error).context("cannot receive"),
        }
    }
}
