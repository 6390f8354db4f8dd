//! Opens thousands of malformed weights files: none may panic, and every error names the file.
//!
//! `examples/fuzz_weights` does the same for any number of files, and measures memory.

#[path = "../examples/fuzz_weights/files/mod.rs"]
#[allow(dead_code)]
mod files;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use files::{Corpus, load, open};

#[test]
fn no_weights_file_makes_opening_panic() {
    let corpus = Corpus::read(Path::new(env!("CARGO_MANIFEST_DIR")));
    let folder = tempfile::tempdir().unwrap();
    let (mut opened, mut loaded) = (0, 0);
    for seed in 0..4_000 {
        let (way, path, _) = corpus.write(seed, folder.path()).unwrap();
        let result = catch_unwind(AssertUnwindSafe(|| open(&path).map(load)));
        match result.unwrap_or_else(|_| panic!("seed {seed} ({way}) panicked")) {
            Ok(tensors) => {
                opened += 1;
                loaded += tensors;
            }
            Err(error) => assert!(error.contains(&folder.path().display().to_string()), "seed {seed} ({way}): {error}"),
        }
    }
    // The test would say little if most files, or none, were still valid.
    assert!((200..2_500).contains(&opened), "{opened} were opened");
    assert!(loaded > 100, "{loaded} tensors were loaded");
}
