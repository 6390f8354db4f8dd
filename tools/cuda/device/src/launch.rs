//! Launches of kernels: their limits, and their blocks on all cores.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rayon::prelude::*;

use crate::block::{Grid, run};
use crate::bytes;
use crate::code::{Code, Outcome};
use crate::count::{Amount, Counted, add};
use crate::driver::module::Function;
use crate::mode::{Failure, null, settings};
use crate::stream::{Node, StreamHandle, Work, push};

/// Shared memory that every kernel may use.
pub const SHARED: usize = 48 << 10;

/// Returns the most shared memory that a kernel may ask for.
pub fn shared_limit() -> usize {
    match settings().capability {
        90.. => 227 << 10,
        80 | 87 => 163 << 10,
        81..90 => 99 << 10,
        75..80 => 64 << 10,
        _ => 96 << 10,
    }
}

/// The shape of a launch.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub grid: [u32; 3],
    pub block: [u32; 3],
    /// Bytes of shared memory beside those of the kernel.
    pub dynamic: u32,
}

/// Checks what CUDA checks at a launch. The error says what is wrong.
pub fn check(shape: &Shape, shared: usize, raised: usize) -> Result<(), String> {
    let Shape { grid, block, dynamic } = *shape;
    let axes = ["x", "y", "z"];
    for (axis, (size, most)) in axes.iter().zip(grid.iter().zip([i32::MAX as u32, 65535, 65535])) {
        if *size == 0 || *size > most {
            return Err(format!("grid.{axis} is {size}, but must be between 1 and {most}"));
        }
    }
    for (axis, (size, most)) in axes.iter().zip(block.iter().zip([1024, 1024, 64])) {
        if *size == 0 || *size > most {
            return Err(format!("block.{axis} is {size}, but must be between 1 and {most}"));
        }
    }
    let threads: u64 = block.iter().map(|n| u64::from(*n)).product();
    if threads > 1024 {
        return Err(format!("a block has {threads} threads, but at most 1024 are possible"));
    }
    let most = SHARED.saturating_sub(shared).max(raised);
    if dynamic as usize > most {
        return Err(format!("the launch asks for {dynamic} bytes of shared memory, but the kernel may have {most}"));
    }
    Ok(())
}

/// Counts launches for planned failures. Returns an error from the planned launch on.
fn planned_failure() -> Outcome {
    static LAUNCHES: AtomicU64 = AtomicU64::new(0);
    let number = LAUNCHES.fetch_add(1, Ordering::Relaxed) + 1;
    match settings().fail {
        Some(Failure::Lost(planned)) if number >= planned => {
            crate::driver::lose();
            Err(Code::ILLEGAL_ADDRESS)
        }
        _ => Ok(()),
    }
}

/// Puts a launch at the end of a stream.
pub fn launch(function: &Function, shape: Shape, stream: StreamHandle, params: Vec<u8>) -> Outcome {
    planned_failure()?;
    if let Err(text) = check(&shape, function.translated.shared, function.raised()) {
        eprintln!("software CUDA device: launch of `{}` refused: {text}", function.translated.name);
        return Err(Code::INVALID_VALUE);
    }
    let name = function.translated.name.clone();
    let threads = shape.grid.iter().chain(&shape.block).map(|n| u64::from(*n)).product();
    let estimate = bytes::estimate(&name, &shape, &function.translated.params, &params);
    let work = Work { group: Counted::Kernel, name, bytes: estimate, flops: 0.0 };
    if null() {
        return push(stream, Node { work, threads, run: Box::new(|| ()) });
    }
    let kernel = function.kernel().map_err(|error| {
        eprintln!("software CUDA device: {error}");
        Code::OPERATING_SYSTEM
    })?;
    let kernel = Arc::clone(kernel);
    let run = move || {
        let grid =
            Grid { kernel: &kernel, grid: shape.grid, block: shape.block, dynamic: shape.dynamic, params: &params };
        let (read, written) = run_grid(&grid);
        // Of a kernel without an estimate, its accesses stand for it.
        let bytes = if estimate == 0 { read + written } else { 0 };
        let amount = Amount { bytes, read, written, ..Amount::default() };
        add(Counted::Kernel, &kernel.name, amount);
    };
    push(stream, Node { work, threads, run: Box::new(run) })
}

/// Runs all blocks. Returns bytes read and written.
fn run_grid(grid: &Grid<'_>) -> (u64, u64) {
    let blocks = grid.blocks();
    let workers = settings().threads as u64;
    // Small launches cost more to share than to run.
    if workers == 1 || blocks == 1 || blocks * (grid.threads() as u64) < 4096 {
        return run(grid, 0..blocks);
    }
    let part = blocks.div_ceil(workers * 8).max(1);
    let parts = (0..blocks.div_ceil(part)).into_par_iter();
    let sum = |a: (u64, u64), b: (u64, u64)| (a.0 + b.0, a.1 + b.1);
    parts.map(|i| run(grid, i * part..((i + 1) * part).min(blocks))).reduce(|| (0, 0), sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(grid: [u32; 3], block: [u32; 3], dynamic: u32) -> String {
        check(&Shape { grid, block, dynamic }, 1024, 0).unwrap_err()
    }

    #[test]
    fn limits_are_named() {
        let one = [1, 1, 1];
        assert!(
            check(&Shape { grid: [i32::MAX as u32, 65535, 65535], block: [16, 1, 64], dynamic: 47 << 10 }, 1024, 0)
                .is_ok()
        );
        assert!(error([1, 65536, 1], one, 0).contains("grid.y is 65536"));
        assert!(error([0, 1, 1], one, 0).contains("grid.x is 0"));
        assert!(error(one, [1025, 1, 1], 0).contains("block.x"));
        assert!(error(one, [1, 1, 65], 0).contains("block.z"));
        assert!(error(one, [32, 33, 1], 0).contains("1056 threads"));
        assert!(error(one, one, (47 << 10) + 1).contains("shared memory"));
        assert!(check(&Shape { grid: one, block: one, dynamic: 90 << 10 }, 1024, 90 << 10).is_ok());
    }
}
