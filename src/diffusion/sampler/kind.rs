//! The names of samplers, and the methods behind them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The kind of a sampler, by the names of k-diffusion and ComfyUI.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub enum SamplerKind {
    /// That of the model's scheduler file.
    Auto,
    /// DDIM (Song et al., eq. 12), the sampler of the paper. `eta` is 0 by default.
    #[default]
    Ddim,
    /// DDPM (Ho et al.), with fresh noise in each step.
    Ddpm,
    /// Euler (Karras et al., algorithm 2 without churn).
    Euler,
    /// Euler with fresh noise in each step.
    EulerAncestral,
    /// Heun (Karras et al., algorithm 2 without churn): two network calls a step.
    Heun,
    /// DPM-Solver-2 in Karras's space: two network calls a step.
    #[serde(rename = "dpm_2")]
    Dpm2,
    /// DPM-Solver-2 with fresh noise in each step: two network calls.
    #[serde(rename = "dpm_2_ancestral")]
    Dpm2Ancestral,
    /// The linear multistep method, of order 4.
    Lms,
    /// DPM-Solver++(2S) (Lu et al.), which takes two steps together, as diffusers' `DPMSolverSinglestepScheduler`.
    #[serde(rename = "dpmpp_2s")]
    Dpmpp2S,
    /// DPM-Solver++(2S) with fresh noise in each step: two network calls.
    #[serde(rename = "dpmpp_2s_ancestral")]
    Dpmpp2SAncestral,
    /// DPM-Solver++ for the stochastic equation: two network calls a step.
    DpmppSde,
    /// DPM-Solver++(2M) (Lu et al.).
    #[serde(rename = "dpmpp_2m")]
    Dpmpp2M,
    /// DPM-Solver++(2M) for the stochastic equation.
    #[serde(rename = "dpmpp_2m_sde")]
    Dpmpp2MSde,
    /// DPM-Solver++(3M) (Lu et al.).
    #[serde(rename = "dpmpp_3m")]
    Dpmpp3M,
    /// DPM-Solver++(3M) for the stochastic equation.
    #[serde(rename = "dpmpp_3m_sde")]
    Dpmpp3MSde,
    /// UniPC (Zhao et al.) with B(h) = h.
    UniPc,
    /// UniPC (Zhao et al.) with B(h) = e^h − 1, diffusers' default.
    UniPcBh2,
    /// DEIS (Zhang and Chen) in ln σ.
    Deis,
    /// The Adams–Bashforth method of order 4 in Karras's space (iPNDM).
    Ipndm,
    /// PLMS (Liu et al.), the sampler of the first Stable Diffusion and of GLIGEN.
    Pndm,
    /// Latent consistency models (Luo et al.).
    Lcm,
    /// Trajectory consistency distillation (Zheng et al.). `eta` is γ, 0.3 by default.
    Tcd,
}

impl SamplerKind {
    /// All kinds.
    pub const ALL: [SamplerKind; 23] = [
        SamplerKind::Auto,
        SamplerKind::Ddim,
        SamplerKind::Ddpm,
        SamplerKind::Euler,
        SamplerKind::EulerAncestral,
        SamplerKind::Heun,
        SamplerKind::Dpm2,
        SamplerKind::Dpm2Ancestral,
        SamplerKind::Lms,
        SamplerKind::Dpmpp2S,
        SamplerKind::Dpmpp2SAncestral,
        SamplerKind::DpmppSde,
        SamplerKind::Dpmpp2M,
        SamplerKind::Dpmpp2MSde,
        SamplerKind::Dpmpp3M,
        SamplerKind::Dpmpp3MSde,
        SamplerKind::UniPc,
        SamplerKind::UniPcBh2,
        SamplerKind::Deis,
        SamplerKind::Ipndm,
        SamplerKind::Pndm,
        SamplerKind::Lcm,
        SamplerKind::Tcd,
    ];

