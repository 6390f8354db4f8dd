//! Functions of events.

use std::ffi::c_uint;

use super::context::current;
use super::{give, waits};
use crate::code::Code;
use crate::stream::{self, StreamHandle};

driver! {
    fn cuEventCreate(event: *mut usize, flags: c_uint) {
        current()?;
        // CU_EVENT_DISABLE_TIMING is 2.
        unsafe { give(event, stream::create_event(flags & 2 == 0)) }
    }
    fn cuEventDestroy_v2(event: usize) {
        stream::destroy_event(event)
    }
    fn cuEventRecord(event: usize, stream: StreamHandle) {
        stream::record(event, stream)
    }
    fn cuEventRecordWithFlags(event: usize, stream: StreamHandle, _flags: c_uint) {
        stream::record(event, stream)
    }
    fn cuEventSynchronize(event: usize) {
        waits("cuEventSynchronize");
        stream::synchronise_event(event)
    }
    fn cuEventQuery(event: usize) {
        if stream::query_event(event)? { Ok(()) } else { Err(Code::NOT_READY) }
    }
    fn cuEventElapsedTime(milliseconds: *mut f32, start: usize, end: usize) {
        unsafe { give(milliseconds, stream::elapsed(start, end)?) }
    }
    fn cuEventElapsedTime_v2(milliseconds: *mut f32, start: usize, end: usize) {
        unsafe { give(milliseconds, stream::elapsed(start, end)?) }
    }
}
