//! Measures how long a program works.

use std::sync::LazyLock;
use std::time::{Duration, Instant};

static START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Returns the time that this program has run on a processor, so that other programs cannot make it seem slow. Where
/// `/proc` is missing, returns the time since the first call.
pub fn spent() -> Duration {
    let ticks = || {
        let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
        // proc_pid_stat(5): utime and stime are fields 14 and 15, in hundredths of a second. The second is a name in
        // brackets.
        let fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11).take(2);
        fields.map(|field| field.parse::<u64>().ok()).sum::<Option<u64>>()
    };
    ticks().map_or_else(|| START.elapsed(), |ticks| Duration::from_millis(10 * ticks))
}
