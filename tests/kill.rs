//! Processes that are killed while they share a cache leave complete results, or files that are found and removed.
//!
//! The full number of runs takes minutes: `cargo test --release --test lsregen -- --ignored kill`.

use std::fs;
use std::process::{Child, Stdio};
use std::thread;
use std::time::Instant;

use crate::cache::Case;
use crate::outcome;

#[test]
fn a_few_killed_runs_leave_an_intact_cache() {
    kill_runs(10);
}

#[test]
#[ignore = "takes minutes"]
fn kill_300_runs() {
    kill_runs(300);
}

/// Runs two processes at a time on one cache until `count` were killed, and then verifies the cache.
fn kill_runs(count: u64) {
    let (case, fresh) = (Case::new(), Case::new());
    let start = Instant::now();
    assert!(fresh.command("fresh", &["seed=1"]).output().unwrap().status.success());
    let whole = start.elapsed();

    let mut random = Random(count);
    let (mut killed, mut finished, mut sweeps, mut torn) = (0, 0, 0, 0);
    let half_done = || fs::read_dir(case.path("cache/v1/tmp")).map_or(0, |files| files.count());
    while killed < count {
        // Few seeds, so that both processes often compute the same results.
        let start = |slot: &str, random: &mut Random| {
            let seed = format!("seed={}", random.below(4));
            let mut command = case.command(slot, &[&seed]);
            command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
        };
        for mut child in [start("one", &mut random), start("two", &mut random)] {
            // Kills at any time within a run, or during the short time in which it writes.
            match random.below(3) {
                0 => while half_done() == 0 && child.try_wait().unwrap().is_none() {},
                _ => thread::sleep(whole.mul_f64(random.below(1000) as f64 / 1000.0)),
            }
            if kill(&mut child) { killed += 1 } else { finished += 1 }
        }
        torn += usize::from(half_done() > 0);
        // The cache is cleared now and then, so that there is something to write.
        let verb = match random.below(8) {
            0..3 => "clear",
            3 => "gc",
            _ => continue,
        };
        let (stdout, stderr, code) = outcome(case.lsregen(&["cache", verb]).output().unwrap());
        assert_eq!((stderr.as_str(), code), ("", 0), "{stdout}");
        assert_eq!(half_done(), 0, "after {verb}");
        sweeps += 1;
    }

    let (stdout, stderr, code) = outcome(case.lsregen(&["cache", "verify"]).output().unwrap());
    assert_eq!((stdout.as_str(), stderr.as_str(), code), ("the cache is intact\n", "", 0));
    assert!(case.lsregen(&["cache", "gc"]).output().unwrap().status.success());
    assert_eq!(half_done(), 0);
    for seed in ["seed=0", "seed=1", "seed=2", "seed=3"] {
        // A folder of its own, so that each has the first number.
        assert!(case.command(seed, &[seed]).output().unwrap().status.success());
        assert!(fresh.command(seed, &[seed]).output().unwrap().status.success());
        assert!(case.picture(seed) == fresh.picture(seed), "{seed}: another picture than a fresh cache gives");
    }
    println!("{killed} killed, {finished} finished first; {torn} times files were left half written; {sweeps} sweeps");
}

/// Ctrl-C and SIGTERM end a run alike: the step ends, the message says how to go on, and what was computed is cached.
#[cfg(unix)]
#[test]
fn a_run_that_is_asked_to_stop_stops_after_its_step() {
    for (signal, code, again) in [("-INT", 130, "press Ctrl-C again"), ("-TERM", 143, "send SIGTERM again")] {
        let case = Case::new();
        let mut command = case.command("out", &["steps=900"]);
        let events = case.path("events.jsonl");
        command.arg("--events").arg(&events).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = command.spawn().unwrap();
        let step = |events: &str| events.lines().filter(|line| line.contains("\"step\"")).count() > 2;
        while !fs::read_to_string(&events).is_ok_and(|events| step(&events)) {
            thread::sleep(std::time::Duration::from_millis(10));
        }
        let sent = std::process::Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap();
        assert!(sent.success());
        let (_, stderr, ended) = outcome(child.wait_with_output().unwrap());
        assert_eq!(ended, code, "{stderr}");
        assert!(stderr.contains(&format!("stopping after this step; {again} to stop at once")), "{stderr}");
        assert!(stderr.contains("cancelled: 0 files") && stderr.contains("the same command goes on"), "{stderr}");
        let events = fs::read_to_string(&events).unwrap();
        assert!(events.lines().last().unwrap().contains("\"run_finished\""), "{events}");
    }
}

/// Kills the process; returns whether it was still running.
fn kill(child: &mut Child) -> bool {
    let running = child.try_wait().unwrap().is_none();
    // SIGKILL on Unix.
    let _ = child.kill();
    let _ = child.wait();
    running
}

/// Pseudo-random numbers from a fixed seed: xorshift64*.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % bound
    }
}
