//! What all datasets have in common: images with objects in boxes.

use super::id::Id;
use super::report::Report;

/// The layouts of a dataset.
#[derive(Clone, Debug)]
pub struct Dataset {
    /// The images, by id.
    pub images: Vec<DatasetImage>,
    /// What was left out while the dataset was read.
    pub report: Report,
}

/// An image of a dataset.
#[derive(Clone, Debug, PartialEq)]
pub struct DatasetImage {
    /// Its id.
    pub id: Id,
    /// The name of its row.
    pub name: String,
    /// Its width in pixels, above 0.
    pub width: f64,
    /// Its height in pixels, above 0.
    pub height: f64,
    /// Its objects, in the order of the file.
    pub objects: Vec<DatasetObject>,
}

/// An object of an image.
#[derive(Clone, Debug, PartialEq)]
pub struct DatasetObject {
    /// The id of its annotation.
    pub id: Option<Id>,
    /// The name of its category.
    pub phrase: String,
    /// x0 y0 x1 y1 in fractions of the image, inside it.
    pub bounds: [f64; 4],
    /// Its area in square pixels, as annotated, or else of its box.
    pub area: f64,
}
