//! The virtio-net device of a [`super::KernelGuest`]: copies frames with their headers between the TAP that the host
//! sees and the TAP that the guest sees, so that partial checksums and segments cross as they are.

use crate::tap::{LARGEST, Tap};
use anyhow::{Context, Result, anyhow};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread::{self, JoinHandle};

/// Frames copied in a row from one side before the other gets its turn.
const BURST: usize = 64;

/// Bytes of the shortest virtio-net header; flags and GSO type are its first two.
const SHORTEST: usize = 10;

/// Frames that crossed the device in one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flow {
    /// All frames.
    pub frames: u64,
    /// Their bytes, without the virtio-net header.
    pub bytes: u64,
    /// Those that were more than one segment.
    pub segmented: u64,
    /// Those with a partial checksum.
    pub partial: u64,
    /// Those that the other side did not take.
    pub dropped: u64,
}

/// Frames that crossed the device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// From the VM.
    pub from_vm: Flow,
    /// To the VM.
    pub to_vm: Flow,
}

/// The running device.
#[derive(Debug)]
pub(super) struct Pump {
    orders: Sender<(Order, SyncSender<()>)>,
    wake: UnixStream,
    from_vm: Arc<Meter>,
    to_vm: Arc<Meter>,
    thread: Option<JoinHandle<Result<()>>>,
}

#[derive(Debug)]
enum Order {
    Plug(Tap),
    Unplug,
    Pause(bool),
    Stop,
}

#[derive(Debug, Default)]
struct Meter {
    frames: AtomicU64,
    bytes: AtomicU64,
    segmented: AtomicU64,
    partial: AtomicU64,
    dropped: AtomicU64,
}

impl Pump {
    /// Starts a device behind the guest's interface `inner`; nothing is plugged in yet.
    pub(super) fn start(inner: Tap, header: usize) -> Result<Self> {
        let (wake, sleeper) = UnixStream::pair()?;
        sleeper.set_nonblocking(true)?;
        let (orders, incoming) = channel();
        let (from_vm, to_vm) = (Arc::<Meter>::default(), Arc::<Meter>::default());
        let mut device = Device {
            inner,
            outer: None,
            paused: false,
            header,
            from_vm: Arc::clone(&from_vm),
            to_vm: Arc::clone(&to_vm),
        };
        let thread = thread::Builder::new()
            .name("virtio-net".to_owned())
            .spawn(move || device.run(&incoming, sleeper))
            .context("cannot start a thread")?;
        Ok(Self { orders, wake, from_vm, to_vm, thread: Some(thread) })
    }

    pub(super) fn plug(&self, outer: Tap) -> Result<()> {
        self.order(Order::Plug(outer))
    }

    pub(super) fn unplug(&self) -> Result<()> {
        self.order(Order::Unplug)
    }

    pub(super) fn pause(&self, pause: bool) -> Result<()> {
        self.order(Order::Pause(pause))
    }

    pub(super) fn counts(&self) -> Counts {
        Counts { from_vm: self.from_vm.read(), to_vm: self.to_vm.read() }
    }

    /// Gives an order and returns when it has been carried out.
    fn order(&self, order: Order) -> Result<()> {
        let (done, wait) = sync_channel(1);
        self.orders.send((order, done)).map_err(|_| anyhow!("the guest's device has stopped"))?;
        (&self.wake).write_all(&[0])?;
        wait.recv().context("the guest's device has stopped")
    }
}

impl Drop for Pump {
    fn drop(&mut self) {
        let stopped = self.order(Order::Stop);
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(Err(error))) => eprintln!("the guest's device failed: {error:#}"),
            Some(Err(_)) => eprintln!("the guest's device panicked"),
            Some(Ok(Ok(()))) | None => {
                if let Err(error) = stopped {
                    eprintln!("{error:#}");
                }
            }
        }
    }
}

