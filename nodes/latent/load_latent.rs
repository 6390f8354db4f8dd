//! LoadLatent.

use std::path::PathBuf;
use std::sync::Arc;

use lsregen_diffusion::latent::{self, LatentFile};
use lsregen_engine::{CheckContext, Context, Declaration, FileRef, Lane, Links, Node, NodeError, outputs};
use lsregen_tensor::Error;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::host::bridge::raise;
use crate::host::numerics::ComputeOptions;
use crate::values::{ImageInfo, Latent, declared};

/// Reads a latent from a safetensors file, such as one of SaveLatent.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LoadLatent {
    /// The file, relative to the graph file. Its tensor must be called `latent`, or be the only one.
    pub path: PathBuf,
}

outputs! {
    pub struct LoadLatentOutputs {
        /// The latent, or the batch of them.
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

    fn variants(&self, cx: &CheckContext) -> Vec<(&'static str, String)> {
        let family = latent::read(&cx.resolve(&self.path)).ok().and_then(|file| file.family);
        family.map(|family| ("latent", family.name().to_string())).into_iter().collect()
    }

    fn declare(&self, _: &Links, cx: &CheckContext) -> Vec<(&'static str, Declaration)> {
        let file = latent::read(&cx.resolve(&self.path)).ok();
        let info = file.and_then(|file| {
            let count = u32::try_from(file.z.dim(0).ok()?).ok();
            Some(ImageInfo { count, seed: file.seeds.first().copied(), ..ImageInfo::default() })
        });
        declared("latent", info)
    }

    fn files(&self, cx: &CheckContext) -> Vec<FileRef> {
        vec![FileRef::new("path", cx.resolve(&self.path))]
    }

    fn run(&self, (): (), cx: &Context) -> anyhow::Result<LoadLatentOutputs> {
        let numerics = cx.service::<ComputeOptions>()?;
        let LatentFile { z, family, seeds } = latent::read(&cx.resolve(&self.path)).map_err(raise)?;
        let z = z.to_device(&numerics.precision.device)?;
        Ok(LoadLatentOutputs { latent: Arc::new(Latent { z, family, seeds }) })
    }
}
