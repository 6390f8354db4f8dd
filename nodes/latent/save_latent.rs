//! SaveLatent.

use std::path::PathBuf;
use std::sync::Arc;

use lsregen_diffusion::latent;
use lsregen_engine::{CheckContext, Context, Effect, FileRef, Lane, Node, NodeError, outputs, sockets};
use lsregen_files::Kind;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::host::bridge::raise;
use crate::host::write::{OutputFile, OutputFormat};
use crate::values::{Latent, SavedFile};

/// Writes a latent as a safetensors file, for LoadLatent or other programs. A file that another program wrote is
/// replaced only with `--overwrite`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SaveLatent {
    /// The file, ending in `.safetensors`, below the working directory or `--output-dir`. Missing folders are created.
    /// `{counter}`, `{date}` and `{name}` have the meaning that they have for SaveImage. The file contains one tensor,
    /// `latent`, scaled for the denoiser, and the model's family in its header. A batch is one file too.
    #[schemars(extend("x-role" = "output"))]
    pub path: PathBuf,
}

sockets! {
    pub struct SaveLatentInputs {
        /// The latent, or a batch of them.
        pub latent: Arc<Latent>,
    }
}

outputs! {
    pub struct SaveLatentOutputs {
        /// The written file.
        pub file: Arc<SavedFile>,
    }
}

impl SaveLatent {
    fn file(&self) -> OutputFile<'_> {
        OutputFile {
            path: &self.path,
            format: OutputFormat { extension: "safetensors", kind: Kind::LATENT, is_own: latent::is_own },
        }
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
        self.file().errors(cx)
    }

    fn writes(&self, cx: &CheckContext) -> Vec<FileRef> {
        self.file().writes(cx)
    }

    fn obstacle(&self, cx: &CheckContext) -> Option<NodeError> {
        self.file().obstacle(cx)
    }

    fn effect(&self, outputs: &SaveLatentOutputs, cx: &Context) -> Effect {
        outputs.file.files.first().map_or(Effect::Gone, |bytes| self.file().effect(bytes, cx))
    }

    fn restore(&self, outputs: &SaveLatentOutputs, cx: &Context) -> anyhow::Result<()> {
        outputs.file.files.iter().try_for_each(|bytes| self.file().write(bytes, cx))
    }

    fn run(&self, inputs: SaveLatentInputs, cx: &Context) -> anyhow::Result<SaveLatentOutputs> {
        cx.cancel().check()?;
        let Latent { z, family, seeds } = &*inputs.latent;
        let bytes = latent::encode(z, *family, seeds).map_err(raise)?;
        self.file().write(&bytes, cx)?;
        Ok(SaveLatentOutputs { file: Arc::new(SavedFile::one(bytes)) })
    }
}
