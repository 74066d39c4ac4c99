//! Views over packet bytes.
