//! Plans and runs of fake nodes, told by their event log.

mod fake;
mod lanes;
mod memo;
mod run;
