//! What the daemon answers itself: DHCPv6, periodic router advertisements, the control socket.

pub mod advertise;
pub mod dhcp6;
pub mod link;
