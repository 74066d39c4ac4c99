//! Host configuration: the TOML file.
