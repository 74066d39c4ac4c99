//! Grace periods of RCU: tcx waits for a whole one at every attach and detach (`tcx_entry_sync`), which is 12 to 26 ms, one
//! after the other, and so does a change of policy that follows another. Meanwhile we ask the kernel to hurry, as an
//! administrator could by hand: then it is less than one, at the price of an interrupt on every CPU.
//!
//! Whoever kills the daemon just then leaves the kernel hurrying, which costs these interrupts and harms nobody.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// `Documentation/admin-guide/kernel-parameters.txt`, `rcupdate.rcu_expedited`.
const RCU_EXPEDITED: &str = "/sys/kernel/rcu_expedited";

/// `MEMBARRIER_CMD_GLOBAL` of `linux/membarrier.h`, since Linux 4.3.
const GLOBAL: libc::c_int = 1;

/// Waits until every BPF program that runs now has ended: they run in RCU read-side sections, and this waits for a grace
/// period. An error when the kernel cannot (it is built without membarrier, or has CPUs without a tick).
pub fn wait() -> io::Result<()> {
    let _hurry = Hurry::begin();
    // SAFETY: the call has no pointers.
    match unsafe { libc::syscall(libc::SYS_membarrier, GLOBAL, 0, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Grace periods are short as long as this lives.
pub struct Hurry {
    /// The file to put back; none where somebody else wants them short, or nobody may ask.
    raised: Option<PathBuf>,
}

impl Hurry {
    /// Asks for short grace periods, where this may be asked for: a read-only `/sys` only makes it slow.
    pub fn begin() -> Self {
        Self::by(Path::new(RCU_EXPEDITED))
    }

    fn by(file: &Path) -> Self {
        let normal = fs::read_to_string(file).is_ok_and(|text| text.trim() == "0");
        let raised = normal && fs::write(file, "1").is_ok();
        Self { raised: raised.then(|| file.to_owned()) }
    }
}

impl Drop for Hurry {
    fn drop(&mut self) {
        if let Some(file) = &self.raised
            && let Err(error) = fs::write(file, "0")
        {
            tracing::warn!("{} stays 1, it cannot be written: {error}", file.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the file says while somebody hurries, and after.
    fn seen(content: &str) -> (String, String) {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("rcu_expedited");
        fs::write(&file, content).unwrap();
        let hurry = Hurry::by(&file);
        let during = fs::read_to_string(&file).unwrap();
        drop(hurry);
        (during, fs::read_to_string(&file).unwrap())
    }

    #[test]
    fn grace_periods_are_short_for_a_while() {
        assert_eq!(seen("0\n"), ("1".to_owned(), "0".to_owned()));
    }

    #[test]
    fn whoever_wants_them_short_keeps_them() {
        assert_eq!(seen("1\n"), ("1\n".to_owned(), "1\n".to_owned()));
    }

    #[test]
    fn without_the_file_nothing_happens() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("rcu_expedited");
        drop(Hurry::by(&file));
        assert!(!file.exists());
    }
}
