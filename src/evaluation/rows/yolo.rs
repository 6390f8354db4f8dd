//! YOLO's labels: a folder with a text file for each image.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Component, Path, PathBuf};

use lsregen_files::Kind;
use lsregen_tensor::{Error, Result, image};

use super::bounds::{box_area, fractions};
use super::dataset::{Dataset, DatasetImage, DatasetObject};
use super::id::{Id, row_name};
use super::phrase::phrase;
use super::report::{Reason, Report};

/// The most bytes of a file of labels.
const MOST_BYTES: u64 = 64 << 20;

/// Extensions of image files that can be read.
const IMAGES: [&str; 4] = ["jpg", "jpeg", "png", "webp"];

/// Files with other contents that lie among labels.
const NOT_LABELS: [&str; 4] = ["classes.txt", "train.txt", "val.txt", "test.txt"];

/// The names of classes by number.
pub type ClassNames = BTreeMap<u64, String>;

/// Where the sizes of images come from.
#[derive(Clone, Debug, PartialEq)]
pub enum ImageSizes {
    /// From the image files in a folder.
    Folder(PathBuf),
    /// All have the same width and height in pixels.
    Same(u32, u32),
}

/// Returns the folder of the images of a folder of labels, by YOLO's rule: the last folder `labels` of its path becomes
/// `images`. Without one, it is the folder itself.
pub fn images_folder(labels: &Path) -> PathBuf {
    let parts: Vec<_> = labels.components().collect();
    match parts.iter().rposition(|part| part.as_os_str() == "labels") {
        Some(at) => {
            let rename =
                |(i, part): (usize, &Component)| if i == at { "images".into() } else { part.as_os_str().to_owned() };
            parts.iter().enumerate().map(rename).collect()
        }
        None => labels.into(),
    }
}

/// Returns the names in a `classes.txt`: one a line, from class 0.
pub fn class_list(text: &str) -> ClassNames {
    let lines = text.trim_start_matches('\u{feff}').lines().map(|line| line.trim().to_string());
    (0..).zip(lines).filter(|(_, name)| !name.is_empty()).collect()
}

/// Reads the labels in a folder. A line has the class and either the centre, width and height of a box, with or without a
/// confidence, or the corners of a polygon, of which the box is taken; all in fractions.
///
/// # Errors
/// If the folder or a file cannot be read, if there are no labels, or if a line is malformed. The error names the file and
/// the line.
pub fn read(labels: &Path, names: &ClassNames, sizes: &ImageSizes) -> Result<Dataset> {
    let files = files(labels, &["txt"])?;
    let mut files: Vec<_> =
        files.into_iter().filter(|(_, path)| !NOT_LABELS.iter().any(|name| path.ends_with(name))).collect();
    files.sort();
    if files.is_empty() {
        return Err(Error::Input(format!(
            "{}: the folder has no labels; give the one that holds a `.txt` file for each image",
            labels.display()
        )));
    }
    let images: HashMap<_, _> = match sizes {
        ImageSizes::Folder(folder) => files_by_stem(folder)?,
        ImageSizes::Same(..) => HashMap::new(),
    };
    let names = names.iter().map(|(class, name)| (*class, phrase(name))).filter(|(_, name)| !name.is_empty()).collect();
    let mut report = Report::default();
    let mut read: BTreeMap<Id, DatasetImage> = BTreeMap::new();
    for (stem, path) in files {
        report.images += 1;
        let size = match sizes {
            ImageSizes::Same(width, height) => Some((*width, *height)),
            ImageSizes::Folder(_) => images.get(&stem).map(|path| image::dimensions(path)).transpose()?,
        };
        let lines = lines(&path)?;
        report.annotations += lines.len();
        let id = Id::parse(&stem);
        let Some((width, height)) = size else {
            report.add(Reason::NoImageFile, &stem);
            continue;
        };
        let (width, height) = (f64::from(width), f64::from(height));
        let mut image = DatasetImage { name: row_name(&stem), id: id.clone(), width, height, objects: vec![] };
        for line in lines {
            let label = format!("{}:{}", path.display(), line.number);
            match object(&line, &names, (width, height)) {
                Ok((object, is_clipped)) => {
                    image.objects.push(object);
                    if is_clipped {
                        report.add(Reason::Clipped, label);
                    }
                }
                Err(reason) => report.add(reason, label),
            }
        }
        // `1.txt` and `01.txt`.
        match read.entry(id) {
            Entry::Occupied(_) => report.add(Reason::RepeatedImage, &stem),
            Entry::Vacant(entry) => _ = entry.insert(image),
        }
    }
    Ok(Dataset { images: read.into_values().collect(), report })
}

