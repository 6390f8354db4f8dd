//! Where and how results are computed, and where files are written.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytesize::ByteSize;
use clap::{Args, ValueEnum};
use lsregen_engine::{Host, OutputRules};
use lsregen_nodes::{Blueprints, ComputeOptions, DtypeOption, LayoutFiles, Metadata, device};

use super::models::ModelArgs;
use crate::cli::{Exit, terminal, usage};

/// The compute options and the output folder.
#[derive(Args)]
pub struct HostArgs {
    /// Device to compute on: `auto` (the first CUDA device, or else the CPU), `cpu`, `cuda` (the first one), or `cuda:N`
    #[arg(long, default_value = "auto")]
    device: String,

    /// Precision of the models. On the CPU everything is computed in f32: `auto` keeps the weights in the precision of
    /// their files, the others round them. On CUDA weights and activations have this precision, and `auto` is bf16
    #[arg(long, value_enum, default_value_t)]
    dtype: Dtype,

    /// Keep only one network of a model in memory at a time (text encoders, U-Net or autoencoder)
    #[arg(long)]
    offload: bool,

    /// Memory for the activations that a guidance keeps for its gradient, such as 8GiB. With less memory more
    /// activations are recomputed; results differ only by rounding
    #[arg(long, value_name = "SIZE", default_value = "2GiB")]
    gradient_memory: ByteSize,

    #[command(flatten)]
    output: OutputArgs,

    /// Do not store the graph in the PNG files that it writes
    #[arg(long)]
    no_metadata: bool,
}

/// Which files a graph may write.
#[derive(Args)]
pub struct OutputArgs {
    /// Folder for the files that the graph writes [default: the working directory]
    #[arg(long, value_name = "DIR")]
    output_dir: Option<PathBuf>,

    /// Let the graph write outside this folder, by absolute paths, `..` and links. Only for graphs that you trust
    #[arg(long)]
    allow_outside: bool,

    /// Replace files that lsregen did not write
    #[arg(long)]
    overwrite: bool,
}

impl OutputArgs {
    /// The host with these rules and this folder.
    ///
    /// # Errors
    /// When no file can be written into the folder that was given; the reason is printed.
    pub fn apply(&self, host: Host) -> Result<Host, Exit> {
        if let Some(folder) = &self.output_dir {
            lsregen_files::can_hold_files(folder).map_err(|error| {
                usage(format!("--output-dir {}: no files can be written there: {error}", folder.display()))
            })?;
        }
        let rules = OutputRules { allow_outside: self.allow_outside, overwrite: self.overwrite };
        Ok(host.with_output_rules(rules).with_output_folder(self.output_dir.as_deref().unwrap_or(Path::new(""))))
    }
}

/// A precision as it is named on the command line.
#[derive(Clone, Copy, Default, ValueEnum)]
enum Dtype {
    #[default]
    Auto,
    F32,
    Bf16,
    F16,
}

impl From<Dtype> for DtypeOption {
    fn from(dtype: Dtype) -> DtypeOption {
        match dtype {
            Dtype::Auto => DtypeOption::Auto,
            Dtype::F32 => DtypeOption::F32,
            Dtype::Bf16 => DtypeOption::Bf16,
            Dtype::F16 => DtypeOption::F16,
        }
    }
}

impl HostArgs {
    /// The folder for written files.
    pub fn output(&self) -> &Path {
        self.output.output_dir.as_deref().unwrap_or(Path::new(""))
    }

    /// Whether weights in half precision are enough, so that the smaller files are downloaded.
    pub fn accepts_half(&self) -> bool {
        !matches!(self.dtype, Dtype::F32)
    }

    /// The host for a run of the graph at `path`.
    ///
    /// # Errors
    /// When the device is not available; the reason is printed.
    pub fn host(&self, path: &Path, models: &ModelArgs) -> Result<Arc<Host>, Exit> {
        let opened = device::open(&self.device).map_err(|error| usage(format!("{error:#}")))?;
        if let Some(warning) = opened.warning {
            terminal::complain(format!("warning: {warning}"));
        }
        let options = ComputeOptions::new(opened.device, self.dtype.into(), self.offload);
        let options = options.with_gradient_memory(self.gradient_memory.as_u64());
        let host = self.output.apply(host(path, models)?)?;
        let host = host.with_fingerprint(options.fingerprint()).with_service(options);
        Ok(Arc::new(host.with_service(Metadata(!self.no_metadata))))
    }
}

/// The host for a check of the graph at `path`. Input files are relative to the folder of the graph; written files go to
/// the working directory.
///
/// # Errors
/// When a folder of models cannot be searched; the reason is printed.
pub fn host(path: &Path, models: &ModelArgs) -> Result<Host, Exit> {
    let folder = path.parent().unwrap_or(Path::new(""));
    Ok(Host::new(folder, Path::new(""))
        .with_service(models.path(folder)?)
        .with_service(Blueprints::default())
        .with_service(LayoutFiles::default()))
}
