//! The programs' own log, at trace level only: a line a frame.

use aya::Ebpf;
use aya_log::{EbpfLogger, Level};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::os::fd::AsFd;

/// What the programs log; 0 is nothing, and the kernel then removes the statements when it loads them.
pub fn level() -> u8 {
    if tracing::enabled!(tracing::Level::TRACE) { Level::Trace as u8 } else { 0 }
}

/// Passes on what the programs of `object` log, as long as the process lives, if they log at all.
pub fn follow(object: &mut Ebpf) {
    if level() == 0 {
        return;
    }
    match EbpfLogger::init_with_logger(object, ToTracing) {
        Ok(logger) => {
            std::thread::spawn(move || forward(logger));
        }
        Err(error) => tracing::warn!("the log of the BPF programs cannot be read: {error}"),
    }
}

fn forward(mut logger: EbpfLogger<ToTracing>) {
    loop {
        let mut ready = [PollFd::new(logger.as_fd(), PollFlags::POLLIN)];
        if let Err(error) = poll(&mut ready, PollTimeout::NONE)
            && error != nix::errno::Errno::EINTR
        {
            tracing::warn!("the log of the BPF programs ends: {error}");
            return;
        }
        logger.flush();
    }
}

/// What aya-log writes to: `tracing`.
struct ToTracing;

impl log::Log for ToTracing {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        tracing::trace!("{}", record.args());
    }

    fn flush(&self) {}
}
