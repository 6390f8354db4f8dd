//! `cuda-device check-kernels`: what it lets pass, and what it refuses.

use std::process::Command;

/// Kernels with these names: the first is right, the second wrong.
fn kernels(right: &str, wrong: &str) -> String {
    include_str!("kernels/checked.ptx").replace("fill_f32", right).replace("fill_u32_but_last", wrong)
}

/// Runs the command on a folder with one file. Returns whether it succeeds, and its text.
fn check(name: &str, ptx: &str) -> (bool, String) {
    let folder = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("kernels.ptx"), ptx).unwrap();
    let command = Command::new(env!("CARGO_BIN_EXE_cuda-device"))
        .env("CUDA_DEVICE_CACHE", folder.join("cache"))
        .arg("check-kernels")
        .arg(&folder)
        .output()
        .unwrap();
    let text = [command.stdout, command.stderr].concat();
    (command.status.success(), String::from_utf8_lossy(&text).into_owned())
}

#[test]
fn exempt_kernels_are_named_and_pass() {
    let (success, text) = check("exempt", &kernels("fill_f32", "dequantize_block_other"));
    assert!(success, "{text}");
    assert!(text.contains("exempt: dequantize_block_other") && text.contains("1 passed, 0 failed, 0 lack"), "{text}");
}

#[test]
fn a_wrong_result_fails() {
    let (success, text) = check("wrong", &kernels("fill_f32", "fill_u32"));
    assert!(!success && text.contains("fill_u32: all: result 1049 is 8, not 7"), "{text}");
}

#[test]
fn a_kernel_without_a_reference_fails_by_name() {
    for name in ["fresh_u32", "group_norm_vjp_more", "no_type"] {
        let (success, text) = check(name, &kernels("fill_f32", name));
        assert!(!success && text.contains(&format!("{name}: no reference")), "{text}");
    }
}

#[test]
fn a_folder_without_kernels_fails() {
    let (success, text) = check("nothing", &kernels("get_rows_some", "dequantize_block_other"));
    assert!(!success && text.contains("no kernel that needs a reference"), "{text}");
}
