//! Functions that launch kernels.

use std::ffi::{c_uint, c_void};

use super::context::current;
use super::module::Function;
use crate::code::Code;
use crate::launch::{Shape, launch};
use crate::stream::StreamHandle;

/// CUlaunchConfig.
#[repr(C)]
pub struct LaunchConfig {
    grid: [c_uint; 3],
    block: [c_uint; 3],
    shared: c_uint,
    stream: StreamHandle,
    attributes: *mut c_void,
    attribute_count: c_uint,
}

/// The markers of `extra`.
const END: usize = 0;
const BUFFER: usize = 1;
const SIZE: usize = 2;

/// Copies the parameters of a launch.
///
/// # Safety
///
/// The pointers are as CUDA wants them.
unsafe fn parameters(function: &Function, each: *mut *mut c_void, extra: *mut *mut c_void) -> Result<Vec<u8>, Code> {
    let layout = &function.translated.params;
    let end = layout.last().map_or(0, |(offset, bytes)| offset + bytes);
    let mut block = vec![0u8; end];
    // SAFETY: `each` has a pointer for each parameter, and `extra` ends with its marker.
    unsafe {
        if !each.is_null() {
            for (at, (offset, bytes)) in layout.iter().enumerate() {
                let from = *each.add(at);
                if from.is_null() {
                    return Err(Code::INVALID_VALUE);
                }
                std::ptr::copy_nonoverlapping(from.cast::<u8>(), block.as_mut_ptr().add(*offset), *bytes);
            }
            return Ok(block);
        }
        if extra.is_null() {
            return if layout.is_empty() { Ok(block) } else { Err(Code::INVALID_VALUE) };
        }
        let (mut buffer, mut size, mut at) = (std::ptr::null::<u8>(), 0, 0);
        loop {
            match *extra.add(at) as usize {
                END => break,
                BUFFER => buffer = (*extra.add(at + 1)).cast(),
                SIZE => size = *(*extra.add(at + 1)).cast::<usize>(),
                _ => return Err(Code::INVALID_VALUE),
            }
            at += 2;
        }
        if buffer.is_null() || size < end {
            return Err(Code::INVALID_VALUE);
        }
        std::ptr::copy_nonoverlapping(buffer, block.as_mut_ptr(), end);
    }
    Ok(block)
}

driver! {
    fn cuLaunchKernel(function: *const Function, grid_x: c_uint, grid_y: c_uint, grid_z: c_uint, block_x: c_uint,
                      block_y: c_uint, block_z: c_uint, shared: c_uint, stream: StreamHandle,
                      params: *mut *mut c_void, extra: *mut *mut c_void) {
        current()?;
        let function = unsafe { super::module::function(function)? };
        let block = unsafe { parameters(function, params, extra)? };
        let shape = Shape { grid: [grid_x, grid_y, grid_z], block: [block_x, block_y, block_z], dynamic: shared };
        launch(function, shape, stream, block)
    }
    fn cuLaunchKernelEx(config: *const LaunchConfig, function: *const Function, params: *mut *mut c_void,
                        extra: *mut *mut c_void) {
        current()?;
        // SAFETY: CUDA's structure, which is checked for null.
        let config = unsafe { config.as_ref() }.ok_or(Code::INVALID_VALUE)?;
        // Clusters and programmatic launches are not here; priorities and the like change nothing.
        let function = unsafe { super::module::function(function)? };
        let block = unsafe { parameters(function, params, extra)? };
        let shape = Shape { grid: config.grid, block: config.block, dynamic: config.shared };
        launch(function, shape, config.stream, block)
    }
    fn cuLaunchCooperativeKernel(_function: *const Function, _grid_x: c_uint, _grid_y: c_uint, _grid_z: c_uint,
                                 _block_x: c_uint, _block_y: c_uint, _block_z: c_uint, _shared: c_uint,
                                 _stream: StreamHandle, _params: *mut *mut c_void) {
        Err(Code::NOT_SUPPORTED)
    }
}
