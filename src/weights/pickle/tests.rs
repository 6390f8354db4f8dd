//! Compares files that torch wrote (`tests/fixtures/pickles.py`) with the values that torch reads from them.

use std::collections::BTreeMap;
use std::path::PathBuf;

use safetensors::SafeTensors;

use super::*;
use crate::elements;
use crate::entry::TensorEntry;

fn content(file: &[u8]) -> Content {
    Content::Memory(Cow::Owned(file.to_vec()))
}

fn fixture(name: &str) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/pickles").join(name);
    std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Returns the values of an entry, in the order of its shape.
fn numbers(file: &[u8], entry: &TensorEntry) -> Vec<u8> {
    let bytes = &file[entry.bytes.clone()];
    let Some(strides) = &entry.strides else { return bytes.to_vec() };
    let size = entry.dtype.bitsize() / 8;
    let mut places = vec![0];
    for (n, stride) in entry.shape.iter().zip(strides) {
        places = places.iter().flat_map(|at| (0..*n).map(move |i| at + i * stride)).collect();
    }
    places.iter().flat_map(|at| bytes[at * size..(at + 1) * size].to_vec()).collect()
}

#[test]
fn tensors_are_those_that_torch_reads() {
    let mut views = 0;
    for name in [
        "dtypes.pt",
        "dtypes_old.pt",
        "protocol4.pt",
        "protocol4_old.pt",
        "protocol5.pt",
        "views.pt",
        "views_old.pt",
        "long_fields.pt",
        "module.pt",
        "nested.pt",
        "lightning.ckpt",
        "lightning_old.ckpt",
    ] {
        let file = fixture(name);
        assert!(recognises(&content(&file)), "{name}");
        let directory = directory(&content(&file), name).unwrap_or_else(|e| panic!("{e}"));
        let truth = fixture(&format!("{}.safetensors", name.split_once('.').unwrap().0));
        let truth = SafeTensors::deserialize(&truth).unwrap();
        let truth: BTreeMap<_, _> = truth.iter().collect();
        let names = |keys: Vec<&str>| keys.join(" ");
        assert_eq!(
            names(directory.keys().map(|k| k.as_str()).collect()),
            names(truth.keys().copied().collect()),
            "{name}"
        );
        for (key, entry) in &directory {
            let wanted = &truth[key.as_str()];
            assert_eq!((entry.dtype, entry.shape.as_slice()), (wanted.dtype(), wanted.shape()), "{name} {key}");
            assert_eq!(numbers(&file, entry), wanted.data(), "{name} {key}");
            views += usize::from(entry.strides.is_some());
        }
    }
    // Only the four views are not in order, in three files each.
    assert_eq!(views, 3 * 4);
}

#[test]
fn shared_storages_are_the_same_bytes() {
    let file = fixture("views.pt");
    let directory = directory(&content(&file), "views.pt").unwrap();
    let of = |name: &str| directory[name].bytes.clone();
    assert_eq!(of("tied"), of("again"));
    assert_eq!(of("tail"), of("whole").start + 80..of("whole").end);
    assert_eq!(of("stepped"), of("whole").start + 24..of("whole").start + 24 + 4 * (2 * 6 + 3 + 1));
}

#[test]
fn rejected_files_have_a_reason() {
    for (name, reasons) in [
        ("bad_system.pt", &["system", "nothing of the file was run", "safetensors"][..]),
        ("bad_system_old.pt", &["system"]),
        ("bad_evaluated.pt", &["`__builtin__.eval`"]),
        ("bad_imported.pt", &["`__builtin__.__import__`"]),
        ("bad_built.pt", &["`pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint`"]),
        ("bad_array.pt", &["_reconstruct`"]),
        ("bad_complex.pt", &["`torch.ComplexDoubleStorage`"]),
        ("bad_expanded.pt", &["tensor `weight`", "[1000, 1000]", "more elements than its storage"]),
        ("bad_empty.pt", &["without a single named tensor"]),
        ("bad_compressed.pt", &["/data/0` is compressed", "zip -0"]),
        ("bad_big_endian.pt", &["big-endian"]),
        ("bad_big_endian_old.pt", &["big-endian"]),
        ("bad_short.pt", &["shorter than it says"]),
        ("bad_missing.pt", &["/data/0` is missing"]),
        ("bad_loop.pt", &["endlessly"]),
        ("bad_twice.pt", &["endlessly"]),
    ] {
        let file = fixture(name);
        assert!(recognises(&content(&file)), "{name}");
        let error = directory(&content(&file), name).unwrap_err().to_string();
        for reason in reasons.iter().chain(&[name]) {
            assert!(error.contains(reason), "{name}: {error}");
        }
    }
    assert!(!PathBuf::from("ran-a-pickle").exists());
}

/// A file that is truncated at any byte is an error.
#[test]
fn truncated_files_are_rejected() {
    for name in ["views.pt", "views_old.pt", "protocol4_old.pt", "long_fields.pt"] {
        let file = fixture(name);
        for length in 0..file.len() {
            assert!(directory(&content(&file[..length]), name).is_err(), "{name}, {length} bytes");
        }
        // An incomplete download is still recognised as a checkpoint.
        assert!(recognises(&content(&file[..file.len() / 2])), "{name}");
    }
}

#[test]
fn other_files_are_not_recognised() {
    for file in [&b""[..], b"\x80", b"\x80\x02}.", b"PK\x03\x04", b"PK\x05\x06", b"GGUF", b"\x08\0\0\0\0\0\0\0{}      "]
    {
        assert!(!recognises(&content(file)), "{file:?}");
        assert!(directory(&content(file), "x").is_err(), "{file:?}");
    }
}

#[test]
fn a_size_of_zero_does_not_hide_an_overflow() {
    assert_eq!(elements(&[0, 3]), Some(0));
    assert_eq!(elements(&[]), Some(1));
    for shape in [&[0, 1 << 40, 1 << 40][..], &[1 << 40, 1 << 40, 0], &[usize::MAX, 2]] {
        assert_eq!(elements(shape), None, "{shape:?}");
    }
}
