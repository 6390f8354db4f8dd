//! Functions of memory: allocation, copies and fills.

use std::collections::BTreeMap;
use std::ffi::{c_int, c_uint, c_void};
use std::sync::Mutex;

use super::context::current;
use super::{give, offer, waits};
use crate::capture;
use crate::code::{Code, Outcome};
use crate::count::{Counted, count};
use crate::fault::{Fault, fault};
use crate::memory::{self, Access, check};
use crate::mode::null;
use crate::stream::{self, StreamHandle, Work, enqueue};

/// Pinned memory of the host: addresses and sizes.
static PINNED: Mutex<BTreeMap<usize, usize>> = Mutex::new(BTreeMap::new());

fn pinned(address: usize, bytes: usize) -> bool {
    let pinned = PINNED.lock().unwrap_or_else(|e| e.into_inner());
    pinned.range(..=address).next_back().is_some_and(|(start, size)| address + bytes <= start + size)
}

fn work(group: Counted, name: &str, bytes: usize) -> Work {
    Work { group, name: name.into(), bytes: bytes as u64, flops: 0.0 }
}

/// Allocates in the order of a stream.
fn allocate_ordered(stream: StreamHandle, bytes: usize) -> Result<u64, Code> {
    current()?;
    if !stream::exists(stream) {
        return Err(Code::INVALID_HANDLE);
    }
    let address = memory::reserve(bytes as u64, true)?;
    if capture::allocates(stream, address)? {
        memory::of_graph(address);
    }
    enqueue(stream, work(Counted::Allocation, "cuMemAllocAsync", bytes), move || memory::map(address))?;
    Ok(address)
}

fn allocate(bytes: usize) -> Result<u64, Code> {
    current()?;
    stream::not_capturing(None)?;
    let address = memory::reserve(bytes as u64, false)?;
    count(Counted::Allocation, "cuMemAlloc", bytes as u64, 0.0);
    memory::map(address);
    Ok(address)
}

/// Copies from the host. Bytes that are not pinned are taken now.
fn copy_in(to: u64, from: *const c_void, bytes: usize, stream: StreamHandle) -> Outcome {
    current()?;
    if bytes == 0 {
        return Ok(());
    }
    if from.is_null() {
        return Err(Code::INVALID_VALUE);
    }
    let what = work(Counted::Copy, "host to device", bytes);
    let host = from as usize;
    let is_pinned = pinned(host, bytes);
    if !is_pinned && capture::status(stream)?.0 != 0 {
        stream::not_capturing(Some(stream))?;
    }
    if null() {
        return enqueue(stream, what, || ());
    }
    if is_pinned {
        return enqueue(stream, what, move || {
            if !pinned(host, bytes) {
                fault(Fault::UseAfterFree, format!("a copy reads pinned memory at {host:#x}, which is freed"));
            }
            // SAFETY: the memory is pinned.
            unsafe { write(to, std::slice::from_raw_parts(host as *const u8, bytes)) }
        });
    }
    // SAFETY: the caller names so many bytes.
    let held = unsafe { std::slice::from_raw_parts(from.cast::<u8>(), bytes) }.to_vec();
    enqueue(stream, what, move || write(to, &held))
}

fn write(to: u64, bytes: &[u8]) {
    check("target of a copy from the host", to, bytes.len(), Access::Write);
    // SAFETY: the target was checked.
    unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), to as *mut u8, bytes.len()) };
}

