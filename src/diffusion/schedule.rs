//! The noise schedule
use serde::Deserialize;
/// x
#[derive(Clone, Debug, Deserialize)]
pub struct SchedulerConfig {}
