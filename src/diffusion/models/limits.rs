//! What keeps a model that loads from being used by the nodes that sample.

/// A property of a model that a sampling would have to honour and that none does yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelLimit {
    /// The property and what it needs, as a clause.
    pub reason: String,
}

impl ModelLimit {
    fn new(reason: impl Into<String>) -> ModelLimit {
        ModelLimit { reason: reason.into() }
    }

    /// The limit of a file whose metadata states a prediction that is not known.
    pub(crate) fn unknown_prediction(stated: &str) -> ModelLimit {
        ModelLimit::new(format!(
            "its metadata (`modelspec`) states the prediction `{stated:.60}`, which is not supported; give `prediction` if its U-Net \
             predicts ε or v all the same"
        ))
    }

    /// The limit of a file whose key `ztsnr` asks for a last timestep without signal, where ε says nothing of x₀.
    pub(crate) fn zero_snr_without_v() -> ModelLimit {
        ModelLimit::new(
            "its key `ztsnr` says that it needs a schedule with zero terminal SNR, but its U-Net does not predict v; give \
             `prediction: v_prediction` if it does",
        )
    }
}