    /// Returns the name that serde reads.
    pub fn name(self) -> &'static str {
        match self {
            SamplerKind::Auto => "auto",
            SamplerKind::Ddim => "ddim",
            SamplerKind::Ddpm => "ddpm",
            SamplerKind::Euler => "euler",
            SamplerKind::EulerAncestral => "euler_ancestral",
            SamplerKind::Heun => "heun",
            SamplerKind::Dpm2 => "dpm_2",
            SamplerKind::Dpm2Ancestral => "dpm_2_ancestral",
            SamplerKind::Lms => "lms",
            SamplerKind::Dpmpp2S => "dpmpp_2s",
            SamplerKind::Dpmpp2SAncestral => "dpmpp_2s_ancestral",
            SamplerKind::DpmppSde => "dpmpp_sde",
            SamplerKind::Dpmpp2M => "dpmpp_2m",
            SamplerKind::Dpmpp2MSde => "dpmpp_2m_sde",
            SamplerKind::Dpmpp3M => "dpmpp_3m",
            SamplerKind::Dpmpp3MSde => "dpmpp_3m_sde",
            SamplerKind::UniPc => "uni_pc",
            SamplerKind::UniPcBh2 => "uni_pc_bh2",
            SamplerKind::Deis => "deis",
            SamplerKind::Ipndm => "ipndm",
            SamplerKind::Pndm => "pndm",
            SamplerKind::Lcm => "lcm",
            SamplerKind::Tcd => "tcd",
        }
    }
}

/// What a solver integrates exactly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// The clean latent x̂₀ (DPM-Solver++).
    Data,
    /// The noise ε (DPM-Solver).
    Noise,
}

/// A DPM-Solver.
#[derive(Clone, Debug, PartialEq)]
pub struct Solver {
    /// Its order, 1 to 3.
    pub order: usize,
    /// What it integrates.
    pub form: Form,
    /// Whether its second order is Heun-like rather than the midpoint rule.
    pub heun: bool,
    /// Whether each step adds fresh noise.
    pub stochastic: bool,
    /// Whether the last two steps have a lower order, if there are fewer than 15.
    pub lower_order_final: bool,
    /// Whether the last step is of the first order.
    pub euler_at_final: bool,
    /// Whether D₂ has the weight of diffusers' stochastic third order, which is one more than that of Lu et al.
    pub diffusers_third: bool,
}

/// How a step is computed.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs, reason = "SamplerKind and Solver document the methods")]
pub enum Method {
    Ddim,
    Ddpm {
        /// Whether the fresh noise has the variance β rather than that of the posterior.
        large: bool,
    },
    Euler,
    EulerAncestral,
    Heun,
    Dpm2,
    Dpm2Ancestral,
    Lms,
    Dpmpp2SAncestral,
    DpmppSde,
    Multistep(Solver),
    Singlestep(Solver),
    UniPc {
        order: usize,
        bh1: bool,
        form: Form,
        lower_order_final: bool,
        /// Steps after which there is no correction.
        uncorrected: Vec<usize>,
    },
    Deis {
        order: usize,
        /// Whether the last two steps have a lower order, if there are fewer than 15.
        lower_order_final: bool,
    },
    Ipndm,
    Pndm,
    Lcm {
        /// The scale of the timestep in the consistency function; without it, that is x̂₀.
        scaling: Option<f64>,
    },
    Tcd,
}

impl Method {
    /// η if it is not given; `None` if the method has no η.
    pub(crate) fn default_eta(&self) -> Option<f64> {
        match self {
            Method::Ddim => Some(0.0),
            Method::EulerAncestral | Method::Dpm2Ancestral | Method::Dpmpp2SAncestral | Method::DpmppSde => Some(1.0),
            Method::Multistep(solver) if solver.stochastic && solver.form == Form::Data => Some(1.0),
            Method::Tcd => Some(0.3),
            _ => None,
        }
    }

    /// Whether steps add fresh noise, so that `s_noise` scales it.
    pub(crate) fn is_stochastic(&self) -> bool {
        match self {
            Method::Multistep(solver) | Method::Singlestep(solver) => solver.stochastic,
            Method::Ddpm { .. } | Method::Lcm { .. } => true,
            method => method.default_eta().is_some(),
        }
    }
}
