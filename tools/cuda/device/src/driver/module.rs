//! Modules of PTX, and their kernels.

use std::collections::HashMap;
use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};

use super::context::current;
use super::{give, offer};
use crate::code::Code;
use crate::kernel::Kernel;
use crate::launch::{SHARED, shared_limit};
use crate::mode::settings;
use crate::ptx;
use crate::translate::{self, Translated};

/// A kernel that the host has asked for.
pub struct Function {
    pub translated: Translated,
    name: std::ffi::CString,
    module: usize,
    kernel: OnceLock<Result<Arc<Kernel>, String>>,
    /// Shared memory that a launch may add, where it was raised.
    raised: AtomicUsize,
}

impl Function {
    /// Returns the kernel as machine code.
    pub fn kernel(&self) -> Result<&Arc<Kernel>, &String> {
        self.kernel.get_or_init(|| crate::compile::load(&self.translated).map(Arc::new)).as_ref()
    }

    pub fn raised(&self) -> usize {
        self.raised.load(Ordering::Relaxed)
    }
}

struct Loaded {
    tree: ptx::Module,
    functions: HashMap<String, *const Function>,
}

// SAFETY: functions are never freed, and are shared.
unsafe impl Send for Loaded {}

#[derive(Default)]
struct Modules {
    loaded: HashMap<usize, Loaded>,
    /// All functions that were given out.
    functions: std::collections::HashSet<usize>,
    last: usize,
}

fn modules() -> MutexGuard<'static, Modules> {
    static MODULES: OnceLock<Mutex<Modules>> = OnceLock::new();
    MODULES.get_or_init(Mutex::default).lock().unwrap_or_else(|e| e.into_inner())
}

/// Returns the function of a handle.
///
/// # Safety
///
/// The handle may be any number.
pub(crate) unsafe fn function(handle: *const Function) -> Result<&'static Function, Code> {
    if !modules().functions.contains(&(handle as usize)) {
        return Err(Code::INVALID_HANDLE);
    }
    // SAFETY: the handle is one that was given out, and functions are never freed.
    Ok(unsafe { &*handle })
}

