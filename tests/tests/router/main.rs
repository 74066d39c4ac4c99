//! What a router owes its packets, end to end over two hosts: frames are written byte by byte into the TAPs of VMs and
//! onto the link between the hosts, and what comes out is looked at byte by byte.

mod chains;
mod errors;
mod path_mtu;
mod scene;
