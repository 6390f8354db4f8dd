//! Executes plans: the runs in progress, their tasks, the workers, and what a file records of its run.

mod executor;
mod job;
mod live;
mod record;
mod request;
mod scheduler;
mod state;
mod summary;
mod task;

pub use executor::{Executor, Running};
pub use record::{GraphRecord, Record, RecordError};
pub use request::RunRequest;
pub use summary::{Outcome, Summary};
