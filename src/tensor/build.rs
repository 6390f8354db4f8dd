//! Compiles the CUDA kernels of `cuda/kernels` to PTX, with the feature `cuda` only.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    #[cfg(feature = "cuda")]
    kernels();
}

/// Writes OUT_DIR/kernels.rs: a constant with the PTX of each file.
#[cfg(feature = "cuda")]
fn kernels() {
    let folder = std::path::Path::new("cuda/kernels");
    println!("cargo::rerun-if-changed={}", folder.display());
    let out = std::path::PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let ptx = cudaforge::KernelBuilder::new()
        .source_dir(folder)
        .watch([folder.join("common.cuh")])
        .arg("-std=c++17")
        .arg("-O3")
        .build_ptx()
        .expect("the CUDA kernels compile");
    ptx.write(out.join("kernels.rs")).expect("OUT_DIR is writable");
}
