//! Layouts: phrases in boxes.
//!
//! Deals with boxes as fractions of an image and the JSON files that contain them, not with models or YAML.

/// A box [x0, y0, x1, y1] in fractions of the image, with the origin at the top left.
pub type Bounds = [f32; 4];

/// An object of a layout: a phrase in a box.
#[derive(Clone, Debug, PartialEq)]
pub struct GroundedPhrase {
    /// The content of the box.
    pub phrase: String,
    /// The box.
    pub bounds: Bounds,
}

/// How far a side may lie outside the image, as a share of it, before the box counts as given in other units.
const FARTHEST: f64 = 1.0;

/// A side that lies outside by no more than this is there by rounding.
const ROUNDING: f64 = 1e-3;

/// Checks the box [x0, y0, x1, y1] in fractions of the image, and moves sides that lie outside to the edge. Returns the box,
/// and whether more than rounding was moved.
///
/// # Errors
/// Says what is invalid about the box.
pub fn bounds(given: [f64; 4]) -> std::result::Result<(Bounds, bool), String> {
    let [x0, y0, x1, y1] = given;
    if given.iter().any(|v| !v.is_finite()) {
        return Err("a box's numbers must be finite".into());
    }
    if given.iter().any(|v| !(-FARTHEST..=1.0 + FARTHEST).contains(v)) {
        return Err("a box is [x0, y0, x1, y1] in fractions of the image, not in pixels, each between 0 and 1".into());
    }
    if x1 <= x0 {
        return Err(format!("the box's right side x1 = {x1} must be right of its left side x0 = {x0}"));
    }
    if y1 <= y0 {
        return Err(format!("the box's lower side y1 = {y1} must be below its upper side y0 = {y0}"));
    }
    let inside = given.map(|v| v.clamp(0.0, 1.0) as f32);
    if inside[2] <= inside[0] || inside[3] <= inside[1] {
        return Err("the box has no area inside the image".into());
    }
    let is_moved = given.iter().any(|v| !(-ROUNDING..=1.0 + ROUNDING).contains(v));
    Ok((inside, is_moved))
}

/// Whether the centre of a cell of a grid of `height` × `width` is inside the box.
pub fn has_cell([x0, y0, x1, y1]: Bounds, height: usize, width: usize) -> bool {
    let holds = |from: f32, to: f32, n: usize| (0..n).map(|i| centre(i, n)).any(|v| (from..=to).contains(&v));
    holds(x0, x1, width) && holds(y0, y1, height)
}

fn centre(i: usize, n: usize) -> f32 {
    (i as f32 + 0.5) / n as f32
}

/// Returns the mask of boxes on a grid of `height` × `width` cells, row by row: 1 inside, falling to 0 over `feather`
/// outside.
///
/// `feather` is a fraction of the image's side. With 0, a cell is inside if its centre is inside.
pub fn mask(boxes: &[[f32; 4]], height: usize, width: usize, feather: f32) -> Vec<f32> {
    let weight = |x: f32, y: f32, [x0, y0, x1, y1]: [f32; 4]| {
        let (dx, dy) = ((x0 - x).max(x - x1).max(0.0), (y0 - y).max(y - y1).max(0.0));
        match dx.hypot(dy) {
            0.0 => 1.0,
            outside if outside < feather => 1.0 - outside / feather,
            _ => 0.0,
        }
    };
    let cells = (0..height).flat_map(|i| (0..width).map(move |j| (centre(j, width), centre(i, height))));
    cells.map(|(x, y)| boxes.iter().map(|b| weight(x, y, *b)).fold(0.0, f32::max)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mask_is_hard_or_fades() {
        let boxes = [[0.25, 0.0, 0.5, 1.0]];
        assert_eq!(mask(&boxes, 1, 8, 0.0), [0., 0., 1., 1., 0., 0., 0., 0.]);
        let soft = mask(&boxes, 1, 8, 0.25);
        let expected = [0.25, 0.75, 1.0, 1.0, 0.75, 0.25, 0.0, 0.0];
        assert!(soft.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6), "{soft:?}");
        assert_eq!(mask(&[[0.0, 0.0, 0.5, 0.5], [0.5, 0.5, 1.0, 1.0]], 2, 2, 0.0), [1., 0., 0., 1.]);
    }

    /// One rule for all four sides.
    #[test]
    fn sides_outside_the_image_move_to_its_edge() {
        let whole = [0.0, 0.0, 1.0, 1.0];
        assert_eq!(bounds(whole), Ok((whole.map(|v| v as f32), false)));
        for side in 0..4 {
            for (beyond, is_moved) in [(1e-7, false), (1e-3, false), (0.1, true), (1.0, true)] {
                let mut given = whole;
                given[side] += if side < 2 { -beyond } else { beyond };
                assert_eq!(bounds(given), Ok((whole.map(|v| v as f32), is_moved)), "{given:?}");
            }
        }
        for (given, words) in [
            ([0.5, 0.0, 0.2, 1.0], "x1 = 0.2"),
            ([0.0, 0.5, 1.0, 0.5], "y1 = 0.5"),
            ([0.0, 0.0, 128.0, 128.0], "not in pixels"),
            ([-1.1, 0.0, 0.5, 1.0], "not in pixels"),
            ([1.0, 0.0, 1.5, 1.0], "no area inside the image"),
            ([0.0, -0.5, 1.0, -0.1], "no area inside the image"),
            ([0.0, 0.0, f64::NAN, 1.0], "finite"),
            ([0.0, 0.0, f64::INFINITY, 1.0], "finite"),
        ] {
            let error = bounds(given).unwrap_err();
            assert!(error.contains(words), "{given:?}: {error}");
        }
    }
}
