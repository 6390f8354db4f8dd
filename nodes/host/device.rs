//! Devices by name: what the user requests, what the machine has, and advice if the two differ.
//!
//! Deals with names of devices and opens them. Independent of dtypes and models.

use std::sync::Mutex;

use anyhow::Context as _;
use lsregen_tensor::candle_core::Device;

/// A device that was requested by name.
#[derive(Debug)]
pub struct Opened {
    /// The device.
    pub device: Device,
    /// A warning for the user: why `auto` is the CPU in a build with CUDA.
    pub warning: Option<String>,
}

/// Opens `auto` (the first CUDA device where the build and the machine have one, else the CPU), `cpu`, `cuda` (the
/// first) or `cuda:N`.
///
/// # Errors
/// If the name is none of these, or if the machine has no such device.
pub fn open(name: &str) -> anyhow::Result<Opened> {
    let cpu = |warning| Opened { device: Device::Cpu, warning };
    let opened = match name {
        "cpu" => cpu(None),
        "auto" if cfg!(feature = "cuda") => match cuda(0) {
            Ok(device) => Opened { device, warning: None },
            Err(error) => cpu(Some(format!("computing on the CPU: {error:#}"))),
        },
        "auto" => cpu(None),
        _ => {
            let number = match name {
                "cuda" => Some(0),
                other => other.strip_prefix("cuda:").and_then(|n| n.parse().ok()),
            };
            let number =
                number.with_context(|| format!("device `{name}` is unknown: write auto, cpu, cuda or cuda:N"))?;
            let device = cuda(number).with_context(|| format!("device `{name}` cannot be used"))?;
            Opened { device, warning: None }
        }
    };
    *LAST.lock().unwrap_or_else(|e| e.into_inner()) = Some(opened.device.clone());
    Ok(opened)
}

/// The device that was opened last: CUDA's errors do not name their device.
static LAST: Mutex<Option<Device>> = Mutex::new(None);

/// Returns the free and the total memory in bytes of the device that was opened last, after an allocation has failed; `None` for
/// the CPU. Freed memory that the process still keeps is given back first, so that it counts as free: the failed node is over,
/// and the run that goes on in other nodes, or after a change in `watch`, starts with all of it.
pub(crate) fn memory_after_failure() -> Option<(usize, usize)> {
    #[cfg(feature = "cuda")]
    {
        let device = LAST.lock().unwrap_or_else(|e| e.into_inner()).clone()?;
        lsregen_tensor::cuda::release_freed_memory(&device);
        lsregen_tensor::cuda::memory(&device)
    }
    #[cfg(not(feature = "cuda"))]
    None
}

#[cfg(not(feature = "cuda"))]
fn cuda(_: usize) -> anyhow::Result<Device> {
    anyhow::bail!("this build has no CUDA; build it with `--features cuda`, or use `cpu`")
}

#[cfg(feature = "cuda")]
fn cuda(number: usize) -> anyhow::Result<Device> {
    let count = lsregen_tensor::cuda::devices()?;
    match count {
        _ if number < count => {}
        1 => anyhow::bail!("the only CUDA device here is `cuda:0`"),
        _ => anyhow::bail!("the CUDA devices here are `cuda:0` to `cuda:{}`", count - 1),
    }
    lsregen_tensor::cuda::open(number).map_err(|error| {
        let text = error.to_string();
        let advice = advice(&text).unwrap_or("see `nvidia-smi`: another program may have exclusive use of it");
        anyhow::anyhow!("the CUDA device does not open: {text}; {advice}")
    })
}

/// Returns advice on an error of CUDA or one of its libraries, if there is any. The first code that the error contains decides.
pub(crate) fn advice(error: &str) -> Option<&'static str> {
    let of = |(codes, _): &&(&[&str], &str)| codes.iter().any(|code| error.contains(code));
    ADVICE.iter().find(of).map(|(_, advice)| *advice)
}

