//! What the daemon answers itself: DHCPv6, periodic router advertisements, the control socket.

pub mod advertise;
pub mod dhcp6;
mod domain;
#[cfg(test)]
mod fixture;
pub mod frame;
pub mod link;
