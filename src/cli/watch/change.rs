//! Why the graph is read again, and when the change was seen.

use std::fs;
use std::time::SystemTime;

use lsregen_engine::Changed;

/// The reason for a refresh.
pub enum Cause {
    Start,
    Change(Changed),
    /// No file is known to have changed. Nothing is printed unless the plan differs.
    Retry,
}

/// The time from which the latency of a run is measured.
#[derive(Clone, Copy)]
pub struct Seen {
    at: SystemTime,
    since: Since,
}

#[derive(Clone, Copy)]
enum Since {
    /// The refresh itself.
    Refresh,
    /// The first notification of the change.
    Notification,
    /// The last write of the file, which came after the first notification.
    LastWrite,
}

impl Seen {
    pub fn of(cause: &Cause) -> Seen {
        let Cause::Change(changed) = cause else { return Seen { at: SystemTime::now(), since: Since::Refresh } };
        let times = changed.paths.iter().filter_map(|path| fs::metadata(path).ok()?.modified().ok());
        let now = SystemTime::now();
        match times.filter(|time| *time > changed.since && *time <= now).max() {
            Some(at) => Seen { at, since: Since::LastWrite },
            None => Seen { at: changed.since, since: Since::Notification },
        }
    }

    /// The time that has passed: `0.412 s after the change was seen`.
    pub fn elapsed(self) -> String {
        let seconds = self.at.elapsed().unwrap_or_default().as_secs_f64();
        match self.since {
            Since::Refresh => format!("{seconds:.3} s"),
            Since::Notification => format!("{seconds:.3} s after the change was seen"),
            Since::LastWrite => format!("{seconds:.3} s after the last write"),
        }
    }
}
