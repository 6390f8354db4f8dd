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

/// Returns the free and the total memory in bytes of the device that was opened last; `None` for the CPU.
pub(crate) fn memory() -> Option<(usize, usize)> {
    #[cfg(feature = "cuda")]
    {
        let device = LAST.lock().unwrap_or_else(|e| e.into_inner()).clone()?;
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
    // One stream for all threads: a node may continue the work of another thread.
    Device::new_cuda_with_stream(number).map_err(|error| {
        let text = error.to_string();
        let advice = advice(&text).unwrap_or("see `nvidia-smi`: another program may have exclusive use of it");
        anyhow::anyhow!("the CUDA device does not open: {text}; {advice}")
    })
}

/// Returns advice on an error of CUDA, if there is any.
pub(crate) fn advice(error: &str) -> Option<&'static str> {
    const ADVICE: [(&str, &str); 6] = [
        (
            "UNSUPPORTED_PTX_VERSION",
            "the driver is older than the toolkit of this build: update the driver, or build with an older CUDA toolkit",
        ),
        ("INSUFFICIENT_DRIVER", "the driver is older than the CUDA libraries: update the driver"),
        (
            "NO_BINARY_FOR_GPU",
            "this build is for another kind of GPU: build it with CUDA_COMPUTE_CAP of this one or lower (80 for all since \
             Ampere)",
        ),
        (
            "INVALID_PTX",
            "this build is for another kind of GPU: build it with CUDA_COMPUTE_CAP of this one or lower (80 for all since \
             Ampere)",
        ),
        (
            "SYSTEM_DRIVER_MISMATCH",
            "the driver's library and its kernel module differ: restart the machine after an update",
        ),
        ("ECC_UNCORRECTABLE", "the GPU's memory is faulty: see `nvidia-smi -q`, and take another"),
    ];
    ADVICE.iter().find(|(code, _)| error.contains(code)).map(|(_, advice)| *advice)
}

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
    }
}
