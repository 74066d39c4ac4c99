//! Guests: what stands behind a TAP.

mod client;
mod kernel;
mod pump;
mod raw;

pub use client::{dhclient, dhcpcd};
pub use kernel::{KernelGuest, Settings};
pub use pump::{Counts, Flow};
pub use raw::RawGuest;
