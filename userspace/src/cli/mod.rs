//! The command line: one verb a file.

pub mod load;

/// Parses the command line and runs the verb.
pub fn main() -> std::process::ExitCode {
    std::process::ExitCode::SUCCESS
}
