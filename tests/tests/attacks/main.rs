//! Attacks, by number of the catalogue that [`catalogue`] has: with the tools that are made for them, against the daemon
//! and real guests. What is shown byte for byte elsewhere is not repeated.

mod catalogue;
mod first_hop;
mod floods;
mod rig;