/// Copies to the host. To memory that is not pinned, it is done on return.
fn copy_out(to: *mut c_void, from: u64, bytes: usize, stream: StreamHandle) -> Outcome {
    current()?;
    if bytes == 0 {
        return Ok(());
    }
    if to.is_null() {
        return Err(Code::INVALID_VALUE);
    }
    let what = work(Counted::Copy, "device to host", bytes);
    let host = to as usize;
    let is_pinned = pinned(host, bytes);
    if !is_pinned && capture::status(stream)?.0 != 0 {
        stream::not_capturing(Some(stream))?;
    }
    if null() {
        // SAFETY: the caller has room for so many bytes.
        unsafe { std::ptr::write_bytes(to.cast::<u8>(), 0, bytes) };
        return enqueue(stream, what, || ());
    }
    if is_pinned {
        // A host that reads too early should not find the former bytes.
        // SAFETY: the memory is pinned.
        unsafe { std::ptr::write_bytes(to.cast::<u8>(), 0xff, bytes) };
    }
    enqueue(stream, what, move || {
        if is_pinned && !pinned(host, bytes) {
            fault(Fault::UseAfterFree, format!("a copy writes pinned memory at {host:#x}, which is freed"));
        }
        check("source of a copy to the host", from, bytes, Access::Read);
        // SAFETY: the source was checked, and the caller has room for so many bytes.
        unsafe { std::ptr::copy_nonoverlapping(from as *const u8, host as *mut u8, bytes) };
    })?;
    if is_pinned { Ok(()) } else { wait(stream, "copy to pageable memory") }
}

fn copy_within(to: u64, from: u64, bytes: usize, stream: StreamHandle) -> Outcome {
    current()?;
    if bytes == 0 {
        return Ok(());
    }
    enqueue(stream, work(Counted::Copy, "device to device", bytes), move || memory::copy(to, from, bytes))
}

fn fill(to: u64, value: Vec<u8>, times: usize, stream: StreamHandle) -> Outcome {
    current()?;
    let bytes = value.len() * times;
    if bytes == 0 {
        return Ok(());
    }
    if !to.is_multiple_of(value.len() as u64) {
        return Err(Code::INVALID_VALUE);
    }
    enqueue(stream, work(Counted::Fill, "memset", bytes), move || {
        check("target of a fill", to, bytes, Access::Write);
        // SAFETY: the target was checked.
        let target = unsafe { std::slice::from_raw_parts_mut(to as *mut u8, bytes) };
        match value[..] {
            [byte] => target.fill(byte),
            _ => target.chunks_mut(value.len()).for_each(|chunk| chunk.copy_from_slice(&value)),
        }
    })
}

fn wait(stream: StreamHandle, name: &str) -> Outcome {
    waits(name);
    stream::synchronise(stream)
}

