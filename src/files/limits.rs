//! How many files a process may have open at a time.

/// The least with which a run can start: its runtime, its signals, its cache and the files of a node.
const LEAST: u64 = 24;

/// What is asked for where the system allows it.
const WANTED: u64 = 1024;

/// Raises the number of files that the process may have open, as far as it may and needs to.
///
/// # Errors
/// Says what to do if the limit is too low for a run.
pub fn raise_open_file_limit() -> Result<(), String> {
    match raised() {
        Some(limit) if limit < LEAST => Err(format!(
            "{limit} open files are too few: a run needs {LEAST}; raise the limit, as by `ulimit -n {WANTED}`"
        )),
        _ => Ok(()),
    }
}

/// The limit, after it was raised; `None` if the system does not tell it.
#[cfg(unix)]
fn raised() -> Option<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the pointer is to a structure of the type that the function fills.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } != 0 {
        return None;
    }
    #[allow(clippy::unnecessary_cast)] // The type differs from system to system.
    let (now, most) = (limit.rlim_cur as u64, limit.rlim_max as u64);
    if now >= WANTED {
        return Some(now);
    }
    let wanted = WANTED.min(most).max(now);
    limit.rlim_cur = wanted as libc::rlim_t;
    // SAFETY: the pointer is to a valid structure of the type that the function reads.
    let raised = unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) } == 0;
    Some(if raised { wanted } else { now })
}

#[cfg(not(unix))]
fn raised() -> Option<u64> {
    None
}
