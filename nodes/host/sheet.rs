//! Contact sheets of picture files, outside of any graph: what a sweep ends with.

use std::path::Path;

use lsregen_diffusion::draw;
use lsregen_tensor::image;

/// Cells in a row where they have no columns of their own.
const COLUMNS: usize = 8;
/// Width of a cell in pixels, where they are few.
const CELL: u32 = 256;
/// Neither is a sheet wider than this, nor has it many more pixels than the square of it.
const SIDE: u32 = 8192;

/// Pictures and their labels. Where there is no picture, the cell is marked so.
pub enum Sheet<'a> {
    /// A label below each picture.
    Cells { pictures: &'a [Option<&'a Path>], labels: Vec<String> },
    /// Row by row, with a title before each row and above each column.
    Table { pictures: &'a [Option<&'a Path>], rows: Vec<String>, columns: Vec<String> },
}

/// The sheet as a PNG file.
///
/// # Errors
/// When a picture cannot be read, or there are as many cells as no sheet can hold.
pub fn png(sheet: Sheet) -> anyhow::Result<Vec<u8>> {
    let (pictures, columns) = match &sheet {
        Sheet::Cells { pictures, .. } => (*pictures, COLUMNS.min(pictures.len())),
        Sheet::Table { pictures, columns, .. } => (*pictures, columns.len()),
    };
    let width = |columns: usize| SIDE / u32::try_from(columns.max(1)).unwrap_or(u32::MAX);
    let cell = CELL.min(width(columns)).min(width(pictures.len().isqrt() + 1));
    anyhow::ensure!(cell >= 16, "{} pictures are too many for one sheet", pictures.len());
    let mut height = None;
    let mut small = vec![];
    for path in pictures {
        // Each is made small at once, so that no more than one is held at its full size.
        small.push(match path {
            None => None,
            Some(path) => {
                let picture = image::load(path)?;
                let tall = f64::from(cell) * f64::from(picture.height()) / f64::from(picture.width().max(1));
                let tall = (tall.round() as u32).clamp(1, 4 * cell);
                height = height.max(Some(tall));
                Some(image::fit(&picture, cell, tall, draw::WHITE))
            }
        });
    }
    let height = height.unwrap_or(cell);
    let cells: Vec<_> =
        small.into_iter().map(|picture| picture.unwrap_or_else(|| draw::missing(cell, height))).collect();
    let sheet = match &sheet {
        Sheet::Cells { labels, .. } => draw::contact_sheet(&cells, labels, columns, cell)?,
        Sheet::Table { rows, columns, .. } => draw::table(&cells, rows, columns, cell)?,
    };
    Ok(image::png(&sheet, &[])?)
}
