//! Frames out of a TAP, by a packet socket.
