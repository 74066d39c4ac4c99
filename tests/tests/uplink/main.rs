//! Uplinks: what the programs on them do with frames, to the byte, and that they stay whatever happens to them.

mod exact;
mod fresh;
mod life;
mod rig;
mod spread;
