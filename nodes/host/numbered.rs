//! The names of the files of a batch.

use std::path::{Path, PathBuf};

/// The name of an image's own seed, as the engine leaves it in a path: `{seed=7}`, where 7 is the value of the parameter.
const SEED: &str = "{seed=";

/// Returns the path of a file that is not one of a batch.
pub(crate) fn single(path: &Path) -> PathBuf {
    with_seed(path, None).0
}

/// Returns the paths of the files of a batch of `count` images whose seeds are `seeds`, if they are known.
///
/// An image's own seed, or the `{counter}`, tells the files apart. Otherwise the number of the image follows the name.
pub(crate) fn batch(path: &Path, count: usize, seeds: &[u64]) -> Vec<PathBuf> {
    let of_image = |image: usize| {
        let (path, is_own) = with_seed(path, seeds.get(image).copied());
        let is_counted = path.file_name().is_some_and(|name| name.to_string_lossy().contains("{counter}"));
        if count == 1 || is_own || is_counted { path } else { with_number(&path, image + 1) }
    };
    (0..count).map(of_image).collect()
}

/// Puts the seed into the path, or the value of the parameter if the seed is not known. Returns whether the path has the seed.
fn with_seed(path: &Path, seed: Option<u64>) -> (PathBuf, bool) {
    let text = path.to_string_lossy();
    let (mut filled, mut rest, mut is_own) = (String::new(), &*text, false);
    while let Some((before, after)) = rest.split_once(SEED) {
        let Some((value, after)) = after.split_once('}') else { break };
        filled += before;
        filled += &seed.map_or_else(|| value.to_string(), |seed| seed.to_string());
        is_own |= seed.is_some();
        rest = after;
    }
    // A path without it stays as it is, even if it is not UTF-8.
    if filled.is_empty() && rest == text { (path.into(), false) } else { ((filled + rest).into(), is_own) }
}

fn with_number(path: &Path, number: usize) -> PathBuf {
    let mut name = path.file_stem().unwrap_or_default().to_os_string();
    name.push(format!("-{number}"));
    if let Some(extension) = path.extension() {
        name.push(".");
        name.push(extension);
    }
    path.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_image_of_a_batch_has_its_own_name() {
        for (path, seeds, names) in [
            ("out/a.png", &[7, 8][..], ["out/a-1.png", "out/a-2.png"]),
            ("out/a.b.png", &[], ["out/a.b-1.png", "out/a.b-2.png"]),
            ("a-{counter}.png", &[7, 8], ["a-{counter}.png", "a-{counter}.png"]),
            ("{seed=7}.png", &[7, 8], ["7.png", "8.png"]),
            ("{seed=1}/{seed=1}.png", &[7, 8], ["7/7.png", "8/8.png"]),
            ("{seed=7}/a.png", &[7, 8], ["7/a.png", "8/a.png"]),
            ("{seed=7}.png", &[], ["7-1.png", "7-2.png"]),
            ("{date}.png", &[7, 8], ["{date}-1.png", "{date}-2.png"]),
            ("{seed=7.png", &[7, 8], ["{seed=7-1.png", "{seed=7-2.png"]),
        ] {
            assert_eq!(batch(Path::new(path), 2, seeds), names.map(PathBuf::from), "{path}");
        }
        assert_eq!(batch(Path::new("a.png"), 1, &[]), [PathBuf::from("a.png")]);
        assert_eq!(single(Path::new("{seed=7}/{seed=8}.png")), Path::new("7/8.png"));
    }
}
