//! Plans and runs of fake nodes, checked by the log of their events.

mod fake;
mod lanes;
mod memo;
mod run;
