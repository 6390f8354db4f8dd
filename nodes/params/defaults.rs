//! Defaults of parameters that several nodes have: those of the paper, or of the reference run where the paper gives none.

pub(crate) fn steps() -> u32 {
    20
}

pub(crate) fn sdxl_cfg() -> f64 {
    4.0
}

pub(crate) fn yes() -> bool {
    true
}
