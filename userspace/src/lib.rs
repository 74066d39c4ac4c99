//! Serval's daemon and command line: what happens on a change.
//!
//! Data flows one way: [`source`] -> [`resource`] -> [`plan`] -> [`apply`] -> status. The core ([`resource`], [`plan`],
//! the message half of [`serve`]) is pure; the shell around it ([`source`], [`apply`], [`daemon`]) does all I/O.

pub mod apply;
mod cause;
pub mod cli;
pub mod config;
pub mod daemon;
pub mod plan;
pub mod resource;
pub mod serve;
pub mod source;
pub mod status;
