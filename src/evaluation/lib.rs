//! Layouts of datasets, metrics of images, and their statistics.

#![warn(missing_docs)]

pub mod rows;
