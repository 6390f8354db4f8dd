//! Layouts of datasets, metrics of images, and their statistics.