/// Reads the architecture of `.target sm_80`.
fn target(text: &str) -> Option<i32> {
    let rest = text.split(".target").nth(1)?.trim_start().strip_prefix("sm_")?;
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

fn load(text: &str) -> Result<usize, Code> {
    if !text.contains(".version") {
        return Err(Code::INVALID_IMAGE);
    }
    let Some(target) = target(text) else {
        eprintln!("software CUDA device: the PTX has no `.target sm_…`");
        return Err(Code::INVALID_PTX);
    };
    let own = settings().capability;
    if target > own {
        eprintln!("software CUDA device: the PTX is for sm_{target}, but the device has the capability {own}");
        return Err(Code::NO_BINARY_FOR_GPU);
    }
    let tree = ptx::parse(text).map_err(|error| {
        eprintln!("software CUDA device: PTX: {error}");
        Code::INVALID_PTX
    })?;
    let mut modules = modules();
    modules.last += 16;
    let handle = 0x0f00_0000 + modules.last;
    modules.loaded.insert(handle, Loaded { tree, functions: HashMap::new() });
    Ok(handle)
}

fn find(module: usize, name: &CStr) -> Result<*const Function, Code> {
    let mut modules = modules();
    let loaded = modules.loaded.get_mut(&module).ok_or(Code::INVALID_HANDLE)?;
    let text = name.to_str().map_err(|_| Code::NOT_FOUND)?;
    if let Some(function) = loaded.functions.get(text) {
        return Ok(*function);
    }
    if !loaded.tree.functions.iter().any(|f| f.kernel && f.name == text) {
        return Err(Code::NOT_FOUND);
    }
    let translated = translate::kernel(&loaded.tree, text).map_err(|error| {
        eprintln!("software CUDA device: PTX of kernel `{text}`: {error}");
        Code::INVALID_PTX
    })?;
    let raised = AtomicUsize::new(0);
    let function =
        Box::leak(Box::new(Function { translated, name: name.to_owned(), module, kernel: OnceLock::new(), raised }));
    loaded.functions.insert(text.to_owned(), function);
    modules.functions.insert(function as *const Function as usize);
    Ok(function)
}

/// Returns an attribute of a function, by its number in CUfunction_attribute.
fn attribute(function: &Function, number: c_int) -> Result<c_int, Code> {
    let translated = &function.translated;
    Ok(match number {
        0 => 1024,
        1 => translated.shared as c_int,
        2 => 0,
        3 => translated.local as c_int,
        // A guess; kernels here have no registers.
        4 => 32,
        5 | 6 => settings().capability,
        7 => 0,
        8 => SHARED.saturating_sub(translated.shared).max(function.raised()) as c_int,
        9 => -1,
        _ => return Err(Code::INVALID_VALUE),
    })
}

/// Returns how many blocks fit on a multiprocessor.
fn occupancy(function: &Function, block: c_int, dynamic: usize) -> c_int {
    let shared = function.translated.shared + dynamic;
    let by_threads = 2048 / block.max(1);
    let by_shared = (shared_limit() + 1024).checked_div(shared + 1024).unwrap_or(32) as c_int;
    by_threads.min(by_shared).min(32)
}

driver! {
    fn cuModuleLoadData(module: *mut usize, image: *const c_void) {
        current()?;
        if image.is_null() {
            return Err(Code::INVALID_VALUE);
        }
        // SAFETY: PTX ends with 0. Binary code starts with a magic number, and is refused by the text.
        let text = unsafe { CStr::from_ptr(image.cast()) }.to_str().map_err(|_| Code::INVALID_IMAGE)?;
        unsafe { give(module, load(text)?) }
    }
    fn cuModuleLoadDataEx(module: *mut usize, image: *const c_void, _count: c_uint, _options: *mut c_int,
                          _values: *mut *mut c_void) {
        current()?;
        if image.is_null() {
            return Err(Code::INVALID_VALUE);
        }
        // SAFETY: as above.
        let text = unsafe { CStr::from_ptr(image.cast()) }.to_str().map_err(|_| Code::INVALID_IMAGE)?;
        unsafe { give(module, load(text)?) }
    }
    fn cuModuleLoad(module: *mut usize, path: *const c_char) {
        current()?;
        // SAFETY: a text that ends with 0.
        let path = unsafe { CStr::from_ptr(path) }.to_str().map_err(|_| Code::INVALID_VALUE)?;
        let text = std::fs::read_to_string(path).map_err(|_| Code::FILE_NOT_FOUND)?;
        unsafe { give(module, load(&text)?) }
    }
    fn cuModuleUnload(module: usize) {
        modules().loaded.remove(&module).map(|_| ()).ok_or(Code::INVALID_HANDLE)
    }
    fn cuModuleGetFunction(out: *mut *const Function, module: usize, name: *const c_char) {
        current()?;
        if name.is_null() {
            return Err(Code::INVALID_VALUE);
        }
        // SAFETY: a text that ends with 0.
        unsafe { give(out, find(module, CStr::from_ptr(name))?) }
    }
    fn cuModuleGetGlobal_v2(_address: *mut u64, _bytes: *mut usize, _module: usize, _name: *const c_char) {
        Err(Code::NOT_FOUND)
    }
    fn cuFuncGetAttribute(value: *mut c_int, number: c_int, handle: *const Function) {
        unsafe { give(value, attribute(function(handle)?, number)?) }
    }
    fn cuFuncSetAttribute(handle: *const Function, number: c_int, value: c_int) {
        let function = unsafe { function(handle)? };
        let most = shared_limit().saturating_sub(function.translated.shared);
        match number {
            8 if value < 0 || value as usize > most => Err(Code::INVALID_VALUE),
            8 => {
                function.raised.store(value as usize, Ordering::Relaxed);
                Ok(())
            }
            9 if (-1..=100).contains(&value) => Ok(()),
            _ => Err(Code::INVALID_VALUE),
        }
    }
    fn cuFuncSetCacheConfig(handle: *const Function, _config: c_int) {
        unsafe { function(handle) }.map(|_| ())
    }
    fn cuFuncGetName(name: *mut *const c_char, handle: *const Function) {
        unsafe { give(name, function(handle)?.name.as_ptr()) }
    }
    fn cuFuncGetModule(module: *mut usize, handle: *const Function) {
        unsafe { give(module, function(handle)?.module) }
    }
    fn cuFuncGetParamInfo(handle: *const Function, index: usize, offset: *mut usize, bytes: *mut usize) {
        let function = unsafe { function(handle)? };
        let (at, size) = *function.translated.params.get(index).ok_or(Code::INVALID_VALUE)?;
        unsafe {
            offer(bytes, size);
            give(offset, at)
        }
    }
    fn cuOccupancyMaxActiveBlocksPerMultiprocessor(blocks: *mut c_int, handle: *const Function, block: c_int,
                                                   dynamic: usize) {
        unsafe { give(blocks, occupancy(function(handle)?, block, dynamic)) }
    }
    fn cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(blocks: *mut c_int, handle: *const Function,
                                                            block: c_int, dynamic: usize, _flags: c_uint) {
        unsafe { give(blocks, occupancy(function(handle)?, block, dynamic)) }
    }
    fn cuOccupancyMaxPotentialBlockSize(grid: *mut c_int, block: *mut c_int, handle: *const Function,
                                        by_block: Option<unsafe extern "C" fn(c_int) -> usize>, dynamic: usize,
                                        limit: c_int) {
        let function = unsafe { function(handle)? };
        let size = if limit > 0 { limit.min(1024) } else { 1024 };
        // SAFETY: the caller's function of the block size.
        let dynamic = by_block.map_or(dynamic, |by_block| unsafe { by_block(size) });
        unsafe {
            offer(grid, super::device::PROCESSORS * occupancy(function, size, dynamic).max(1));
            give(block, size)
        }
    }
}
