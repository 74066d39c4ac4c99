//! Reconcilers: each reads what is there, compares it with the plan, changes what differs, and verifies.

pub mod bird;
pub mod fastpath;
pub mod kernel;
pub mod links;
pub mod nftables;
pub mod policy;
pub mod routes;
