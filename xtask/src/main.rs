//! `cargo xtask`: everything a person types.
fn main() {}
