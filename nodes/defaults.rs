//! Defaults of parameters that several nodes have. They are those of the paper, or of the reference run where the
//! paper is silent.

pub(crate) fn steps() -> u32 {
    20
}

pub(crate) fn sdxl_cfg() -> f64 {
    4.0
}

pub(crate) fn yes() -> bool {
    true
}
