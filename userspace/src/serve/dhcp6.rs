//! DHCPv6 server.
