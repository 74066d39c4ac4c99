//! The loop that joins all parts; it alone knows all of them.