impl Meter {
    fn count(&self, frame: &[u8], header: usize, taken: bool) {
        let add = |counter: &AtomicU64, value: u64| counter.fetch_add(value, Ordering::Relaxed);
        add(&self.frames, 1);
        add(&self.bytes, frame.len().saturating_sub(header) as u64);
        add(&self.partial, u64::from(frame[0] & crate::tap::VnetHeader::NEEDS_CSUM != 0));
        add(&self.segmented, u64::from(frame[1] != 0));
        add(&self.dropped, u64::from(!taken));
    }

    fn read(&self) -> Flow {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Flow {
            frames: get(&self.frames),
            bytes: get(&self.bytes),
            segmented: get(&self.segmented),
            partial: get(&self.partial),
            dropped: get(&self.dropped),
        }
    }
}

struct Device {
    inner: Tap,
    outer: Option<Tap>,
    paused: bool,
    header: usize,
    from_vm: Arc<Meter>,
    to_vm: Arc<Meter>,
}

impl Device {
    fn run(&mut self, orders: &Receiver<(Order, SyncSender<()>)>, mut wake: UnixStream) -> Result<()> {
        let mut buffer = vec![0; LARGEST];
        loop {
            let (woken, from_vm, to_vm) = self.wait(&wake)?;
            if woken {
                // Orders are in the channel; how many bytes woke us does not matter.
                let mut bytes = [0; 64];
                match wake.read(&mut bytes) {
                    Ok(_) => {}
                    Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                    Err(error) => return Err(error.into()),
                }
            }
            for (order, done) in orders.try_iter() {
                let stop = matches!(order, Order::Stop);
                match order {
                    Order::Plug(tap) => self.outer = Some(tap),
                    Order::Unplug => self.outer = None,
                    Order::Pause(pause) => self.paused = pause,
                    Order::Stop => {}
                }
                // An error means that the guest's value is gone while it waited.
                if done.send(()).is_err() || stop {
                    return Ok(());
                }
            }
            if self.paused {
                continue;
            }
            let Some(outer) = &self.outer else { continue };
            if from_vm {
                copy(&self.inner, outer, &self.from_vm, self.header, &mut buffer)?;
            }
            if to_vm && !copy(outer, &self.inner, &self.to_vm, self.header, &mut buffer)? {
                // Somebody has deleted the TAP under us.
                self.outer = None;
            }
        }
    }

    /// Waits until there is something to do: an order, frames from the VM, frames to the VM.
    fn wait(&self, wake: &UnixStream) -> Result<(bool, bool, bool)> {
        let mut ready = vec![PollFd::new(wake.as_fd(), PollFlags::POLLIN)];
        if let (Some(outer), false) = (&self.outer, self.paused) {
            ready.push(PollFd::new(self.inner.as_fd(), PollFlags::POLLIN));
            ready.push(PollFd::new(outer.as_fd(), PollFlags::POLLIN));
        }
        match poll(&mut ready, PollTimeout::NONE) {
            Err(Errno::EINTR) => return Ok((false, false, false)),
            other => other?,
        };
        let any = |at: usize| ready.get(at).and_then(PollFd::any).unwrap_or(false);
        Ok((any(0), any(1), any(2)))
    }
}

/// Copies a burst of frames; `false` when `from` is no more.
fn copy(from: &Tap, to: &Tap, meter: &Meter, header: usize, buffer: &mut [u8]) -> Result<bool> {
    for _ in 0..BURST {
        let length = match from.read_raw(buffer) {
            Ok(0) => break,
            Ok(length) if length < SHORTEST => continue,
            Ok(length) => length,
            Err(Errno::EBADFD | Errno::ENODEV | Errno::EIO) => return Ok(false),
            Err(error) => return Err(error).context(format!("cannot read from {}", from.name())),
        };
        // A TAP that is down or whose queue is full takes nothing, as a real device's.
        let taken = to.write_raw(&buffer[..length]).is_ok();
        meter.count(&buffer[..length], header, taken);
    }
    Ok(true)
}
