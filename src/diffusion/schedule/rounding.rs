//! The precision of a schedule.

/// The precision of a schedule's tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rounding {
    /// f64.
    None,
    /// f32, as in diffusers.
    F32,
}

impl Rounding {
    pub(crate) fn of(self, value: f64) -> f64 {
        if self == Rounding::F32 { f64::from(value as f32) } else { value }
    }
}
