//! Boxes in pixels become boxes in fractions.

use super::report::Reason;

/// A side that lies outside by no more than this share of the image is there by rounding.
const ROUNDING: f64 = 1e-3;

/// Larger numbers stand for infinity: see [`lenient`](super::lenient).
const LARGEST: f64 = 1e300;

/// Converts COCO's x, y, width, height in pixels to x0, y0, x1, y1 in fractions of an image of `size`, and clips them to
/// the image. Returns whether more than rounding was clipped.
///
/// # Errors
/// The reason to leave the box out.
pub(super) fn fractions([x, y, w, h]: [f64; 4], size: (f64, f64)) -> Result<([f64; 4], bool), Reason> {
    if [x, y, w, h].iter().any(|v| v.is_nan() || v.abs() >= LARGEST) {
        return Err(Reason::NotFinite);
    }
    if w <= 0.0 || h <= 0.0 {
        return Err(Reason::NoArea);
    }
    let given = [x / size.0, y / size.1, (x + w) / size.0, (y + h) / size.1];
    if given[2] <= 0.0 || given[3] <= 0.0 || given[0] >= 1.0 || given[1] >= 1.0 {
        return Err(Reason::Outside);
    }
    let inside = given.map(|v| v.clamp(0.0, 1.0));
    // Nodes hold boxes as f32.
    let [x0, y0, x1, y1] = inside.map(|v| v as f32);
    if x0 >= x1 || y0 >= y1 {
        return Err(Reason::NoArea);
    }
    let is_clipped = given.iter().any(|v| !(-ROUNDING..=1.0 + ROUNDING).contains(v));
    Ok((inside, is_clipped))
}

/// Returns the area in square pixels of a box in fractions of an image of `size`.
pub(super) fn box_area([x0, y0, x1, y1]: [f64; 4], size: (f64, f64)) -> f64 {
    (x1 - x0) * size.0 * ((y1 - y0) * size.1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::PythonRandom;

    #[test]
    fn each_kind_of_box_has_its_outcome() {
        let size = (200.0, 100.0);
        for (pixels, expected) in [
            ([20.0, 10.0, 100.0, 50.0], Ok(([0.1, 0.1, 0.6, 0.6], false))),
            ([-10.0, 0.0, 60.0, 100.0], Ok(([0.0, 0.0, 0.25, 1.0], true))),
            ([0.0, 0.0, 200.01, 100.0], Ok(([0.0, 0.0, 1.0, 1.0], false))),
            ([0.0, 0.0, 0.0, 10.0], Err(Reason::NoArea)),
            ([0.0, 0.0, 10.0, -1.0], Err(Reason::NoArea)),
            ([100.0, 0.0, 1e-9, 10.0], Err(Reason::NoArea)),
            ([200.0, 0.0, 10.0, 10.0], Err(Reason::Outside)),
            ([-10.0, 0.0, 10.0, 10.0], Err(Reason::Outside)),
            ([f64::NAN, 0.0, 10.0, 10.0], Err(Reason::NotFinite)),
            ([0.0, 0.0, 1e308, 10.0], Err(Reason::NotFinite)),
        ] {
            assert_eq!(fractions(pixels, size), expected, "{pixels:?}");
        }
    }

    /// Whatever the numbers, a box that is kept lies in the image and has an area, also as f32.
    #[test]
    fn a_box_that_is_kept_has_an_area_inside_the_image() {
        let mut random = PythonRandom::new(3);
        let mut kept = 0;
        for _ in 0..100_000 {
            let size = (random.uniform(0.5, 3000.0), random.uniform(0.5, 3000.0));
            // From far outside to a thousandth of a pixel.
            let scale = 10f64.powf(random.uniform(-4.0, 5.0));
            let bbox = [0; 4].map(|_| random.uniform(-scale, scale));
            if let Ok((bounds, _)) = fractions(bbox, size) {
                let [x0, y0, x1, y1] = bounds.map(|v| v as f32);
                assert!(bounds.iter().all(|v| (0.0..=1.0).contains(v)) && x0 < x1 && y0 < y1, "{bbox:?} in {size:?}");
                kept += 1;
            }
        }
        assert!(kept > 3000, "{kept}");
    }
}
