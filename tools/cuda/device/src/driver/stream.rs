//! Functions of streams.

use std::ffi::{c_int, c_uint, c_void};

use super::context::current;
use super::{give, waits};
use crate::code::Code;
use crate::count::Counted;
use crate::stream::{self, StreamHandle, Work};

/// A function of the host that runs in the order of a stream.
type HostFunction = unsafe extern "C" fn(*mut c_void);

driver! {
    fn cuStreamCreate(stream: *mut StreamHandle, flags: c_uint) {
        current()?;
        if flags > 1 {
            return Err(Code::INVALID_VALUE);
        }
        unsafe { give(stream, stream::create(flags == 0)) }
    }
    fn cuStreamCreateWithPriority(stream: *mut StreamHandle, flags: c_uint, _priority: c_int) {
        current()?;
        unsafe { give(stream, stream::create(flags == 0)) }
    }
    fn cuStreamDestroy_v2(stream: StreamHandle) {
        stream::destroy(stream)
    }
    fn cuStreamSynchronize(stream: StreamHandle) {
        current()?;
        waits("cuStreamSynchronize");
        stream::synchronise(stream)
    }
    fn cuStreamQuery(stream: StreamHandle) {
        if stream::query(stream)? { Ok(()) } else { Err(Code::NOT_READY) }
    }
    fn cuStreamWaitEvent(stream: StreamHandle, event: usize, _flags: c_uint) {
        stream::wait(stream, event)
    }
    fn cuStreamGetFlags(stream: StreamHandle, flags: *mut c_uint) {
        if !stream::exists(stream) {
            return Err(Code::INVALID_HANDLE);
        }
        unsafe { give(flags, 0) }
    }
    fn cuStreamGetPriority(stream: StreamHandle, priority: *mut c_int) {
        if !stream::exists(stream) {
            return Err(Code::INVALID_HANDLE);
        }
        unsafe { give(priority, 0) }
    }
    fn cuLaunchHostFunc(stream: StreamHandle, function: Option<HostFunction>, data: *mut c_void) {
        let function = function.ok_or(Code::INVALID_VALUE)?;
        let data = data as usize;
        let work = Work { group: Counted::Copy, name: "host function".into(), bytes: 0, flops: 0.0 };
        // SAFETY: the caller promises that the function may be called with its data.
        stream::enqueue(stream, work, move || unsafe { function(data as *mut c_void) })
    }
}
