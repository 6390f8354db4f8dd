//! The report: how many mutants were caught, and which were not.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use crate::mutant::Mutant;
use crate::run::{Fate, Verdict};

/// Counts of one row.
#[derive(Default)]
struct Row {
    caught: usize,
    timed_out: usize,
    survived: usize,
    unreached: usize,
}

impl Row {
    fn count(&mut self, fate: Fate) {
        match fate {
            Fate::Caught => self.caught += 1,
            Fate::TimedOut => self.timed_out += 1,
            Fate::Survived => self.survived += 1,
            Fate::Unreached => self.unreached += 1,
        }
    }

    fn line(&self, name: &str) -> String {
        let Row { caught, timed_out, survived, unreached } = self;
        let all = caught + timed_out + survived + unreached;
        let share = 100.0 * (caught + timed_out) as f64 / all.max(1) as f64;
        format!("| {name} | {all} | {caught} | {timed_out} | {survived} | {unreached} | {share:.0} % |")
    }
}

/// The report as Markdown.
pub fn report(mutants: &[Mutant], verdicts: &BTreeMap<u32, Verdict>) -> String {
    let judged = || mutants.iter().filter_map(|mutant| Some((mutant, verdicts.get(&mutant.id)?)));
    let mut text = String::from("# Mutants\n");
    for (title, bugs) in [("Written by hand", true), ("Made by rules", false)] {
        let mut rows = BTreeMap::<String, Row>::new();
        let mut all = Row::default();
        for (mutant, verdict) in judged().filter(|(mutant, _)| mutant.is_bug() == bugs) {
            let folder = Path::new(&mutant.file).parent().unwrap_or(Path::new("")).display().to_string();
            rows.entry(folder).or_default().count(verdict.fate);
            all.count(verdict.fate);
        }
        let planted = mutants.iter().filter(|mutant| mutant.is_bug() == bugs).count();
        let _ = writeln!(text, "\n## {title}\n\n{planted} planted.\n");
        let _ = writeln!(text, "| in | run | caught | timed out | survived | not reached | seen |");
        let _ = writeln!(text, "|---|---|---|---|---|---|---|");
        rows.iter().for_each(|(name, row)| text.push_str(&(row.line(name) + "\n")));
        text.push_str(&(all.line("all") + "\n"));
        let missed = judged().filter(|(mutant, verdict)| {
            mutant.is_bug() == bugs && matches!(verdict.fate, Fate::Survived | Fate::Unreached)
        });
        text.push('\n');
        for (mutant, verdict) in missed {
            let reached = if verdict.fate == Fate::Unreached { " (no test reaches it)" } else { "" };
            let _ = writeln!(text, "- {} {}{reached}", mutant.id, mutant.summary());
        }
    }
    text
}
