//! `lsregen rows`: rows for `lsregen run --inputs` from the layouts of a dataset.

mod names;
mod output;
mod select;

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use lsregen_evaluation::rows::shapes::{SceneSplit, TEST_SEED, TUNE_SEED, rows};
use lsregen_evaluation::rows::yolo::{ImageSizes, images_folder};
use lsregen_evaluation::rows::{Dataset, Report, RowField, assemble, coco, yolo};

use self::output::OutputRowArgs;
use self::select::SelectArgs;
use super::{Exit, terminal, usage};

/// Write the layouts of a dataset as rows for `lsregen run --inputs`
#[derive(Args)]
#[command(after_help = "Examples:
  lsregen rows coco --annotations instances_val2017.json --out rows.jsonl
  lsregen rows shapes --count 20 --graph graphs/lsregen.yaml --out rows.jsonl
  lsregen run graphs/lsregen.yaml --inputs rows.jsonl")]
pub struct RowsCommand {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    Coco(Annotations),
    /// The layouts of a file of LVIS, such as lvis_v1_val.json. Names such as `bow_(weapon)` become phrases such as `bow`
    #[command(after_help = "Examples:
  lsregen rows lvis --annotations lvis_v1_val.json --out rows.jsonl")]
    Lvis(Annotations),
    Yolo(Yolo),
    Shapes(Shapes),
}

/// The layouts of a file in COCO's form, such as instances_val2017.json
#[derive(Args)]
#[command(after_help = "Examples:
  lsregen rows coco --annotations instances_val2017.json --out rows.jsonl
  lsregen rows coco --annotations instances_val2017.json --split multi \\
      --captions captions_val2017.json --sample 500 --out rows.jsonl")]
struct Annotations {
    /// The file of annotations: an object with `images`, `annotations` and `categories`
    #[arg(long, value_name = "FILE")]
    annotations: PathBuf,

    #[command(flatten)]
    select: SelectArgs,

    #[command(flatten)]
    output: OutputRowArgs,
}

/// The layouts of a folder of YOLO's labels: a text file for each image, with a line `class x y width height` for each object
#[derive(Args)]
#[command(after_help = "Examples:
  lsregen rows yolo --labels data/labels/val --out rows.jsonl
  lsregen rows yolo --labels labels --size 640x480 --names classes.txt --out -")]
struct Yolo {
    /// The folder of labels
    #[arg(long, value_name = "DIR")]
    labels: PathBuf,

    /// The folder of images, from which sizes are read. By default the path of the labels with `images` for its last
    /// folder `labels`
    #[arg(long, value_name = "DIR", conflicts_with = "size")]
    images: Option<PathBuf>,

    /// The size of all images in pixels, such as 640x480, in place of image files
    #[arg(long, value_name = "WxH", value_parser = size)]
    size: Option<(u32, u32)>,

    /// The names of the classes: a data.yaml with `names`, or a text file with one a line. By default data.yaml, classes.txt or
    /// obj.names in the folder of labels or in one of the two above it
    #[arg(long, value_name = "FILE")]
    names: Option<PathBuf>,

    #[command(flatten)]
    select: SelectArgs,

    #[command(flatten)]
    output: OutputRowArgs,
}

/// Layouts of the built-in world of coloured shapes, which the models shapes/gligen and shapes/xl generate
#[derive(Args)]
#[command(after_help = "Examples:
  lsregen rows shapes --set tune --graph graphs/lsregen.yaml --out tune.jsonl
  lsregen rows shapes --world-seed 5 --count 1000 --split single --out -")]
struct Shapes {
    /// The layouts of docs/evaluation.md: `tune`, on which settings were chosen, or `test`, on which results are reported
    #[arg(long, default_value = "test")]
    set: ShapesSet,

    /// Seed of other layouts, in place of `--set`
    #[arg(long, value_name = "SEED", conflicts_with = "set")]
    world_seed: Option<u64>,

    /// How many layouts
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    count: u32,

