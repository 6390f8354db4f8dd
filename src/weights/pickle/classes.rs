//! The classes and functions that a pickle may name: those of dtypes and storages, and those whose content is dropped.

use safetensors::Dtype;

use super::{refused, shown};

/// The dtype of the storage class `torch.{name}Storage`.
pub fn storage_dtype(name: &str) -> Option<Dtype> {
    Some(match name {
        "Float" => Dtype::F32,
        "Half" => Dtype::F16,
        "BFloat16" => Dtype::BF16,
        "Double" => Dtype::F64,
        "Long" => Dtype::I64,
        "Int" => Dtype::I32,
        "Short" => Dtype::I16,
        "Char" => Dtype::I8,
        "Byte" => Dtype::U8,
        "Bool" => Dtype::BOOL,
        "ComplexFloat" => Dtype::C64,
        _ => return None,
    })
}

/// The dtype `torch.{name}`, for dtypes without a storage class of their own.
pub fn tensor_dtype(name: &str) -> Option<Dtype> {
    Some(match name {
        "float8_e4m3fn" => Dtype::F8_E4M3,
        "float8_e5m2" => Dtype::F8_E5M2,
        "float8_e4m3fnuz" => Dtype::F8_E4M3FNUZ,
        "float8_e5m2fnuz" => Dtype::F8_E5M2FNUZ,
        "float8_e8m0fnu" => Dtype::F8_E8M0,
        "uint16" => Dtype::U16,
        "uint32" => Dtype::U32,
        "uint64" => Dtype::U64,
        _ => return None,
    })
}

/// Whether a class belongs to the settings that trainers save with tensors. A call of it becomes
/// [`PickleValue::Other`](super::heap::PickleValue::Other); it is never run, so its effect in Python does not matter.
pub fn is_inert(module: &str, name: &str) -> bool {
    match (module, name) {
        ("torch", "Size" | "device") => true,
        ("numpy.core.multiarray" | "numpy._core.multiarray", "scalar") | ("numpy", "dtype") => true,
        ("__builtin__" | "builtins", "set" | "frozenset" | "complex" | "bytearray") | ("_codecs", "encode") => true,
        ("argparse", "Namespace") | ("pathlib", "PosixPath" | "WindowsPath") => true,
        // The configuration in the files of GLIGEN's authors and of Lightning.
        (module, _) if module.starts_with("omegaconf.") => true,
        (_, "AttributeDict") => module.starts_with("pytorch_lightning.") || module.starts_with("lightning"),
        _ => false,
    }
}

/// The error for a class or function that is not supported.
pub fn unsupported(module: &str, name: &str) -> String {
    refused(format!("its pickle creates or calls `{}.{}`", shown(module), shown(name)))
}
