//! CUDA: whether it is usable on this machine, how much memory is free, and the operations' forms for it. Only built with
//! the feature `cuda`.

pub(crate) mod channels_last;
#[cfg(feature = "cudnn")]
pub(crate) mod convolution;
mod descriptor;
mod device;
pub(crate) mod elementwise;
pub mod flash;
#[cfg(feature = "cudnn")]
mod graph;
mod launch;
pub(crate) mod linear;
pub(crate) mod norm;
pub mod replay;
#[cfg(feature = "cudnn")]
pub mod sdpa;
pub mod upload;

pub use device::{open, release_freed_memory};
pub(crate) use launch::known;

#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
mod alone;
#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
mod lazy;
#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
pub(crate) mod profile;
#[cfg(not(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"))))]
mod lazy {
    //! On other platforms the system loads CUDA's libraries when the program starts.

    pub(super) const DRIVER: usize = 0;

    pub(super) struct Library {
        pub(super) needed: bool,
    }

    pub(super) const LIBRARIES: &[Library] = &[];

    pub(super) fn find(_: usize) -> Result<(), &'static str> {
        Ok(())
    }

    pub(super) fn alone<R>(_: impl FnOnce() -> candle_core::Result<R>) -> candle_core::Result<R> {
        candle_core::bail!("other threads could use the stream")
    }
}

use candle_core::Device;
use candle_core::cuda_backend::cudarc::driver::sys::{self, CUresult};

/// The version of CUDA that this build uses, in the driver's format: 13000 is 13.0.
pub const TOOLKIT: i32 = sys::CUDA_VERSION as i32;

/// The variable by which NVIDIA's libraries decide whether to use TF32.
const TF32: &str = "NVIDIA_TF32_OVERRIDE";

/// Why CUDA is not usable here, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unavailable {
    /// libcuda.so.1 is missing.
    #[error(
        "there is no NVIDIA driver here (`{0}` is not found); install the driver, or start the container with its GPUs"
    )]
    NoDriver(String),
    /// The driver is older than the toolkit, and would reject its kernels.
    #[error(
        "the NVIDIA driver supports CUDA up to {}, but this build requires {}; update the driver, or build with an older \
         toolkit", version(*.driver), version(*.needed)
    )]
    OldDriver {
        /// The version that the driver supports.
        driver: i32,
        /// The version that this build needs.
        needed: i32,
    },
    /// A CUDA library is missing.
    #[error(
        "CUDA's library `{0}` is not found; install {package} and name the folder of its libraries in LD_LIBRARY_PATH",
        package = package(.0)
    )]
    NoLibrary(String),
    /// The driver has no device.
    #[error("the NVIDIA driver reports no device; check `nvidia-smi` and CUDA_VISIBLE_DEVICES")]
    NoDevice,
    /// The driver does not start.
    #[error("the NVIDIA driver does not start ({0}); see `nvidia-smi`, and whether the machine needs a restart")]
    Broken(String),
}

/// Checks that CUDA is usable: driver, version, libraries. Returns the number of devices.
///
/// Call it before anything else uses CUDA, and before the program starts threads that read its environment.
///
/// # Errors
/// If CUDA is not usable.
pub fn devices() -> Result<usize, Unavailable> {
    // cuDNN computes f32 convolutions in TF32, with 10 bits of mantissa, unless this variable or the descriptor of the
    // convolution forbids it. Ours do; candle's, which compute what cuDNN refuses of ours, do not. Here f32 is f32, unless the
    // user has set the variable.
    if std::env::var_os(TF32).is_none() {
        // SAFETY: no library of CUDA's is loaded yet, and the caller has no threads yet, as it promised.
        unsafe { std::env::set_var(TF32, "0") };
    }
    lazy::find(lazy::DRIVER).map_err(|file| Unavailable::NoDriver(file.into()))?;
    let mut driver = 0;
    // SAFETY: asks for a number; needs no initialisation.
    succeed(unsafe { sys::cuDriverGetVersion(&mut driver) })?;
    if driver < TOOLKIT {
        return Err(Unavailable::OldDriver { driver, needed: TOOLKIT });
    }
    for (library, _) in lazy::LIBRARIES.iter().enumerate().filter(|(_, l)| l.needed) {
        lazy::find(library).map_err(|file| Unavailable::NoLibrary(file.into()))?;
    }
    let mut count = 0;
    // SAFETY: the driver is there; the count comes after its initialisation.
    unsafe {
        succeed(sys::cuInit(0))?;
        succeed(sys::cuDeviceGetCount(&mut count))?;
    }
    if count > 0 { Ok(count as usize) } else { Err(Unavailable::NoDevice) }
}

/// Returns what brings a library: cuDNN is not in the toolkit.
fn package(library: &str) -> String {
    if library.contains("cudnn") { "cuDNN 9".into() } else { format!("CUDA {}", version(TOOLKIT)) }
}

fn succeed(result: CUresult) -> Result<(), Unavailable> {
    match result {
        CUresult::CUDA_SUCCESS => Ok(()),
        CUresult::CUDA_ERROR_NO_DEVICE => Err(Unavailable::NoDevice),
        other => Err(Unavailable::Broken(format!("{other:?}"))),
    }
}

fn version(n: i32) -> String {
    format!("{}.{}", n / 1000, n % 1000 / 10)
}

/// Free and total bytes of a CUDA device. `None` for other devices, or if the driver does not report them. Freed memory that
/// the pool keeps counts as used: see [`release_freed_memory`].
pub fn memory(device: &Device) -> Option<(usize, usize)> {
    device.as_cuda_device().ok()?.cuda_stream().context().mem_get_info().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_say_what_to_do() {
        let old = Unavailable::OldDriver { driver: 12040, needed: 13000 }.to_string();
        assert!(
            old.contains("up to 12.4") && old.contains("requires 13.0") && old.contains("update the driver"),
            "{old}"
        );
    }
}
