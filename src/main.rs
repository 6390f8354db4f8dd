//! The `lsregen` command.

fn main() {}
