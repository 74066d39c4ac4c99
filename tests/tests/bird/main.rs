//! Real BIRDs in namespaces, each configured, started and watched by the code under test: what crosses between hosts,
//! what must not, and what a crash, a restart or a bad configuration may not change.

mod announcements;
mod attach;
mod daemon;
mod drift;
mod old;
mod retire;
mod rig;
mod sessions;
mod survival;
