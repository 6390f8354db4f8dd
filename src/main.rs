//! The `lsregen` command: arguments → verb → exit code.

mod cli;

fn main() -> std::process::ExitCode {
    if std::env::var_os("RUST_LIB_BACKTRACE").is_none() {
        // RUST_BACKTRACE shows where the program panicked. candle would also append a backtrace to the text of every error.
        // SAFETY: there is no other thread yet.
        unsafe { std::env::set_var("RUST_LIB_BACKTRACE", "0") };
    }
    cli::main().into()
}
