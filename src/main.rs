//! The `lsregen` command: arguments → verb → exit code.

mod cli;

fn main() -> std::process::ExitCode {
    cli::main().into()
}
