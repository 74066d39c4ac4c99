//! Where resources come from: a watched directory.