/// The files of a folder with one of these extensions, after their names without it.
fn files(folder: &Path, extensions: &[&str]) -> Result<Vec<(String, PathBuf)>> {
    let mut found = vec![];
    for entry in fs::read_dir(folder).map_err(Error::io(folder))? {
        let path = entry.map_err(Error::io(folder))?.path();
        let extension = path.extension().unwrap_or_default().to_string_lossy().to_lowercase();
        if extensions.contains(&&*extension) {
            found.push((path.file_stem().unwrap_or_default().to_string_lossy().into_owned(), path));
        }
    }
    Ok(found)
}

fn files_by_stem(folder: &Path) -> Result<HashMap<String, PathBuf>> {
    let mut files = files(folder, &IMAGES)?;
    // Of `a.jpg` and `a.png`, the first is used.
    files.sort();
    files.reverse();
    if files.is_empty() {
        return Err(Error::Input(format!(
            "{}: the folder has no images (JPEG, PNG or WebP), from which sizes are read; give it as `--images`, or all \
             sizes as `--size`",
            folder.display()
        )));
    }
    Ok(files.into_iter().collect())
}

/// A line of a file of labels.
struct Line {
    /// From 1.
    number: u64,
    class: u64,
    /// Centre, width and height of a box, or the corners of a polygon.
    values: Vec<f64>,
}

fn lines(path: &Path) -> Result<Vec<Line>> {
    let text = lsregen_files::read_text(path, Kind::ANNOTATIONS.at_most(MOST_BYTES)).map_err(Error::io(path))?;
    let mut lines = vec![];
    for (number, line) in (1..).zip(text.trim_start_matches('\u{feff}').lines()) {
        let broken = |what: String| {
            let help = "a line is `class x y width height`, in fractions of the image";
            Error::Input(format!("{}:{number}: {what}; {help}", path.display()))
        };
        let mut words = line.split_whitespace();
        let Some(first) = words.next() else { continue };
        let class = first.parse::<f64>().ok().filter(|class| class.fract() == 0.0 && (0.0..1e9).contains(class));
        let class = class.ok_or_else(|| broken(format!("`{first}` is not the number of a class")))? as u64;
        let number_of = |word: &str| word.parse::<f64>().map_err(|_| broken(format!("`{word}` is not a number")));
        let mut values = words.map(number_of).collect::<Result<Vec<_>>>()?;
        match values.len() {
            4 => {}
            // A confidence.
            5 => values.truncate(4),
            corners if corners >= 6 && corners % 2 == 0 => {}
            count => return Err(broken(format!("the class is followed by {count} numbers"))),
        }
        lines.push(Line { number, class, values });
    }
    Ok(lines)
}

/// The object of a line, and whether its box was clipped.
fn object(line: &Line, names: &ClassNames, size: (f64, f64)) -> Result<(DatasetObject, bool), Reason> {
    let name = names.get(&line.class).ok_or(Reason::UnknownCategory)?;
    let [x, y, w, h] = match line.values[..] {
        [x, y, w, h] => [x - w / 2.0, y - h / 2.0, w, h],
        ref corners if corners.iter().any(|v| !v.is_finite()) => return Err(Reason::NotFinite),
        ref corners => {
            let side = |first: usize| corners.iter().skip(first).step_by(2).copied();
            let (least, most) = (
                |first| side(first).fold(f64::INFINITY, f64::min),
                |first| side(first).fold(f64::NEG_INFINITY, f64::max),
            );
            [least(0), least(1), most(0) - least(0), most(1) - least(1)]
        }
    };
    let (bounds, is_clipped) = fractions([x, y, w, h], (1.0, 1.0))?;
    let id = Some(Id::Number(line.number));
    Ok((DatasetObject { id, phrase: name.clone(), bounds, area: box_area(bounds, size) }, is_clipped))
}
