//! LoadModel.

use std::sync::{Arc, LazyLock};

use anyhow::Context as _;
use lsregen_diffusion::models::{self, Blueprint, ModelInfo, ModelLocation, ModelSource, Problem, ScheduleOverride};
use lsregen_diffusion::schedule::{BetaSchedule, PredictionType, TimestepSpacing};
use lsregen_engine::{
    CheckContext, Context, Declaration, FetchProgress, FileRef, Lane, Links, Node, NodeError, outputs,
};
use lsregen_tensor::candle_core::DType;
use lsregen_weights::search::ModelKind;
use lsregen_weights::{BUILTIN, ModelFiles};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::host::numerics::ComputeOptions;
use crate::params::model_path::{FetchMode, Found, ModelSearch, at, digest, not_downloaded};
use crate::values::{Model, declared};

/// Loads a diffusion model: text encoders, U-Net, autoencoder and the noise schedule.
///
/// The files determine the family of the model (`sd1`, `sd2`, `gligen`, `sdxl`, `playground` or `sdxl-refiner`), and other
/// nodes accept only the families that they support. `check` verifies that the files are complete. A run loads each model
/// once, however many nodes use it, and each of its networks when it is first needed.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LoadModel {
    /// `shapes/gligen` or `shapes/xl`, the built-in small models of coloured shapes; or a folder in diffusers' layout
    /// (`unet/`, `vae/`, `text_encoder/`, …), or a checkpoint in one file (`.safetensors`, `.ckpt`), of Stable Diffusion
    /// 1.x or 2.x, GLIGEN or SDXL. Named by its path from the graph file, by its name in a folder of models (`--models-dir`), or on
    /// the Hugging Face hub as `hf:owner/name`, `hf:owner/name@revision` or `hf:owner/name:file`, which a run downloads
    /// first. Write `./shapes/xl` for a folder with the name of a built-in model.
    #[schemars(length(min = 1))]
    pub model: String,
    /// Another autoencoder in place of the model's own: a file, its folder, or the folder of a model that has one. Named like
    /// `model`.
    #[serde(default)]
    #[schemars(length(min = 1))]
    pub vae: Option<String>,
    /// GLIGEN's fusers for a Stable Diffusion 1.4 or 1.5 model, which make it a model of the family `gligen`: a file such as
    /// `gligen_sd14_textbox_pruned.safetensors`. Named like `model`.
    #[serde(default)]
    #[schemars(length(min = 1))]
    pub gligen: Option<String>,
    /// What the U-Net predicts, if the files do not state it or state it incorrectly. By default what the files state, or
    /// else the noise; of Stable Diffusion 2 in one file, what its weights suggest (`lsregen inspect` says which).
    #[serde(default)]
    pub prediction: Option<PredictionType>,
    /// How `scheduler: auto` spaces timesteps, if the files do not state it or state it incorrectly.
    #[serde(default)]
    pub timestep_spacing: Option<TimestepSpacing>,
    /// Whether the noise schedule is rescaled so that the last timestep has no signal (zero terminal SNR), which needs
    /// `prediction: v_prediction`. By default what the files state.
    #[serde(default)]
    pub zero_snr: Option<bool>,
    /// How the noise of the schedule grows, if the files do not state it or state it incorrectly.
    #[serde(default)]
    pub beta_schedule: Option<BetaSchedule>,
}

outputs! {
    pub struct LoadModelOutputs {
        /// The model.
        pub model: Arc<Model>,
    }
}

impl LoadModel {
    /// Returns the index of the built-in model that `model` names, if it names one.
    fn builtin(&self) -> Option<usize> {
        BUILTIN.iter().position(|files| matches!(files, ModelFiles::Embedded { name, .. } if *name == self.model))
    }

    /// Whether the model is an unmodified built-in one.
    fn is_builtin(&self) -> bool {
        let is_modified = self.prediction.is_some() || self.schedule() != ScheduleOverride::default();
        self.builtin().is_some() && self.vae.is_none() && self.gligen.is_none() && !is_modified
    }

    fn schedule(&self) -> ScheduleOverride {
        ScheduleOverride {
            timestep_spacing: self.timestep_spacing,
            zero_snr: self.zero_snr,
            beta_schedule: self.beta_schedule,
        }
    }

    /// Returns the names of files, each with its parameter; built-in models have none.
    fn named(&self) -> impl Iterator<Item = (&'static str, ModelKind, &str)> {
        let model = self.builtin().is_none().then_some(("model", ModelKind::Model, self.model.as_str()));
        let vae = self.vae.as_deref().map(|vae| ("vae", ModelKind::Vae, vae));
        let gligen = self.gligen.as_deref().map(|gligen| ("gligen", ModelKind::Gligen, gligen));
        model.into_iter().chain(vae).chain(gligen)
    }

