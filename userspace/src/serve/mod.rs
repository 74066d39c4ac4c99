//! What the daemon answers itself: DHCPv6, periodic router advertisements, the control socket.

pub mod advertise;
mod domain;
#[cfg(test)]
mod fixture;
pub mod frame;
pub mod link;
