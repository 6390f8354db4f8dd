//! The tensors of a U-Net that depend on sizes alone.

use lsregen_tensor::Constants;

/// A tensor that depends on sizes alone, and that a pass would otherwise copy to the device again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UNetConstant {
    /// The lowest frequencies of a feature map of this height and width, for FreeU.
    Lowest(usize, usize),
    /// The source of each row or column when a side is resized from one length to another.
    Nearest(usize, usize),
    /// The frequencies of a sinusoidal embedding: its width, and the bits of its shift.
    Frequencies(usize, u64),
}

/// Those that a network keeps.
pub type UNetConstants = Constants<UNetConstant>;
