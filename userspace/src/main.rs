//! The `serval` binary: parses the command line and calls the verb.

fn main() -> std::process::ExitCode {
    serval::cli::main()
}
