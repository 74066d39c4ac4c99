//! Policy counts, for guests with kernel stacks of their own: what it lets pass and what not, and what becomes of traffic
//! while it changes.

mod changes;
mod host;
mod paths;
mod review;
mod rig;
mod semantics;
