//! The system call itself, for what aya does not offer.
//!
//! Callers lay their structures out as the beginnings of `union bpf_attr` (include/uapi/linux/bpf.h); the kernel takes the
//! rest as zero.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

/// # Safety
/// `T` is the structure of the command, and its pointers are valid.
pub unsafe fn bpf<T>(command: libc::c_int, attr: &mut T) -> io::Result<i32> {
    // SAFETY: as promised by the caller; the size is that of the structure.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut *attr, size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as i32) }
}

/// # Safety
/// As [`bpf`], and the command returns a new file descriptor.
pub unsafe fn bpf_fd<T>(command: libc::c_int, attr: &mut T) -> io::Result<OwnedFd> {
    // SAFETY: as promised by the caller.
    unsafe { bpf(command, attr).map(|fd| OwnedFd::from_raw_fd(fd)) }
}
