//! Routes to other hosts: the kernel's FIB, mirrored into the data plane's maps, whoever put it there.
//!
//! | file | what it holds |
//! |---|---|
//! | `prefix`, `event` | prefixes, and what the kernel says, reduced to what forwarding needs |
//! | `message` | rtnetlink messages -> events, pure |
//! | `hops` | sets of next hops -> groups of the map `NEXT_HOPS`, pure |
//! | `fib` | routes -> the maps `HOST_ROUTES` and `ROUTES`, pure |

mod event;
mod fib;
mod hops;
mod message;
mod prefix;
