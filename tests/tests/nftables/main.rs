//! The guard and the policy as nftables rules, shown by real frames through TAPs of a host without BPF.

mod detach;
mod flows;
mod limits;
mod rig;
mod rules;
mod table;
mod worlds;