/// Advice by codes of the driver, cuBLAS and cuDNN.
const ADVICE: [(&[&str], &str); 10] = [
    (
        &["UNSUPPORTED_PTX_VERSION"],
        "the driver is older than the toolkit of this build: update the driver, or build with an older CUDA toolkit",
    ),
    (&["INSUFFICIENT_DRIVER"], "the driver is older than the CUDA libraries: update the driver"),
    (
        &["NO_BINARY_FOR_GPU", "INVALID_PTX", "ARCH_MISMATCH"],
        "this build is for another kind of GPU: build it with CUDA_COMPUTE_CAP of this one or lower (80 for all since Ampere)",
    ),
    (
        &["SYSTEM_DRIVER_MISMATCH"],
        "the driver's library and its kernel module differ: restart the machine after an update",
    ),
    (
        &["ECC_UNCORRECTABLE", "NVLINK_UNCORRECTABLE", "CUDA_ERROR_CONTAINED", "TENSOR_MEMORY_LEAK"],
        "the GPU's memory is faulty: see `nvidia-smi -q`, and take another",
    ),
    (
        &["CUDNN_STATUS_SUBLIBRARY", "SHARED_OBJECT_INIT_FAILED", "SHARED_OBJECT_SYMBOL_NOT_FOUND", "STUB_LIBRARY"],
        "a part of CUDA's libraries is missing or of another version: cuDNN loads `libcudnn_graph`, `libcudnn_ops`, \
         `libcudnn_cnn` and `libcudnn_engines_*` when it first needs them; install all of its files in one folder, and name \
         that folder in LD_LIBRARY_PATH before those of other versions",
    ),
    (
        &["LAUNCH_TIMEOUT"],
        "the GPU also drives a display, whose driver ends long computations: compute on another GPU, or without a display",
    ),
    (
        &[
            "ILLEGAL_ADDRESS",
            "LAUNCH_FAILED",
            "MISALIGNED_ADDRESS",
            "ILLEGAL_INSTRUCTION",
            "INVALID_ADDRESS_SPACE",
            "INVALID_PC",
            "HARDWARE_STACK_ERROR",
            "CUDA_ERROR_ASSERT",
            "STATUS_EXECUTION_FAILED",
            "STATUS_INTERNAL_ERROR",
        ],
        "a computation on the GPU failed, and this process cannot use the GPU any more; run the command again, which goes on \
         after the nodes that are cached. If the error returns with the same graph, please report it, with the lines that \
         `-vv` logs; if it comes and goes, test the GPU: `dmesg` lists its errors as `NVRM: Xid`",
    ),
    (
        &[
            "DEVICE_UNAVAILABLE",
            "CUDA_ERROR_NO_DEVICE",
            "CUDA_ERROR_UNKNOWN",
            "SYSTEM_NOT_READY",
            "MPS_",
            "DEVICE_NOT_LICENSED",
        ],
        "the GPU is lost or held by another program: see `nvidia-smi`, and `dmesg`, which lists its errors as `NVRM: Xid`; a \
         lost GPU needs a reset or a restart of the machine",
    ),
    (
        &["STATUS_NOT_INITIALIZED", "STATUS_INITIALIZATION_FAILED"],
        "a library of CUDA did not start: the GPU's memory may be full (see `nvidia-smi`, and reduce the need with `--offload` or \
         a smaller image), or the library is not that of its name",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_by_name() {
        let cpu = open("cpu").unwrap();
        assert!(cpu.device.is_cpu() && cpu.warning.is_none());
        for name in ["gpu", "cuda:x", "cuda:", "CUDA", "cuda:-1", ""] {
            let error = open(name).unwrap_err().to_string();
            assert!(error.contains("auto, cpu, cuda or cuda:N") && error.contains(&format!("`{name}`")), "{error}");
        }
    }

    #[cfg(not(feature = "cuda"))]
    #[test]
    fn a_build_without_cuda_reports_it_only_on_request() {
        let auto = open("auto").unwrap();
        assert!(auto.device.is_cpu() && auto.warning.is_none());
        for name in ["cuda", "cuda:1"] {
            let error = format!("{:#}", open(name).unwrap_err());
            assert!(error.contains("--features cuda") && error.contains(name), "{error}");
        }
    }

    #[test]
    fn advice_for_errors_of_cuda() {
        let error = "DriverError(CUDA_ERROR_UNSUPPORTED_PTX_VERSION, \"the provided PTX was compiled with …\")";
        assert!(advice(error).unwrap().contains("update the driver"));
        assert_eq!(advice("shape mismatch"), None);
        for (error, words) in [
            (
                "DriverError(CUDA_ERROR_ILLEGAL_ADDRESS, \"an illegal memory access was encountered\")",
                "run the command again",
            ),
            ("DriverError(CUDA_ERROR_LAUNCH_FAILED, \"unspecified launch failure\")", "NVRM: Xid"),
            ("DriverError(CUDA_ERROR_ECC_UNCORRECTABLE, \"…\")", "memory is faulty"),
            ("DriverError(CUDA_ERROR_DEVICE_UNAVAILABLE, \"…\")", "the GPU is lost"),
            ("DriverError(CUDA_ERROR_UNKNOWN, \"unknown error\")", "the GPU is lost"),
            ("CudnnError(CUDNN_STATUS_SUBLIBRARY_LOADING_FAILED)", "libcudnn_cnn"),
            ("CudnnError(CUDNN_STATUS_EXECUTION_FAILED)", "cannot use the GPU any more"),
            ("CublasError(CUBLAS_STATUS_NOT_INITIALIZED)", "memory may be full"),
            ("CublasError(CUBLAS_STATUS_ARCH_MISMATCH)", "another kind of GPU"),
        ] {
            assert!(advice(error).unwrap().contains(words), "{error}: {:?}", advice(error));
        }
    }
}
