//! The kernel as safety net: addresses, routes, neighbours, sysctls, all by rtnetlink and procfs.
