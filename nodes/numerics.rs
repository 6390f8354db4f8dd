//! Where the numbers are made: the device and the dtype, a service of the host.

use lsregen_diffusion::candle_core::{DType, Device, DeviceLocation};

use crate::device;

/// The tensor library, as the memo keys know it: other versions may give other last bits.
const BACKEND: &str = "candle 0.11.1";

/// The device and dtype of every model that nodes load; see [`Host::with_service`](lsregen_engine::Host::with_service).
#[derive(Clone, Debug)]
pub struct Numerics {
    pub device: Device,
    pub dtype: DType,
}

impl Numerics {
    /// On a device by name, see [`device::open`]. Everything is computed in f32, so that one seed gives one picture
    /// everywhere.
    ///
    /// # Errors
    /// When the name is unknown, or there is no such device.
    pub fn new(device: &str) -> anyhow::Result<Numerics> {
        Ok(Numerics::on(device::open(device)?.device))
    }

    /// On this device.
    pub fn on(device: Device) -> Numerics {
        Numerics { device, dtype: DType::F32 }
    }

    /// The device in words, such as `cpu` or `cuda:0`.
    pub fn device_name(&self) -> String {
        match self.device.location() {
            DeviceLocation::Cpu => "cpu".into(),
            DeviceLocation::Cuda { gpu_id } => format!("cuda:{gpu_id}"),
            DeviceLocation::Metal { gpu_id } => format!("metal:{gpu_id}"),
        }
    }

    /// What decides the numbers beside the nodes: kind of device, dtype, and versions of the code that computes. For
    /// [`Host::with_fingerprint`](lsregen_engine::Host::with_fingerprint).
    pub fn fingerprint(&self) -> String {
        let kind = match self.device {
            Device::Cpu => std::env::consts::ARCH,
            Device::Cuda(_) => "cuda",
            Device::Metal(_) => "metal",
        };
        format!("{kind}, {}, lsregen {}, {BACKEND}", self.dtype.as_str(), env!("CARGO_PKG_VERSION"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_in_words() {
        assert_eq!(Numerics::new("cpu").unwrap().device_name(), "cpu");
    }

    /// The keys must change when the tensor library does.
    #[test]
    fn backend_is_the_locked_one() {
        let lock = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.lock")).unwrap();
        let (name, version) = BACKEND.split_once(' ').unwrap();
        assert!(lock.contains(&format!("name = \"{name}-core\"\nversion = \"{version}\"")), "BACKEND is out of date");
    }
}
