//! Rows of a bulk run from the layouts of a dataset: COCO, LVIS, YOLO, or the built-in world of shapes.
//!
//! [`coco::read`] and [`yolo::read`] return a [`Dataset`], from which [`assemble`] selects images and objects and makes
//! [`Row`]s. Whatever they leave out or change is counted in a [`Report`].

mod assemble;
mod bounds;
mod captions;
pub mod coco;
mod dataset;
mod id;
mod lenient;
mod phrase;
mod prompt;
mod python_random;
mod render;
mod report;
mod row;
mod select;
pub mod shapes;
mod size;
pub mod yolo;

pub use assemble::{Assembly, MissingCaption, assemble};
pub use captions::Captions;
pub use dataset::{Dataset, DatasetImage, DatasetObject};
pub use id::Id;
pub use phrase::{phrase, with_article};
pub use prompt::names_prompt;
pub use python_random::PythonRandom;
pub use render::render;
pub use report::{Reason, Report, Subject};
pub use row::{Row, RowBox, RowField};
pub use select::{Sample, Split};
pub use size::SizeRule;
