//! Runs kernels through the driver, as a host program does.

use std::cell::RefCell;
use std::ffi::{CString, c_void};

use rayon::prelude::*;

use super::values::{Element, Values};
use crate::driver::{context, launch, memory, module};
use crate::stream::StreamHandle;
use crate::{compile, ptx, translate};

/// A parameter of a kernel.
pub enum Arg<'a> {
    Size(usize),
    Int(i32),
    Number(Element, f64),
    F64(f64),
    Byte(u8),
    Null,
    In(&'a Values),
    Sizes(&'a [usize]),
    /// Memory for so many results.
    Out(Element, usize),
    /// Memory with values, which are results afterwards.
    Changed(&'a Values),
}

/// Blocks of a launch, in x and in y.
pub struct Grid(u32, u32);

impl From<u32> for Grid {
    fn from(blocks: u32) -> Grid {
        Grid(blocks, 1)
    }
}

impl From<(usize, usize)> for Grid {
    fn from((blocks, lines): (usize, usize)) -> Grid {
        Grid(blocks as u32, lines as u32)
    }
}

/// A loaded module.
pub struct Host {
    module: usize,
    tree: ptx::Module,
    /// Memory of the launch that runs.
    held: RefCell<Vec<u64>>,
}

fn ok(code: i32) -> Result<(), String> {
    if code == 0 { Ok(()) } else { Err(format!("CUDA error {code}")) }
}

impl Host {
    pub fn new(text: &str) -> Result<Host, String> {
        let tree = ptx::parse(text).map_err(|e| e.to_string())?;
        let image = CString::new(text).map_err(|e| e.to_string())?;
        let mut handle = 0;
        // SAFETY: calls of the driver with valid pointers.
        unsafe {
            ok(context::cuInit(0))?;
            let mut primary = std::ptr::null_mut();
            ok(context::cuDevicePrimaryCtxRetain(&mut primary, 0))?;
            ok(context::cuCtxSetCurrent(primary))?;
            ok(module::cuModuleLoadData(&mut handle, image.as_ptr().cast()))?;
        }
        Ok(Host { module: handle, tree, held: RefCell::new(Vec::new()) })
    }

    /// Returns the names of all kernels.
    pub fn kernels(&self) -> Vec<String> {
        self.tree.functions.iter().filter(|f| f.kernel).map(|f| f.name.clone()).collect()
    }

    /// Translates and compiles kernels on all cores. Launches report the errors.
    pub fn prepare(&self, names: &[String]) {
        let tree = &self.tree;
        names.par_iter().for_each(|name| {
            if let Ok(translated) = translate::kernel(tree, name) {
                drop(compile::compile(&translated));
            }
        });
    }

    fn upload(&self, bytes: &[u8]) -> Result<u64, String> {
        let mut address = 0;
        // SAFETY: as above.
        unsafe {
            ok(memory::cuMemAlloc_v2(&mut address, bytes.len()))?;
            ok(memory::cuMemcpyHtoD_v2(address, bytes.as_ptr().cast(), bytes.len()))?;
        }
        self.held.borrow_mut().push(address);
        Ok(address)
    }

    /// Runs a kernel on a grid of one or two dimensions, and returns its results.
    pub fn run(
        &self,
        name: &str,
        grid: impl Into<Grid>,
        block: [u32; 3],
        shared: u32,
        args: &[Arg<'_>],
    ) -> Result<Values, String> {
        let mut params: Vec<[u8; 8]> = Vec::new();
        let mut result = None;
        for arg in args {
            let bits = match arg {
                Arg::Size(size) => *size as u64,
                Arg::Int(number) => u64::from(*number as u32),
                Arg::F64(number) => number.to_bits(),
                Arg::Byte(byte) => u64::from(*byte),
                Arg::Null => 0,
                Arg::Number(element, number) => {
                    let mut bytes = Values::new(*element, [*number]).bytes;
                    bytes.resize(8, 0);
                    u64::from_le_bytes(bytes.try_into().unwrap_or_default())
                }
                Arg::In(values) => self.upload(&values.bytes)?,
                Arg::Sizes(sizes) => self.upload(&sizes.iter().flat_map(|s| s.to_le_bytes()).collect::<Vec<_>>())?,
                Arg::Changed(values) => {
                    let address = self.upload(&values.bytes)?;
                    result = Some((address, values.element, values.bytes.len()));
                    address
                }
                Arg::Out(element, count) => {
                    let (mut address, bytes) = (0, count * element.bytes());
                    // SAFETY: as above.
                    unsafe { ok(memory::cuMemAlloc_v2(&mut address, bytes))? };
                    self.held.borrow_mut().push(address);
                    result = Some((address, *element, bytes));
                    address
                }
            };
            params.push(bits.to_le_bytes());
        }
        self.launch(name, grid.into(), block, shared, &mut params)?;
        let (address, element, count) = result.ok_or("the kernel has no result")?;
        let mut bytes = vec![0u8; count];
        // SAFETY: as above.
        unsafe { ok(memory::cuMemcpyDtoH_v2(bytes.as_mut_ptr().cast(), address, count))? };
        for address in self.held.borrow_mut().drain(..) {
            // SAFETY: as above.
            unsafe { ok(memory::cuMemFree_v2(address))? };
        }
        Ok(Values { element, bytes })
    }

    fn launch(
        &self,
        name: &str,
        Grid(blocks, lines): Grid,
        block: [u32; 3],
        shared: u32,
        params: &mut [[u8; 8]],
    ) -> Result<(), String> {
        let mut pointers: Vec<*mut c_void> = params.iter_mut().map(|p| p.as_mut_ptr().cast()).collect();
        let text = CString::new(name).map_err(|e| e.to_string())?;
        let mut function = std::ptr::null();
        let [x, y, z] = block;
        let (stream, none) = (StreamHandle::DEFAULT, std::ptr::null_mut());
        // SAFETY: as above.
        unsafe {
            ok(module::cuModuleGetFunction(&mut function, self.module, text.as_ptr()))?;
            ok(launch::cuLaunchKernel(function, blocks, lines, 1, x, y, z, shared, stream, pointers.as_mut_ptr(), none))
        }
    }
}
