//! Processes that are killed while they share a cache: what they leave is whole, or is found and removed.
//!
//! The full count takes minutes: `cargo test --release --test lsregen -- --ignored kill`.

use std::process::{Child, Stdio};
use std::thread;
use std::time::Instant;

use crate::cache::Case;
use crate::outcome;

#[test]
fn a_few_killed_runs_leave_a_sound_cache() {
    kill_runs(10);
}

#[test]
#[ignore = "takes minutes"]
fn kill_300_runs() {
    kill_runs(300);
}

/// Two at a time on one cache, until `count` runs were killed; then everything must be sound.
fn kill_runs(count: u64) {
    let (case, fresh) = (Case::new(), Case::new());
    let start = Instant::now();
    assert!(fresh.command("fresh", &["seed=1"]).output().unwrap().status.success());
    let whole = start.elapsed();

    let mut random = Random(count);
    let (mut killed, mut finished, mut sweeps) = (0, 0, 0);
    while killed < count {
        // Few seeds, so that the two often compute the same; times up to that of a whole run and a little more.
        let mut start = |slot: &str| {
            let seed = format!("seed={}", random.below(4));
            let mut command = case.command(slot, &[&seed]);
            command.stdout(Stdio::null()).stderr(Stdio::null());
            let wait = whole.mul_f64(random.below(1100) as f64 / 1000.0);
            (command.spawn().unwrap(), Instant::now() + wait)
        };
        let mut pair = [start("one"), start("two")];
        pair.sort_by_key(|(_, end)| *end);
        for (mut child, end) in pair {
            thread::sleep(end.saturating_duration_since(Instant::now()));
            if kill(&mut child) { killed += 1 } else { finished += 1 }
        }
        // Now and then everything goes, so that there is something to write.
        let verb = match random.below(12) {
            0 => "clear",
            1 | 2 => "gc",
            _ => continue,
        };
        let (stdout, stderr, code) = outcome(case.lsregen(&["cache", verb]).output().unwrap());
        assert_eq!((stderr.as_str(), code), ("", 0), "{stdout}");
        sweeps += 1;
    }

    let (stdout, stderr, code) = outcome(case.lsregen(&["cache", "verify"]).output().unwrap());
    assert_eq!((stdout.as_str(), stderr.as_str(), code), ("all is as it was written\n", "", 0));
    let left = || std::fs::read_dir(case.path("cache/v1/tmp")).unwrap().count();
    let half_done = left();
    assert!(case.lsregen(&["cache", "gc"]).output().unwrap().status.success());
    assert_eq!(left(), 0);
    for seed in ["seed=0", "seed=1", "seed=2", "seed=3"] {
        assert!(case.command("after", &[seed]).output().unwrap().status.success());
        assert!(fresh.command("fresh", &[seed]).output().unwrap().status.success());
        assert!(case.picture("after") == fresh.picture("fresh"), "{seed}: another picture than a fresh cache gives");
    }
    println!(
        "{killed} killed, {finished} finished first, {sweeps} sweeps, {half_done} temporary files left at the end"
    );
}

/// Whether it was still running.
fn kill(child: &mut Child) -> bool {
    let running = child.try_wait().unwrap().is_none();
    // SIGKILL on Unix.
    let _ = child.kill();
    let _ = child.wait();
    running
}

/// Pseudo-random numbers, the same each time: xorshift64*.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % bound
    }
}
