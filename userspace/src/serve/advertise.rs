//! Router advertisements: rendering and schedule.
