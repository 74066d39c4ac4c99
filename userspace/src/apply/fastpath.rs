//! BPF: programs, links, maps, pins.
