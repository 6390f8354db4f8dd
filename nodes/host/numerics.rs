//! The device and the dtypes of models: a service of the host.

use lsregen_diffusion::models::remat::GRADIENT_MEMORY;
use lsregen_tensor::candle_core::{DType, Device, DeviceLocation};
use lsregen_weights::Precision;

/// The tensor library, as part of memo keys: results of other versions may differ in the last bits.
const BACKEND: &str = "candle 0.11.1";

/// The device and dtypes of every model that nodes load; see [`Host::with_service`](lsregen_engine::Host::with_service).
#[derive(Clone, Debug)]
pub struct ComputeOptions {
    pub precision: Precision,
    /// Whether only one network of a model is in memory at a time.
    pub offload: bool,
    /// The bytes of activations that each network may keep for its backward pass; others are recomputed. Not part of
    /// memo keys, because results differ only by rounding.
    pub gradient_memory: u64,
}

/// The dtype that a user requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DtypeOption {
    /// On the CPU f32, with weights in the dtype of their files, which does not change results; on CUDA bf16.
    #[default]
    Auto,
    F32,
    Bf16,
    F16,
}

impl DtypeOption {
    /// Returns the precision for a device. On the CPU everything is computed in f32, which is faster there, whatever
    /// the dtype of the weights.
    fn precision(self, device: Device) -> Precision {
        let half = match self {
            DtypeOption::Auto => None,
            DtypeOption::F32 => Some(DType::F32),
            DtypeOption::Bf16 => Some(DType::BF16),
            DtypeOption::F16 => Some(DType::F16),
        };
        let compute = if device.is_cpu() { DType::F32 } else { half.unwrap_or(DType::BF16) };
        Precision { device, compute, weights: half }
    }
}

impl ComputeOptions {
    /// Creates the options for a device: see [`device::open`](crate::device::open).
    pub fn new(device: Device, dtype: DtypeOption, offload: bool) -> ComputeOptions {
        ComputeOptions { precision: dtype.precision(device), offload, gradient_memory: GRADIENT_MEMORY }
    }

    /// Sets the gradient memory, in bytes.
    pub fn with_gradient_memory(self, bytes: u64) -> ComputeOptions {
        ComputeOptions { gradient_memory: bytes, ..self }
    }

    /// Returns the name of the device, such as `cpu` or `cuda:0`.
    pub fn device_name(&self) -> String {
        match self.precision.device.location() {
            DeviceLocation::Cpu => "cpu".into(),
            DeviceLocation::Cuda { gpu_id } => format!("cuda:{gpu_id}"),
            DeviceLocation::Metal { gpu_id } => format!("metal:{gpu_id}"),
        }
    }

    /// Returns everything besides the nodes that affects results: the kind of device, the dtypes, and the versions of
    /// lsregen and of the tensor library. For [`Host::with_fingerprint`](lsregen_engine::Host::with_fingerprint).
    pub fn fingerprint(&self) -> String {
        let kind = match self.precision.device {
            Device::Cpu => std::env::consts::ARCH,
            Device::Cuda(_) => "cuda",
            Device::Metal(_) => "metal",
        };
        let dtype = match (self.precision.compute, self.precision.weights) {
            (compute, Some(weights)) if weights != compute => format!("{} of {}", compute.as_str(), weights.as_str()),
            (compute, _) => compute.as_str().to_string(),
        };
        format!("{kind}, {dtype}, lsregen {}, {BACKEND}", env!("CARGO_PKG_VERSION"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_in_words() {
        assert_eq!(ComputeOptions::new(Device::Cpu, DtypeOption::Auto, false).device_name(), "cpu");
    }

    /// Widening half-precision weights does not change results, but rounding weights to half precision does.
    #[test]
    fn fingerprint_has_all_that_changes_results() {
        let of = |precision| ComputeOptions::new(Device::Cpu, precision, false).fingerprint();
        assert_eq!(of(DtypeOption::Auto), of(DtypeOption::F32));
        assert_ne!(of(DtypeOption::Auto), of(DtypeOption::Bf16));
        assert_ne!(of(DtypeOption::F16), of(DtypeOption::Bf16));
    }

    /// The keys must change when the tensor library does.
    #[test]
    fn backend_is_the_locked_one() {
        let lock = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.lock")).unwrap();
        let (name, version) = BACKEND.split_once(' ').unwrap();
        assert!(lock.contains(&format!("name = \"{name}-core\"\nversion = \"{version}\"")), "BACKEND is out of date");
    }
}
