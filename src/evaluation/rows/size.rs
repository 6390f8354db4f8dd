//! The size of the large image.

use super::report::Reason;

/// The longest side that a sampling takes, in pixels.
const LONGEST: f64 = 8192.0;

/// How the size of the large image follows from that of the dataset's image.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SizeRule {
    /// Factor of both sides.
    pub scale: f64,
    /// Sides are multiples of this number of pixels.
    pub multiple: u32,
    /// The most pixels. A larger image keeps its aspect ratio, up to the rounding.
    pub most_pixels: Option<u64>,
}

/// Three times the image. An SDXL model needs multiples of 8; its U-Net halves the latent twice, which leaves no odd rows
/// at multiples of 32. COCO's 640 × 480 becomes 1920 × 1440.
impl Default for SizeRule {
    fn default() -> SizeRule {
        SizeRule { scale: 3.0, multiple: 32, most_pixels: None }
    }
}

impl SizeRule {
    /// Returns width and height, and what was done to them beyond rounding to the nearest multiple.
    pub(super) fn size(&self, width: f64, height: f64) -> ((u32, u32), Option<Reason>) {
        let multiple = f64::from(self.multiple.max(1));
        let (width, height) = (width * self.scale, height * self.scale);
        let nearest = |side: f64| ((side / multiple + 0.5).floor() * multiple).max(multiple);
        let longest = (LONGEST / multiple).floor() * multiple;
        let most = self.most_pixels.map_or(f64::INFINITY, |most| most as f64);
        let (w, h) = (nearest(width), nearest(height));
        if w <= longest && h <= longest && w * h <= most {
            let is_raised = width.min(height) < multiple / 2.0;
            return ((w as u32, h as u32), is_raised.then_some(Reason::SizeRaised));
        }
        let factor = (longest / width).min(longest / height).min((most / (width * height)).sqrt()).min(1.0);
        let below = |side: f64| ((side * factor / multiple + 1e-9).floor() * multiple).clamp(multiple, longest);
        ((below(width) as u32, below(height) as u32), Some(Reason::SizeReduced))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_multiples_within_the_limits() {
        let rule = SizeRule::default();
        assert_eq!(rule.size(640.0, 480.0), ((1920, 1440), None));
        assert_eq!(rule.size(427.0, 640.0), ((1280, 1920), None));
        assert_eq!(rule.size(1.0, 1.0), ((32, 32), Some(Reason::SizeRaised)));
        assert_eq!(rule.size(1.0, 4000.0), ((32, 8192), Some(Reason::SizeReduced)));
        assert_eq!(SizeRule { multiple: 64, ..rule }.size(640.0, 480.0), ((1920, 1472), None));
        let mega = SizeRule { most_pixels: Some(1 << 20), ..rule };
        assert_eq!(mega.size(640.0, 480.0), ((1152, 864), Some(Reason::SizeReduced)));
        assert_eq!(SizeRule { scale: 1.0, ..mega }.size(1024.0, 1024.0), ((1024, 1024), None));
        assert_eq!(mega.size(1024.0, 1024.0), ((1024, 1024), Some(Reason::SizeReduced)));
        assert_eq!(rule.size(1e9, 1e9).0, (8192, 8192));
    }
}