driver! {
    fn cuMemAlloc_v2(address: *mut u64, bytes: usize) {
        unsafe { give(address, allocate(bytes)?) }
    }
    fn cuMemFree_v2(address: u64) {
        current()?;
        if address == 0 {
            return Ok(());
        }
        stream::not_capturing(None)?;
        count(Counted::Free, "cuMemFree", 0, 0.0);
        // Memory that is allocated in the order of a stream is freed at once, without a wait.
        if !memory::free(address) {
            waits("cuMemFree");
            stream::synchronise_all()?;
        }
        memory::unmap(address);
        Ok(())
    }
    fn cuMemAllocAsync(address: *mut u64, bytes: usize, stream: StreamHandle) {
        unsafe { give(address, allocate_ordered(stream, bytes)?) }
    }
    fn cuMemAllocFromPoolAsync(address: *mut u64, bytes: usize, _pool: *mut c_void, stream: StreamHandle) {
        unsafe { give(address, allocate_ordered(stream, bytes)?) }
    }
    fn cuMemFreeAsync(address: u64, stream: StreamHandle) {
        current()?;
        if address == 0 {
            return Ok(());
        }
        if !stream::exists(stream) {
            return Err(Code::INVALID_HANDLE);
        }
        memory::free(address);
        capture::frees(stream, address)?;
        if null() {
            memory::unmap(address);
        }
        enqueue(stream, work(Counted::Free, "cuMemFreeAsync", 0), move || memory::unmap(address))
    }
    fn cuMemAllocManaged(_address: *mut u64, _bytes: usize, _flags: c_uint) {
        Err(Code::NOT_SUPPORTED)
    }
    fn cuMemGetInfo_v2(free: *mut usize, total: *mut usize) {
        current()?;
        let (left, all) = memory::info();
        unsafe {
            offer(free, left as usize);
            offer(total, all as usize);
        }
        Ok(())
    }
    fn cuMemGetAddressRange_v2(base: *mut u64, bytes: *mut usize, address: u64) {
        let (start, size) = memory::allocation(address).ok_or(Code::NOT_FOUND)?;
        unsafe {
            offer(base, start);
            offer(bytes, size as usize);
        }
        Ok(())
    }
    fn cuMemHostAlloc(address: *mut *mut c_void, bytes: usize, _flags: c_uint) {
        current()?;
        unsafe { give(address, pin(bytes)?) }
    }
    fn cuMemAllocHost_v2(address: *mut *mut c_void, bytes: usize) {
        current()?;
        unsafe { give(address, pin(bytes)?) }
    }
    fn cuMemFreeHost(address: *mut c_void) {
        let found = PINNED.lock().unwrap_or_else(|e| e.into_inner()).remove(&(address as usize));
        let bytes = found.ok_or(Code::INVALID_VALUE)?;
        // The addresses stay reserved, so that a later use is found.
        // SAFETY: a mapping of this size that this module made.
        unsafe {
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_FIXED;
            libc::mmap(address, bytes, libc::PROT_NONE, flags, -1, 0);
        }
        Ok(())
    }
    fn cuMemcpyHtoDAsync_v2(to: u64, from: *const c_void, bytes: usize, stream: StreamHandle) {
        copy_in(to, from, bytes, stream)
    }
    fn cuMemcpyHtoD_v2(to: u64, from: *const c_void, bytes: usize) {
        copy_in(to, from, bytes, StreamHandle::DEFAULT)?;
        wait(StreamHandle::DEFAULT, "cuMemcpyHtoD")
    }
    fn cuMemcpyDtoHAsync_v2(to: *mut c_void, from: u64, bytes: usize, stream: StreamHandle) {
        copy_out(to, from, bytes, stream)
    }
    fn cuMemcpyDtoH_v2(to: *mut c_void, from: u64, bytes: usize) {
        copy_out(to, from, bytes, StreamHandle::DEFAULT)?;
        stream::synchronise(StreamHandle::DEFAULT)
    }
    fn cuMemcpyDtoDAsync_v2(to: u64, from: u64, bytes: usize, stream: StreamHandle) {
        copy_within(to, from, bytes, stream)
    }
    fn cuMemcpyDtoD_v2(to: u64, from: u64, bytes: usize) {
        copy_within(to, from, bytes, StreamHandle::DEFAULT)
    }
    fn cuMemsetD8Async(to: u64, value: u8, count: usize, stream: StreamHandle) {
        fill(to, vec![value], count, stream)
    }
    fn cuMemsetD8_v2(to: u64, value: u8, count: usize) {
        fill(to, vec![value], count, StreamHandle::DEFAULT)
    }
    fn cuMemsetD16Async(to: u64, value: u16, count: usize, stream: StreamHandle) {
        fill(to, value.to_le_bytes().to_vec(), count, stream)
    }
    fn cuMemsetD32Async(to: u64, value: u32, count: usize, stream: StreamHandle) {
        fill(to, value.to_le_bytes().to_vec(), count, stream)
    }
    fn cuMemsetD32_v2(to: u64, value: u32, count: usize) {
        fill(to, value.to_le_bytes().to_vec(), count, StreamHandle::DEFAULT)
    }
    fn cuPointerGetAttribute(data: *mut c_void, attribute: c_int, address: u64) {
        // CU_POINTER_ATTRIBUTE_MEMORY_TYPE: 1 of the host, 2 of the device.
        let host = pinned(address as usize, 1);
        if attribute != 2 || (!host && memory::allocation(address).is_none()) {
            return Err(Code::INVALID_VALUE);
        }
        unsafe { give(data.cast::<c_uint>(), if host { 1 } else { 2 }) }
    }
}

/// Allocates pinned memory.
fn pin(bytes: usize) -> Result<*mut c_void, Code> {
    if bytes == 0 {
        return Err(Code::INVALID_VALUE);
    }
    let access = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: a new mapping.
    let address =
        unsafe { libc::mmap(std::ptr::null_mut(), bytes, access, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0) };
    if address == libc::MAP_FAILED {
        return Err(Code::OUT_OF_MEMORY);
    }
    PINNED.lock().unwrap_or_else(|e| e.into_inner()).insert(address as usize, bytes);
    Ok(address)
}
