//! What the daemon answers itself: DHCPv6, periodic router advertisements, and solicitations that no hook answered.
//!
//! Messages are pure functions of an endpoint ([`advertise`], [`dhcp6`], `frame`); `state` decides, without I/O, what an
//! event leads to; `server` owns the sockets. Status reads [`Server::stats`] and [`Server::problems`]. [`control`] is the control socket.

pub mod advertise;
pub mod control;
pub mod dhcp6;
mod domain;
#[cfg(test)]
mod fixture;
mod frame;
mod limit;
mod link;
pub mod monitor;
mod neighbour;
mod server;
mod snoop;
mod socket;
mod solicitation;
mod state;

pub use frame::Destination;
pub use server::{Endpoints, Server};
pub use state::ServeStats;
