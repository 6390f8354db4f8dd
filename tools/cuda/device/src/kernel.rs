//! Kernels as machine code, and the structures that they share with `translate/prelude.h`.

use std::ffi::{CStr, c_char, c_void};

use crate::translate::Translated;

/// State of one byte of shared memory.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct SharedByte {
    pub write_time: u32,
    pub read_time: u32,
    pub writer: u16,
    pub reader: u16,
    /// The group of a copy that its writer has not waited for, or 0.
    pub copy: u32,
    /// Links the copies of a thread.
    pub before: u32,
}

/// What the threads of a block share. The time grows at each barrier.
#[repr(C)]
pub struct Block {
    pub shared: *mut u8,
    pub bytes: *mut SharedByte,
    pub size: u32,
    pub start: u32,
    pub time: u32,
    pub last_barrier: u32,
    pub last_sync: [u32; 32],
}

/// A thread.
#[repr(C)]
#[derive(Clone)]
pub struct Context {
    pub tid: [u32; 3],
    pub ntid: [u32; 3],
    pub ctaid: [u32; 3],
    pub nctaid: [u32; 3],
    pub thread: u32,
    pub params: *const u8,
    pub block: *mut Block,
    pub read: u64,
    pub written: u64,
    pub kind: u32,
    pub mode: u32,
    pub mask: u32,
    pub a: u32,
    pub b: u32,
    pub clamp: u32,
    pub line: u32,
    pub reply: u32,
    pub reply_pred: u32,
    /// The group of the next `cp.async`, from 1, and the last copy that was not waited for.
    pub copy_group: u32,
    pub last_copy: u32,
    pub input: *const u32,
    pub output: *mut u32,
    pub suspend: unsafe extern "C" fn(*mut Context),
    pub bad: unsafe extern "C" fn(*mut Context, u32, u64, u32, u32),
    pub trap: unsafe extern "C" fn(*mut Context, u32, *const c_char, *const c_char, u32),
    pub kernel: *const Kernel,
    pub scheduler: *const c_void,
}

/// Kinds of requests to the scheduler.
pub mod request {
    pub const BARRIER: u32 = 1;
    pub const SHUFFLE: u32 = 2;
    pub const VOTE: u32 = 3;
    pub const REDUCE: u32 = 4;
    pub const SYNC: u32 = 5;
    pub const MATRIX: u32 = 6;
    pub const LOAD_MATRIX: u32 = 7;
}

/// Kinds of failed checks.
pub mod bad {
    pub const READ: u32 = 0;
    pub const WRITE: u32 = 1;
    pub const SHARED_BOUNDS: u32 = 2;
    pub const SHARED_UNWRITTEN: u32 = 3;
    pub const SHARED_RACE: u32 = 4;
    pub const SHARED_ALIGN: u32 = 5;
    pub const LOCAL: u32 = 6;
    pub const SHARED_COPY: u32 = 7;
}

/// A kernel that can run.
pub struct Kernel {
    pub name: String,
    /// Bytes of shared memory in every launch, with the gaps between the variables.
    pub shared: usize,
    pub dynamic: usize,
    pub local: usize,
    pub params: Vec<(usize, usize)>,
    /// One thread.
    pub thread: unsafe extern "C" fn(*mut Context),
    /// All threads of a block, one after another. None if they wait for each other.
    pub block: Option<unsafe extern "C" fn(*mut Context)>,
    /// Constants of the module that the kernel may read: addresses and sizes.
    constants: Vec<(u64, u64)>,
}

impl Kernel {
    /// Takes the functions of a kernel from an open shared object, which stays open.
    pub(crate) fn from_object(translated: &Translated, object: *mut c_void) -> Result<Kernel, String> {
        let find = |name: &CStr| {
            // SAFETY: an open object, and a text that ends with 0.
            unsafe { libc::dlsym(object, name.as_ptr()) }
        };
        let thread = find(c"cuda_device_thread");
        let block = find(c"cuda_device_block");
        let table = find(c"cuda_device_constants").cast::<[u64; 2]>();
        if thread.is_null() || table.is_null() || block.is_null() != translated.collective {
            return Err(format!("the object of kernel `{}` lacks a function", translated.name));
        }
        let mut constants = Vec::new();
        // SAFETY: the table ends with a row of zeros.
        unsafe {
            let mut row = table;
            while (*row)[0] != 0 {
                constants.push(((*row)[0], (*row)[1]));
                row = row.add(1);
            }
        }
        type Function = unsafe extern "C" fn(*mut Context);
        Ok(Kernel {
            name: translated.name.clone(),
            shared: translated.spread,
            dynamic: translated.dynamic,
            local: translated.local,
            params: translated.params.clone(),
            // SAFETY: the translator wrote the functions with this type.
            thread: unsafe { std::mem::transmute::<*mut c_void, Function>(thread) },
            block: (!block.is_null()).then(|| unsafe { std::mem::transmute::<*mut c_void, Function>(block) }),
            constants,
        })
    }

    /// Returns whether bytes lie in a constant of the module.
    pub fn constant(&self, address: u64, bytes: u64) -> bool {
        self.constants.iter().any(|(at, size)| address >= *at && address + bytes <= at + size)
    }

    /// Returns the size of the block of parameters.
    pub fn param_bytes(&self) -> usize {
        self.params.last().map_or(0, |(offset, bytes)| offset + bytes)
    }
}
