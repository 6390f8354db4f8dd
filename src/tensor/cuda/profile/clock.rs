//! The time of a profile.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

static START: OnceLock<Instant> = OnceLock::new();

/// The time since the profile was started, which the first call does.
pub(super) fn since_start() -> Duration {
    START.get_or_init(Instant::now).elapsed()
}
