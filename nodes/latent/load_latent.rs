//! LoadLatent.

use std::path::PathBuf;
use std::sync::Arc;

use lsregen_diffusion::latent;
use lsregen_engine::{CheckContext, Context, FileRef, Lane, Node, NodeError, outputs};
use lsregen_tensor::Error;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::host::bridge::raise;
use crate::host::numerics::ComputeOptions;
use crate::values::Latent;

/// Reads a latent from a safetensors file, such as one of SaveLatent.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LoadLatent {
    /// The file, relative to the graph file. Its tensor must be called `latent`, or be the only one.
    pub path: PathBuf,
}

outputs! {
    pub struct LoadLatentOutputs {
        /// The latent.
        pub latent: Arc<Latent>,
    }
}

impl Node for LoadLatent {
    const TYPE: &'static str = "LoadLatent";
    const VERSION: u32 = 1;
    const LANE: Lane = Lane::Io;

    type Inputs = ();
    type Outputs = LoadLatentOutputs;

    fn check(&self, cx: &CheckContext) -> Vec<NodeError> {
        match latent::read(&cx.resolve(&self.path)) {
            Ok(_) => vec![],
            // The engine reports every file that cannot be read.
            Err(Error::Io { .. }) => vec![],
            Err(error) => vec![NodeError::new("path", error.to_string())],
        }
    }

    fn files(&self, cx: &CheckContext) -> Vec<FileRef> {
        vec![FileRef::new("path", cx.resolve(&self.path))]
    }

    fn run(&self, (): (), cx: &Context) -> anyhow::Result<LoadLatentOutputs> {
        let numerics = cx.service::<ComputeOptions>()?;
        let (z, family) = latent::read(&cx.resolve(&self.path)).map_err(raise)?;
        let z = z.to_device(&numerics.precision.device)?;
        Ok(LoadLatentOutputs { latent: Arc::new(Latent { z, family }) })
    }
}
