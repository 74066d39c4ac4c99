//! `serval run` with BIRD, on hosts with VMs: what BGP between hosts and with routers is for, seen from the VMs.
//! BIRD without the daemon is in `bird/`.

mod ecmp;
mod failover;
mod mesh;
mod moves;
mod reflectors;
mod restart;
mod tor;
