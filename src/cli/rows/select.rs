//! Which images and objects of a dataset become rows, with which prompts and sizes.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use lsregen_evaluation::rows::{Assembly, Captions, MissingCaption, Sample, SizeRule, Split};

use crate::cli::{Exit, usage};

/// How the rows of a dataset are made.
#[derive(Args)]
pub struct SelectArgs {
    /// Which images, and which of their objects. Crowds and invalid boxes do not count
    #[arg(long, default_value = "all")]
    split: SplitArg,

    /// The most objects of a row, the largest ones; GLIGEN models are trained with 30
    #[arg(long, value_name = "N", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..))]
    max_objects: u32,

    /// Captions as prompts: COCO's captions_….json, a list or lines of `{"image_id": …, "caption": …}`, or an object of
    /// captions by image. Without it, prompts name the objects: `a person and a surfboard`
    #[arg(long, value_name = "FILE")]
    captions: Option<PathBuf>,

    /// An image that has no caption
    #[arg(long, default_value = "names", requires = "captions")]
    without_caption: WithoutCaption,

    /// Factor from the image's size to `width` and `height`
    #[arg(long, default_value_t = 3.0, value_parser = scale)]
    scale: f64,

    /// `width` and `height` are rounded to a multiple of this number of pixels
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=1024))]
    multiple: u32,

    /// The most pixels of `width` × `height`; a larger image is scaled down
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    max_pixels: Option<u64>,

    /// Draw N of the rows at random; they stay in their order
    #[arg(long, value_name = "N")]
    sample: Option<u32>,

    /// Seed of the draw: the sample is that of Python's `random.Random(SEED).sample`
    #[arg(long, value_name = "SEED", default_value_t = 0, requires = "sample")]
    sample_seed: u64,

    /// The most rows; the first ones are kept
    #[arg(long, value_name = "N")]
    limit: Option<u32>,
}

#[derive(Clone, Copy, ValueEnum)]
enum SplitArg {
    /// Images with exactly one object
    Single,
    /// Images with two objects or more: the two with the largest annotated areas
    Multi,
    /// All images, with all of their objects
    All,
}

#[derive(Clone, Copy, ValueEnum)]
enum WithoutCaption {
    /// The prompt names the objects
    Names,
    /// The image is left out
    Drop,
    /// The command fails
    Error,
}

impl SelectArgs {
    /// Reads the file of captions, if one is given.
    ///
    /// # Errors
    /// When it cannot be read; the reason is printed.
    pub fn captions(&self) -> Result<Option<Captions>, Exit> {
        self.captions.as_deref().map(Captions::read).transpose().map_err(usage)
    }

    /// How the rows are made.
    pub fn assembly<'a>(&self, captions: Option<&'a Captions>) -> Assembly<'a> {
        Assembly {
            split: match self.split {
                SplitArg::Single => Split::Single,
                SplitArg::Multi => Split::Multi,
                SplitArg::All => Split::All,
            },
            most_objects: self.max_objects as usize,
            captions,
            missing: match self.without_caption {
                WithoutCaption::Names => MissingCaption::Names,
                WithoutCaption::Drop => MissingCaption::LeaveOut,
                WithoutCaption::Error => MissingCaption::Fail,
            },
            size: SizeRule { scale: self.scale, multiple: self.multiple, most_pixels: self.max_pixels },
            sample: self.sample.map(|count| Sample { count: count as usize, seed: self.sample_seed }),
            limit: self.limit.map(|limit| limit as usize),
        }
    }
}

fn scale(text: &str) -> Result<f64, String> {
    let scale = text.parse().ok().filter(|scale: &f64| scale.is_finite() && (0.01..=1000.0).contains(scale));
    scale.ok_or_else(|| "not a factor; write a number from 0.01 to 1000, such as 3".into())
}
