//! The names of YOLO's classes.

use std::path::{Path, PathBuf};

use lsregen_evaluation::rows::yolo::{ClassNames, class_list};
use lsregen_files::Kind;
use serde::Deserialize;

use crate::cli::{Exit, usage};

/// Files of names, in the order in which they are looked for.
const FILES: [&str; 4] = ["data.yaml", "dataset.yaml", "classes.txt", "obj.names"];

/// What is used of a data.yaml.
#[derive(Deserialize)]
struct Data {
    names: Names,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Names {
    List(Vec<String>),
    ByClass(ClassNames),
}

/// Reads the names from `given`, or else from a file in the folder of labels or in one of the two above it.
///
/// # Errors
/// When there is none, or when it cannot be read; the reason is printed.
pub fn read(labels: &Path, given: Option<&Path>) -> Result<ClassNames, Exit> {
    let path = given.map(Path::to_path_buf).or_else(|| beside(labels)).ok_or_else(|| {
        usage(format!(
            "{}: there is no {} with the names of the classes, here or in the two folders above; give it as `--names FILE`",
            labels.display(),
            FILES.join(", ")
        ))
    })?;
    let text = lsregen_files::read_text(&path, Kind::SETTINGS);
    let text = text.map_err(|error| usage(format!("{}: cannot be read: {error}", path.display())))?;
    let is_yaml = path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml");
    let names = if is_yaml {
        let data: Data = serde_yaml::from_str(&text).map_err(|error| {
            let help = "write `names: [person, car]`, or a line `0: person` for each class below `names:`";
            usage(format!("{}: {error}; {help}", path.display()))
        })?;
        match data.names {
            Names::List(names) => (0..).zip(names).collect(),
            Names::ByClass(names) => names,
        }
    } else {
        class_list(&text)
    };
    match names.is_empty() {
        true => Err(usage(format!("{}: the file names no class; write one name a line", path.display()))),
        false => Ok(names),
    }
}

fn beside(labels: &Path) -> Option<PathBuf> {
    // A relative path has its folders above only when it is made absolute.
    let labels = std::path::absolute(labels).ok()?;
    let folders = labels.ancestors().take(3);
    folders.flat_map(|folder| FILES.map(|name| folder.join(name))).find(|path| path.is_file())
}
