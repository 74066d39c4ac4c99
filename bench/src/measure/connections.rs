//! TCP connections that begin and end, between two guests with a kernel stack each: connect, accept, close. No byte is
//! sent, so what is measured is what a new flow costs; and the guests, whose kernels and devices are on the same CPUs.

use super::bulk::Guests;
use super::wire::Between;
use crate::carrier::{ENDS, LARGE};
use crate::cpu::join;
use crate::report::{Metric, Outcome};
use crate::rounds::{Measured, Work, interleave};
use crate::statistics::Better;
use anyhow::{Context, Result, ensure};
use serval_tests::tap::Offloads;
use std::io::Read;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

pub const NAME: &str = "connections";

const METRICS: &[Metric] = &[Metric { name: "connections", unit: "1/s", better: Better::More }];

const PORT: u16 = 4000;
/// Connections at a time.
const CLIENTS: usize = 8;
/// How long any of it may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// Frames to the server that a connection is at least: SYN, ACK, FIN.
const FRAMES: u64 = 3;

/// Runs the benchmark.
pub fn run(quick: bool) -> Result<Vec<Outcome>> {
    let (rounds, time) =
        if quick { (2, Duration::from_millis(200)) } else { (15, Duration::from_millis(500)) };
    let mut arms = LARGE.arms(|carrier| {
        let guests = Guests::new(carrier, Offloads::ALL)?;
        // The server's half of a connection is remembered for a minute.
        guests.from.namespace.set_sysctl("net/ipv4/ip_local_port_range", "1024 65535")?;
        Ok(Box::new(Connections { guests, time }))
    })?;
    let arms = interleave(NAME, &mut arms, rounds)?;
    let title = format!("TCP connections between two guests, {CLIENTS} at a time, for {time:?} a round");
    Ok(vec![Outcome { name: NAME.to_owned(), title, metrics: METRICS, arms }])
}

struct Connections {
    guests: Guests,
    time: Duration,
}

impl Work for Connections {
    fn round(&mut self) -> Result<Measured> {
        let Guests { path, from, to, .. } = &self.guests;
        path.forget_flows()?;
        let before = path.sent_on()?;
        let server = SocketAddr::new(ENDS[1].address.into(), PORT);
        let listener =
            to.namespace.enter(|| TcpListener::bind(server).context("the server cannot listen"))?;
        let (over, time) = (AtomicBool::new(false), self.time);
        let (made, took) = thread::scope(|scope| -> Result<_> {
            let accepting = scope.spawn(|| accept(&listener, &over));
            let made = from.namespace.enter(|| {
                let start = Instant::now();
                let made = call_many(server, start + time);
                let took = start.elapsed();
                over.store(true, Ordering::Release);
                // Has whoever accepts look whether it is over; if that is known already, nobody closes.
                drop(connect(server)?);
                Ok((made, took))
            });
            join(accepting)?;
            made
        })?;
        let made = match made {
            Ok(made) => made,
            Err(error) => return Ok(Measured::Rejected(format!("{error:#}"))),
        };
        if let (Some(before), Some(after)) = (before, path.sent_on()?)
            && after - before < made * FRAMES
        {
            let sent_on = after - before;
            return Ok(Measured::Rejected(format!(
                "the hook sent on {sent_on} frames of {made} connections"
            )));
        }
        Ok(Measured::Proven(vec![made as f64 / took.as_secs_f64()]))
    }
}

/// Accepts and closes until one comes after all is over.
fn accept(listener: &TcpListener, over: &AtomicBool) -> Result<()> {
    while !over.load(Ordering::Acquire) {
        drop(listener.accept().context("cannot accept")?);
    }
    Ok(())
}

/// Has [`CLIENTS`] clients call until `end`: how many connections there were.
fn call_many(server: SocketAddr, end: Instant) -> Result<u64> {
    let client = move || {
        let mut made = 0;
        while Instant::now() < end {
            call(server)?;
            made += 1;
        }
        Ok(made)
    };
    thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(client)).collect();
        clients.into_iter().map(join).sum()
    })
}

/// Connects, sees the server close, and closes.
fn call(server: SocketAddr) -> Result<()> {
    let mut stream = connect(server)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let length = stream.read(&mut [0]).context("the server does not close")?;
    ensure!(length == 0, "the server says something");
    Ok(())
}

fn connect(server: SocketAddr) -> Result<TcpStream> {
    TcpStream::connect_timeout(&server, PATIENCE).context("cannot connect")
}
