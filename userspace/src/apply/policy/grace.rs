//! Waiting for programs that still run.

use std::io;

/// `MEMBARRIER_CMD_GLOBAL` of `linux/membarrier.h`, since Linux 4.3.
const GLOBAL: libc::c_int = 1;

/// Waits until every BPF program that runs now has ended: they run in RCU read-side sections, and this waits for a grace
/// period. An error when the kernel cannot (it is built without membarrier, or has CPUs without a tick).
pub fn wait() -> io::Result<()> {
    // SAFETY: the call has no pointers.
    match unsafe { libc::syscall(libc::SYS_membarrier, GLOBAL, 0, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
