//! Runs the tests against each mutant.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::mutant::Mutant;
use crate::suite::{NO_PANIC, Outcome, Suite, Test};
use crate::tree::Tree;

/// Tests that take fewer seconds run together with others of their binary.
const QUICK: f64 = 1.0;

/// The result of a mutant.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Verdict {
    pub id: u32,
    pub fate: Fate,
    /// The test that failed.
    pub by: Option<String>,
    pub seconds: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fate {
    /// A test fails.
    Caught,
    /// The tests take more than five times as long as without it.
    TimedOut,
    /// Every test that reaches it passes.
    Survived,
    /// No test reaches it.
    Unreached,
}

/// Runs the tests against mutants, `jobs` at a time, and appends each verdict to a file immediately.
pub fn run(tree: &Tree, suite: &Suite, mutants: &[&Mutant], jobs: usize) -> Result<()> {
    let path = tree.state.join("results.jsonl");
    let file = fs::File::options().append(true).create(true).open(&path)?;
    let (queue, file) = (Mutex::new(mutants.iter().enumerate()), Mutex::new(file));
    let work = || -> Result<()> {
        loop {
            let Some((index, mutant)) = queue.lock().expect(NO_PANIC).next() else { return Ok(()) };
            let verdict = judge(tree, suite, mutant)?;
            let line = serde_json::to_string(&verdict)? + "\n";
            file.lock().expect(NO_PANIC).write_all(line.as_bytes())?;
            let by = verdict.by.as_deref().unwrap_or_default();
            let (fate, seconds, all) = (verdict.fate, verdict.seconds, mutants.len());
            println!("{}/{all} {} {fate:?} {seconds:.1} s {by}", index + 1, mutant.summary());
        }
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..jobs.max(1)).map(|_| scope.spawn(work)).collect();
        threads.into_iter().try_for_each(|thread| thread.join().expect(NO_PANIC))
    })
}

/// Returns the verdicts so far, by mutant.
pub fn verdicts(tree: &Tree) -> Result<BTreeMap<u32, Verdict>> {
    let text = fs::read_to_string(tree.state.join("results.jsonl")).unwrap_or_default();
    let read = |line| serde_json::from_str::<Verdict>(line).context("results.jsonl is malformed");
    text.lines().map(|line| read(line).map(|verdict| (verdict.id, verdict))).collect()
}

/// Runs the tests that reach a mutant, in the order of their batches, until one fails.
fn judge(tree: &Tree, suite: &Suite, mutant: &Mutant) -> Result<Verdict> {
    let start = Instant::now();
    let verdict = |fate, by| Verdict { id: mutant.id, fate, by, seconds: start.elapsed().as_secs_f64() };
    let batches = batches(suite, mutant.id);
    if batches.is_empty() {
        return Ok(verdict(Fate::Unreached, None));
    }
    for batch in batches {
        let binary = &suite.binaries[batch[0].binary];
        let names: Vec<_> = batch.iter().map(|test| test.name.as_str()).collect();
        let usual: f64 = batch.iter().map(|test| test.seconds).sum();
        let limit = Duration::from_secs_f64((5.0 * usual).max(30.0));
        match binary.run(tree, &names, ("LSREGEN_MUTANT", mutant.id.to_string()), limit)? {
            Outcome::Passed => {}
            Outcome::Failed(test) => return Ok(verdict(Fate::Caught, Some(format!("{}: {test}", binary.name)))),
            Outcome::TimedOut => return Ok(verdict(Fate::TimedOut, Some(binary.name.clone()))),
        }
    }
    Ok(verdict(Fate::Survived, None))
}

/// Returns the tests that reach a mutant in batches: first the quick tests of each binary, then each slow test alone;
/// within both, the fastest batch first.
fn batches(suite: &Suite, id: u32) -> Vec<Vec<&Test>> {
    let mut quick = BTreeMap::<usize, Vec<&Test>>::new();
    let mut slow = Vec::new();
    for test in suite.tests.iter().filter(|test| test.reached.contains(&id)) {
        if test.seconds < QUICK {
            quick.entry(test.binary).or_default().push(test);
        } else {
            slow.push(vec![test]);
        }
    }
    let mut batches: Vec<_> = quick.into_values().chain(slow).collect();
    batches.sort_by(|a, b| {
        let time = |batch: &[&Test]| batch.iter().map(|test| test.seconds).sum::<f64>();
        (a[0].seconds >= QUICK).cmp(&(b[0].seconds >= QUICK)).then(time(a).total_cmp(&time(b)))
    });
    batches
}

/// A part of the mutants, drawn by a seed; the whole if it has no more.
pub fn sample(mutants: Vec<&Mutant>, size: usize, seed: u64) -> Vec<&Mutant> {
    // SplitMix64 over the number of each mutant: the same mutants for the same seed.
    let hash = |id: u32| {
        let mut z = seed.wrapping_add(u64::from(id).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    };
    let mut drawn: Vec<_> = mutants.iter().map(|mutant| (hash(mutant.id), mutant.id)).collect();
    drawn.sort_unstable();
    let kept: BTreeSet<_> = drawn.into_iter().take(size).map(|(_, id)| id).collect();
    mutants.into_iter().filter(|mutant| kept.contains(&mutant.id)).collect()
}
