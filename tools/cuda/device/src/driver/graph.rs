//! Functions of graphs.

use std::ffi::{c_char, c_int, c_uint, c_ulonglong, c_void};

use super::{give, offer};
use crate::capture;
use crate::code::Code;
use crate::stream::StreamHandle;

/// CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH.
const AUTO_FREE: c_ulonglong = 1;

driver! {
    fn cuStreamBeginCapture_v2(stream: StreamHandle, mode: c_int) {
        match mode {
            0..=2 => capture::begin(stream, mode == 0),
            _ => Err(Code::INVALID_VALUE),
        }
    }
    fn cuStreamEndCapture(stream: StreamHandle, graph: *mut usize) {
        let handle = capture::end(stream);
        // SAFETY: the caller has room for a handle, or passes null.
        unsafe { offer(graph, handle.unwrap_or(0)) };
        handle.map(|_| ())
    }
    fn cuStreamIsCapturing(stream: StreamHandle, status: *mut c_int) {
        unsafe { give(status, capture::status(stream)?.0) }
    }
    fn cuStreamGetCaptureInfo_v2(stream: StreamHandle, status: *mut c_int, id: *mut u64, graph: *mut usize,
                                 dependencies: *mut *const c_void, count: *mut usize) {
        let (state, number) = capture::status(stream)?;
        unsafe {
            offer(id, number);
            offer(graph, 0);
            offer(dependencies, std::ptr::null());
            offer(count, 0);
            give(status, state)
        }
    }
    fn cuStreamGetCaptureInfo_v3(stream: StreamHandle, status: *mut c_int, id: *mut u64, graph: *mut usize,
                                 dependencies: *mut *const c_void, edges: *mut *const c_void, count: *mut usize) {
        let (state, number) = capture::status(stream)?;
        unsafe {
            offer(id, number);
            offer(graph, 0);
            offer(dependencies, std::ptr::null());
            offer(edges, std::ptr::null());
            offer(count, 0);
            give(status, state)
        }
    }
    fn cuThreadExchangeStreamCaptureMode(mode: *mut c_int) {
        unsafe { give(mode, 0) }
    }
    fn cuGraphInstantiateWithFlags(ready: *mut usize, graph: usize, flags: c_ulonglong) {
        unsafe { give(ready, capture::instantiate(graph, flags & AUTO_FREE != 0)?) }
    }
    fn cuGraphInstantiate_v2(ready: *mut usize, graph: usize, node: *mut usize, log: *mut c_char, bytes: usize) {
        unsafe {
            offer(node, 0);
            if bytes > 0 {
                offer(log, 0);
            }
            give(ready, capture::instantiate(graph, false)?)
        }
    }
    fn cuGraphUpload(ready: usize, stream: StreamHandle) {
        if !capture::is_ready(ready) || !crate::stream::exists(stream) {
            return Err(Code::INVALID_VALUE);
        }
        Ok(())
    }
    fn cuGraphLaunch(ready: usize, stream: StreamHandle) {
        capture::launch(ready, stream)
    }
    fn cuGraphExecDestroy(ready: usize) {
        capture::destroy_ready(ready)
    }
    fn cuGraphDestroy(graph: usize) {
        capture::destroy(graph)
    }
    fn cuGraphGetNodes(graph: usize, _nodes: *mut usize, count: *mut usize) {
        unsafe { give(count, capture::nodes(graph)?) }
    }
    fn cuGraphCreate(_graph: *mut usize, _flags: c_uint) {
        // Graphs come from captures alone.
        Err(Code::NOT_SUPPORTED)
    }
    fn cuGraphExecUpdate_v2(_ready: usize, _graph: usize, _result: *mut c_void) {
        Err(Code::GRAPH_EXEC_UPDATE_FAILURE)
    }
}
