//! Thousands of documents that nobody would write: none makes the check panic, and every error has a place.
//!
//! `tests/fuzz/main.rs` does the same for any number of documents.

mod documents;
mod judge;

use std::panic::{AssertUnwindSafe, catch_unwind};

use documents::{Corpus, LARGE, set_argument};
use judge::Judge;

use crate::repository;

#[test]
fn no_document_makes_the_check_panic() {
    let (corpus, judge) = (Corpus::read(&repository("")), Judge::new(&repository("")));
    let mut accepted = 0;
    for seed in 0..4_000 {
        let (way, text) = corpus.document(seed);
        match catch_unwind(AssertUnwindSafe(|| judge.judge(&text, &[]))) {
            Ok(good) => accepted += usize::from(good),
            Err(_) => panic!("seed {seed} ({way}):\n{text}"),
        }
    }
    // A corpus that is mostly valid, or not valid at all, would test little.
    assert!((10..2_000).contains(&accepted), "{accepted} were accepted");
}

#[test]
fn large_documents_do_not_make_the_check_panic() {
    let judge = Judge::new(&repository(""));
    for (way, make) in LARGE {
        let text = make(1 << 12);
        assert!(catch_unwind(AssertUnwindSafe(|| judge.judge(&text, &[]))).is_ok(), "{way}");
    }
}

#[test]
fn no_override_makes_the_check_panic() {
    let judge = Judge::new(&repository(""));
    let text = "lsregen: 1\nparams: { a: 1, b: x, größe: [] }\nnodes:\n  m: { type: ImageGrid, images: [], labels: ${größe}, \
                columns: ${a} }\n  s: { type: SaveImage, image: m, path: '${b}.png' }\n";
    for seed in 0..4_000 {
        let argument = set_argument(seed);
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            if let Some(given) = judge.set(&argument) {
                judge.judge(text, &[given]);
            }
        }));
        assert!(outcome.is_ok(), "seed {seed}: {argument:?}");
    }
}
