//! Translates kernels ahead of their first use, and checks them.

use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};

use cuda_device::{check, compile, ptx, translate};
use rayon::prelude::*;

const USAGE: &str = "usage: cuda-device translate FILES…       translates all kernels of PTX files into the cache
       cuda-device check-kernels DIRS…    compares the kernels of candle and lsregen, as PTX in folders, with references
       cuda-device c FILE KERNEL          prints a kernel as C
The cache is the folder in CUDA_DEVICE_CACHE.";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let texts: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match texts[..] {
        ["translate", ref files @ ..] if !files.is_empty() => files.iter().try_for_each(|file| translate_file(file)),
        ["check-kernels", ref folders @ ..] if !folders.is_empty() => check::check_folders(folders),
        ["c", file, kernel] => print_c(file, kernel),
        _ => Err(USAGE.to_owned()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn read(file: &str) -> Result<ptx::Module, String> {
    let text = std::fs::read_to_string(Path::new(file)).map_err(|e| format!("cannot read {file}: {e}"))?;
    ptx::parse(&text).map_err(|e| format!("{file}: {e}"))
}

/// Translates and compiles all kernels of a file. Errors are printed, and counted at the end.
fn translate_file(file: &str) -> Result<(), String> {
    let module = read(file)?;
    let kernels: Vec<&str> =
        module.functions.iter().filter(|f| f.kernel && f.body.is_some()).map(|f| f.name.as_str()).collect();
    let (failed, compiled) = (AtomicUsize::new(0), AtomicUsize::new(0));
    kernels.par_iter().for_each(|kernel| {
        let translated = translate::kernel(&module, kernel).map_err(|e| e.to_string());
        match translated.and_then(|translated| compile::compile(&translated)) {
            Ok((_, new)) => drop(compiled.fetch_add(usize::from(new), Ordering::Relaxed)),
            Err(error) => {
                eprintln!("{file}: {error}");
                failed.fetch_add(1, Ordering::Relaxed);
            }
        }
    });
    let failed = failed.into_inner();
    println!("{file}: {} kernels, {} compiled, {failed} failed", kernels.len(), compiled.into_inner());
    if failed > 0 { Err(format!("{failed} kernels of {file} failed")) } else { Ok(()) }
}

fn print_c(file: &str, kernel: &str) -> Result<(), String> {
    let translated = translate::kernel(&read(file)?, kernel).map_err(|e| format!("{file}: {e}"))?;
    print!("{}", translated.c);
    Ok(())
}
