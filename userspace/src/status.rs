//! What the daemon says of itself: the contract of `serval status --json`.
