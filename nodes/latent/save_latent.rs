//! SaveLatent.

use std::path::PathBuf;
use std::sync::Arc;

use lsregen_diffusion::latent;
use lsregen_engine::{CheckContext, Context, Effect, FileRef, Lane, Node, NodeError, outputs, sockets};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::host::bridge::raise;
use crate::host::write;
use crate::values::{Latent, SavedFile};

/// Writes a latent as a safetensors file, for LoadLatent or other programs. An existing file is replaced.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SaveLatent {
    /// The file, ending in `.safetensors`, relative to the working directory or to `--output-dir`. Missing folders
    /// are created. The file contains one tensor, `latent`, scaled for the denoiser, and the model's family in its header.
    pub path: PathBuf,
}

sockets! {
    pub struct SaveLatentInputs {
        /// The latent.
        pub latent: Arc<Latent>,
    }
}

outputs! {
    pub struct SaveLatentOutputs {
        /// The written file.
        pub file: Arc<SavedFile>,
    }
}

impl Node for SaveLatent {
    const TYPE: &'static str = "SaveLatent";
    const VERSION: u32 = 1;
    const LANE: Lane = Lane::Io;
    const OUTPUT: bool = true;

    type Inputs = SaveLatentInputs;
    type Outputs = SaveLatentOutputs;

    fn check(&self, cx: &CheckContext) -> Vec<NodeError> {
        write::errors(&self.path, "safetensors", cx)
    }

    fn writes(&self, cx: &CheckContext) -> Vec<FileRef> {
        vec![FileRef::new("path", cx.output_path(&self.path))]
    }

    fn effect(&self, outputs: &SaveLatentOutputs, cx: &Context) -> Effect {
        if write::is_intact(&self.path, &outputs.file.0, cx) { Effect::Intact } else { Effect::Restorable }
    }

    fn restore(&self, outputs: &SaveLatentOutputs, cx: &Context) -> anyhow::Result<()> {
        write::write(&self.path, &outputs.file.0, cx)
    }

    fn run(&self, inputs: SaveLatentInputs, cx: &Context) -> anyhow::Result<SaveLatentOutputs> {
        cx.cancel().check()?;
        let bytes = latent::encode(&inputs.latent.z, inputs.latent.family).map_err(raise)?;
        write::write(&self.path, &bytes, cx)?;
        Ok(SaveLatentOutputs { file: Arc::new(SavedFile(bytes.into())) })
    }
}
