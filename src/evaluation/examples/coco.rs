//! Writes a file of annotations of the size of COCO's instances_val2017.json, reads it, and prints the times.
//!
//! `cargo run --release -p lsregen-evaluation --example coco`, with a number for a multiple of the size. A second argument
//! is a file to read instead, or the path at which the file is kept.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

use lsregen_evaluation::rows::{Assembly, MissingCaption, PythonRandom, SizeRule, Split, assemble, coco};

/// COCO's ids of categories are from 1 to 90, and 80 of them are used.
const GAPS: [u64; 10] = [12, 26, 29, 30, 45, 66, 68, 69, 71, 83];

/// Writes 5000 images and 36,781 annotations, `times` over. Their polygons have as many points as COCO's on average.
fn write(path: &Path, times: u64) -> std::io::Result<()> {
    let mut random = PythonRandom::new(0);
    let mut file = BufWriter::new(File::create(path)?);
    let (images, annotations) = (5000 * times, 36_781 * times);
    write!(file, "{{\"info\": {{\"year\": 2017}}, \"licenses\": [], \"images\": [")?;
    for i in 0..images {
        let comma = if i > 0 { ", " } else { "" };
        let (id, name) = (7 * i + 139, "http://images.cocodataset.org/val2017/000000000139.jpg");
        write!(
            file,
            "{comma}{{\"license\": 4, \"file_name\": \"{id:012}.jpg\", \"coco_url\": \"{name}\", \"height\": 480, \
             \"width\": 640, \"date_captured\": \"2013-11-14 17:02:52\", \"flickr_url\": \"{name}\", \"id\": {id}}}"
        )?;
    }
    write!(file, "], \"annotations\": [")?;
    let categories: Vec<u64> = (1..=90).filter(|id| !GAPS.contains(id)).collect();
    for i in 0..annotations {
        let comma = if i > 0 { ", " } else { "" };
        let image = 7 * u64::from(random.below(images as u32)) + 139;
        let (x, y) = (random.uniform(0.0, 500.0), random.uniform(0.0, 380.0));
        let (w, h) = (random.uniform(1.0, 140.0), random.uniform(1.0, 100.0));
        write!(file, "{comma}{{\"segmentation\": [[")?;
        for point in 0..56 {
            let comma = if point > 0 { ", " } else { "" };
            write!(file, "{comma}{:.2}", random.uniform(0.0, 640.0))?;
        }
        let (category, crowd) = (random.choice(&categories), u8::from(random.below(82) == 0));
        write!(
            file,
            "]], \"area\": {:.4}, \"iscrowd\": {crowd}, \"image_id\": {image}, \"bbox\": [{x:.2}, {y:.2}, {w:.2}, {h:.2}], \
             \"category_id\": {category}, \"id\": {}}}",
            w * h / 2.0,
            i + 1
        )?;
    }
    let categories: Vec<_> =
        categories.iter().map(|id| format!("{{\"id\": {id}, \"name\": \"object {id}\"}}")).collect();
    write!(file, "], \"categories\": [{}]}}", categories.join(", "))?;
    file.flush()
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let times = arguments.next().map_or(1, |times| times.parse().expect("a number"));
    let given = arguments.next().map(PathBuf::from);
    let path = given.clone().unwrap_or_else(|| std::env::temp_dir().join(format!("coco-{}.json", std::process::id())));
    if !given.as_ref().is_some_and(|given| given.exists()) {
        write(&path, times).expect("the file can be written");
    }
    let megabytes = path.metadata().expect("the file exists").len() as f64 / 1e6;
    let start = Instant::now();
    let mut dataset = coco::read(&path).expect("the file can be read");
    let read = start.elapsed();
    let how = Assembly {
        split: Split::Multi,
        most_objects: 30,
        captions: None,
        missing: MissingCaption::Names,
        size: SizeRule::default(),
        sample: None,
        limit: None,
    };
    let rows = assemble(&mut dataset, &how).expect("there are no captions");
    let (images, annotations) = (dataset.report.images, dataset.report.annotations);
    println!("{megabytes:.1} MB, {images} images, {annotations} annotations: read in {read:.2?}");
    println!("{} rows in {:.2?}\n{}", rows.len(), start.elapsed() - read, dataset.report);
    if given.is_none() {
        let _ = std::fs::remove_file(path);
    }
}