    /// Which layouts
    #[arg(long, default_value = "alternate")]
    split: ShapesSplit,

    #[command(flatten)]
    output: OutputRowArgs,
}

#[derive(Clone, Copy, ValueEnum)]
enum ShapesSet {
    Tune,
    Test,
}

#[derive(Clone, Copy, ValueEnum)]
enum ShapesSplit {
    /// In turn one with one shape, and one with two or three
    Alternate,
    /// Those with one shape
    Single,
    /// Those with two or three shapes
    Multi,
    /// All, as they are drawn
    All,
}

impl RowsCommand {
    pub fn main(self) -> Result<Exit, Exit> {
        match self.verb {
            Verb::Coco(verb) | Verb::Lvis(verb) => verb.main(),
            Verb::Yolo(verb) => verb.main(),
            Verb::Shapes(verb) => verb.main(),
        }
    }
}

/// The parameters of a row by default.
const FIELDS: &[RowField] = &[RowField::Prompt, RowField::Boxes, RowField::Width, RowField::Height, RowField::Seed];

impl Annotations {
    fn main(self) -> Result<Exit, Exit> {
        let output = self.output.open(FIELDS)?;
        write(coco::read(&self.annotations).map_err(usage)?, &self.select, &output)
    }
}

impl Yolo {
    fn main(self) -> Result<Exit, Exit> {
        let output = self.output.open(FIELDS)?;
        let sizes = match (self.size, &self.images) {
            (Some((width, height)), _) => ImageSizes::Same(width, height),
            (None, Some(folder)) => ImageSizes::Folder(folder.clone()),
            (None, None) => ImageSizes::Folder(images_folder(&self.labels)),
        };
        let names = names::read(&self.labels, self.names.as_deref())?;
        write(yolo::read(&self.labels, &names, &sizes).map_err(usage)?, &self.select, &output)
    }
}

impl Shapes {
    fn main(self) -> Result<Exit, Exit> {
        let known = [FIELDS, &[RowField::SeedSmall, RowField::SeedLarge]].concat();
        let output = self.output.open(&known)?;
        let seed = self.world_seed.unwrap_or(match self.set {
            ShapesSet::Tune => TUNE_SEED,
            ShapesSet::Test => TEST_SEED,
        });
        let split = match self.split {
            ShapesSplit::Alternate => SceneSplit::Alternate,
            ShapesSplit::Single => SceneSplit::Single,
            ShapesSplit::Multi => SceneSplit::Multi,
            ShapesSplit::All => SceneSplit::All,
        };
        let rows = rows(self.count as usize, seed, split);
        output.write(&rows)?;
        terminal::say(&format!("{}: {}\n", output.name(), counted(rows.len(), "row")));
        Ok(Exit::Done)
    }
}

/// Writes the rows of a dataset, and prints what was left out.
fn write(mut dataset: Dataset, select: &SelectArgs, output: &output::RowOutput) -> Result<Exit, Exit> {
    let captions = select.captions()?;
    let rows = assemble(&mut dataset, &select.assembly(captions.as_ref())).map_err(usage)?;
    let report: Report = dataset.report;
    let from = format!("of {} with {}", counted(report.images, "image"), counted(report.annotations, "annotation"));
    if rows.is_empty() {
        terminal::complain(format!("no rows, {from}; choose another `--split`, or correct the dataset\n{report}"));
        return Err(Exit::Failed);
    }
    output.write(&rows)?;
    terminal::say(&format!("{}: {}, {from}\n{report}", output.name(), counted(rows.len(), "row")));
    Ok(Exit::Done)
}

fn counted(count: usize, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

/// Parses `640x480`.
fn size(text: &str) -> Result<(u32, u32), String> {
    let sides = text.to_lowercase();
    let sides = sides.split_once(['x', '×']).and_then(|(w, h)| Some((w.trim().parse().ok()?, h.trim().parse().ok()?)));
    sides.filter(|(w, h)| *w > 0 && *h > 0).ok_or_else(|| "not a size; write width and height, such as 640x480".into())
}