    /// Returns the paths of the model's parts. `None` if a part has to be downloaded first.
    fn source(&self, search: &ModelSearch) -> Result<Option<ModelSource>, Vec<NodeError>> {
        let mut errors = vec![];
        let mut places = [const { None }; 3];
        let mut whole = true;
        for (param, kind, name) in self.named() {
            match search.find(param, kind, name) {
                Found::Here(path) => places[kind as usize] = Some(path),
                Found::Elsewhere => whole = false,
                Found::Nowhere(error) => errors.push(error),
            }
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        let [model, vae, gligen] = places;
        let model = match (self.builtin(), model) {
            (Some(index), _) => ModelLocation::Files(BUILTIN[index].clone()),
            (None, Some(path)) if path.is_dir() => ModelLocation::Files(ModelFiles::Folder(path)),
            (None, Some(path)) => ModelLocation::File(path),
            (None, None) => return Ok(None),
        };
        Ok(whole.then_some(ModelSource { model, vae, gligen, prediction: self.prediction, schedule: self.schedule() }))
    }

    /// Opens the model's files. `None` if a part has to be downloaded first.
    fn blueprint(&self, search: &ModelSearch) -> Result<Option<Arc<Blueprint>>, Vec<NodeError>> {
        let Some(source) = self.source(search)? else { return Ok(None) };
        match search.blueprints.model(&source) {
            Ok(blueprint) => Ok(Some(blueprint)),
            // A repository may be downloaded only in part: `fetch` reports what is missing.
            Err(_) if self.is_of_hub() => Ok(None),
            Err(problems) => Err(errors(problems)),
        }
    }

    /// Returns the properties of the model, if its files can be opened.
    fn info(&self, cx: &CheckContext) -> Option<ModelInfo> {
        static BUILTIN_INFO: LazyLock<Vec<Option<ModelInfo>>> =
            LazyLock::new(|| BUILTIN.iter().map(|files| ModelInfo::inspect(files).ok()).collect());
        match self.builtin() {
            Some(index) if self.is_builtin() => BUILTIN_INFO[index].clone(),
            _ => Some(self.blueprint(&ModelSearch::in_check(cx)).ok()??.info.clone()),
        }
    }

    fn is_of_hub(&self) -> bool {
        self.named().any(|(_, _, name)| name.starts_with("hf:"))
    }
}

fn errors(problems: Vec<Problem>) -> Vec<NodeError> {
    problems.into_iter().map(|problem| at(problem.part, problem.error)).collect()
}

impl Node for LoadModel {
    const TYPE: &'static str = "LoadModel";
    // 2: `clip_sample` is off where a model's files do not set it, and special tokens are found in texts.
    const VERSION: u32 = 2;
    const LANE: Lane = Lane::Io;

    type Inputs = ();
    type Outputs = LoadModelOutputs;

    fn check(&self, cx: &CheckContext) -> Vec<NodeError> {
        // Built-in models are complete: tests load them.
        if self.is_builtin() {
            return vec![];
        }
        match self.blueprint(&ModelSearch::in_check(cx)) {
            Ok(Some(_)) => vec![],
            Ok(None) => {
                let of_hub = self.named().filter(|(_, _, name)| name.starts_with("hf:"));
                of_hub.map(|(param, _, name)| not_downloaded(param, name)).collect()
            }
            Err(errors) => errors,
        }
    }

    fn files(&self, cx: &CheckContext) -> Vec<FileRef> {
        if self.is_builtin() {
            return vec![];
        }
        // `check` reports files that cannot be opened.
        let blueprint = self.blueprint(&ModelSearch::in_check(cx)).ok().flatten();
        blueprint
            .iter()
            .flat_map(|blueprint| blueprint.files())
            .map(|path| FileRef::new("model", path).readable())
            .collect()
    }

    fn fetch(&self, cx: &CheckContext, progress: &mut dyn FnMut(FetchProgress)) -> Result<bool, NodeError> {
        let search = ModelSearch::in_check(cx);
        let first =
            |errors: Vec<NodeError>| errors.into_iter().next().unwrap_or_else(|| NodeError::new("model", "unknown"));
        if !self.is_of_hub() || self.blueprint(&search).map_err(first)?.is_some() {
            return Ok(false);
        }
        let half = cx.service::<ComputeOptions>().is_none_or(|numerics| numerics.precision.weights != Some(DType::F32));
        let mode = FetchMode::of(cx);
        for (param, _, name) in self.named().filter(|(_, _, name)| name.starts_with("hf:")) {
            mode.fetch(param, name, half, progress)?;
        }
        if mode == FetchMode::List {
            return Ok(false);
        }
        match self.source(&search).map_err(first)?.map(|source| search.blueprints.model(&source)) {
            Some(Ok(_)) => Ok(true),
            Some(Err(problems)) => Err(first(errors(problems))),
            None => Err(NodeError::new("model", format!("{}: no file of it could be downloaded", self.model))
                .help("for a repository without model_index.json, name the file: hf:owner/name:file.safetensors")),
        }
    }

    fn fingerprint(&self) -> Option<String> {
        static DIGESTS: LazyLock<Vec<String>> = LazyLock::new(|| BUILTIN.iter().map(digest).collect());
        self.builtin().map(|index| DIGESTS[index].clone())
    }

    fn variants(&self, cx: &CheckContext) -> Vec<(&'static str, String)> {
        self.info(cx).map(|info| ("model", info.family.name().to_string())).into_iter().collect()
    }

    fn declare(&self, _: &Links, cx: &CheckContext) -> Vec<(&'static str, Declaration)> {
        declared("model", self.info(cx))
    }

    fn run(&self, (): (), cx: &Context) -> anyhow::Result<LoadModelOutputs> {
        cx.cancel().check()?;
        let numerics = cx.service::<ComputeOptions>()?;
        let blueprint = self.blueprint(&ModelSearch::in_run(cx)).map_err(|errors| {
            let errors: Vec<_> = errors.into_iter().map(|error| error.message).collect();
            anyhow::anyhow!(errors.join("; "))
        })?;
        let blueprint = blueprint.with_context(|| format!("{}: is no longer on this machine", self.model))?;
        blueprint.notes.iter().for_each(|note| cx.note(format!("{}: {note}", self.model)));
        let model = models::Model::new(blueprint, numerics.precision.clone(), numerics.offload);
        let model = model.with_gradient_memory(numerics.gradient_memory);
        Ok(LoadModelOutputs { model: Arc::new(Model(model)) })
    }
}
