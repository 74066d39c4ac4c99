//! What happens to a packet between a VM's TAP and the rest of the world.
//!
//! This library builds for BPF and for the host, so the decision that runs in the kernel is the one that unit tests,
//! property tests and `serval explain` run. Read it in the order a packet meets it:
//!
//! | module | what it holds |
//! |---|---|
//! | [`abi`] | what both sides of the kernel boundary agree on: map keys and values, drop reasons, counters |
//! | [`wire`] | views over packet bytes: Ethernet, IPv6 and its extension headers, ICMPv6 and neighbour discovery |
//! | [`decide`] | the decision, pure: guard, answer, forward |
//! | `host` | frames and tables in plain memory, for the daemon, tests, fuzzers and `serval explain` (not in BPF) |
//!
//! The hooks that call it live in the binary beside this library, `src/hooks/`, and exist for BPF only.

#![cfg_attr(not(any(test, feature = "user")), no_std)]

pub mod abi;
pub mod decide;
#[cfg(any(test, feature = "user"))]
pub mod host;
pub mod wire;
