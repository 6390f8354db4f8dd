//! Contact sheets of image files, outside any graph: the last step of a sweep.

use std::path::Path;

use lsregen_diffusion::draw;
use lsregen_tensor::image;

/// Cells in a row of a sheet without columns.
const COLUMNS: usize = 8;
/// The largest width of a cell in pixels.
const CELL: u32 = 256;
/// The largest width of a sheet in pixels; its area is about the square of this at most.
const SIDE: u32 = 8192;

/// Images and their labels. The cell of a missing image is marked.
pub enum Sheet<'a> {
    /// A label below each image.
    Cells { pictures: &'a [Option<&'a Path>], labels: Vec<String> },
    /// Images row by row, with a title before each row and above each column.
    Table { pictures: &'a [Option<&'a Path>], rows: Vec<String>, columns: Vec<String> },
}

/// Returns the sheet as a PNG file.
///
/// # Errors
/// If an image cannot be read, or if there are too many cells for one sheet.
pub fn png(sheet: Sheet) -> anyhow::Result<Vec<u8>> {
    let (pictures, columns) = match &sheet {
        Sheet::Cells { pictures, .. } => (*pictures, COLUMNS.min(pictures.len())),
        Sheet::Table { pictures, columns, .. } => (*pictures, columns.len()),
    };
    let width = |columns: usize| SIDE / u32::try_from(columns.max(1)).unwrap_or(u32::MAX);
    let cell = CELL.min(width(columns)).min(width(pictures.len().isqrt() + 1));
    anyhow::ensure!(cell >= 16, "{} images are too many for one sheet", pictures.len());
    let mut height = None;
    let mut small = vec![];
    for path in pictures {
        // Each image is shrunk at once, so that memory holds only one at full size.
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Nine images without a table stand in two rows of at most eight, a third as high as wide.
    #[test]
    fn cells_stand_in_rows_of_eight() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("image.png");
        let wide = image::RgbImage::new(30, 10);
        std::fs::write(&path, image::png(&wide, &[]).unwrap()).unwrap();
        let size = |n: usize| {
            let pictures = vec![Some(path.as_path()); n];
            let sheet = png(Sheet::Cells { pictures: &pictures, labels: vec![] }).unwrap();
            image::decode(&sheet).unwrap().dimensions()
        };
        let gap = CELL / 24;
        let expected = |columns: u32, rows: u32| (columns * (CELL + gap) + gap, rows * (85 + gap) + gap);
        assert_eq!(size(3), expected(3, 1));
        assert_eq!(size(9), expected(8, 2));
    }
}
