//! The functions of the graph interface.

use std::ffi::c_void;
use std::sync::Arc;

use super::super::super::number::Number;
use super::super::super::object;
use super::attribute::{Descriptor, Final, kind, typed};
use super::engine::{Engine, Graph, Pack, Plan, wrong_layout};
use super::operation::{operation, settings};
use super::run::Bound;
use super::tensor::Tensor;
use super::{
    ATTRIBUTE_TYPE, BAD_PARAM, DESCRIPTOR_TYPE, EXECUTION_FAILED, MISALIGNED_POINTER, NOT_FINALIZED, NOT_SUPPORTED,
    NULL_POINTER, PATTERN, SUCCESS,
};
use crate::count::Counted;
use crate::fault::{Fault, fault};
use crate::stream::{Work, enqueue};

const DESCRIPTOR: &str = "cuDNN backend descriptor";

/// Runs `with` on a descriptor.
pub(super) fn with<R>(handle: *const c_void, with: impl FnOnce(&mut Descriptor) -> R) -> R {
    object::with(handle, DESCRIPTOR, with)
}

fn code(result: Result<(), i32>) -> i32 {
    result.err().unwrap_or(SUCCESS)
}

#[unsafe(no_mangle)]
pub extern "C" fn cudnnBackendInitialize(descriptor: *mut c_void) -> i32 {
    if descriptor.is_null() { NULL_POINTER } else { SUCCESS }
}

#[unsafe(no_mangle)]
pub extern "C" fn cudnnBackendCreateDescriptor(kind: i32, to: *mut *mut c_void) -> i32 {
    use kind::*;
    let known = [
        POINTWISE,
        CONVOLUTION,
        ENGINE,
        CONFIG,
        HEURISTIC,
        PLAN,
        OP_CONVOLUTION,
        OP_CONVOLUTION_DATA,
        OP_POINTWISE,
        GRAPH,
        PACK,
        TENSOR,
        MATMUL,
        OP_MATMUL,
        REDUCTION,
        OP_REDUCTION,
        OP_RESHAPE,
        OP_SDPA,
        OP_SDPA_BACKWARD,
        OP_SOFTMAX,
    ];
    if !known.contains(&kind) {
        return NOT_SUPPORTED;
    }
    let descriptor = Descriptor { kind, values: Default::default(), done: None };
    if object::create(to, DESCRIPTOR, descriptor) { SUCCESS } else { NULL_POINTER }
}

#[unsafe(no_mangle)]
pub extern "C" fn cudnnBackendDestroyDescriptor(descriptor: *mut c_void) -> i32 {
    object::destroy(descriptor, DESCRIPTOR);
    SUCCESS
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cudnnBackendSetAttribute(
    descriptor: *mut c_void,
    name: i32,
    given: i32,
    count: i64,
    from: *const c_void,
) -> i32 {
    if descriptor.is_null() {
        return NULL_POINTER;
    }
    // SAFETY: the caller gives `count` elements.
    with(descriptor, |d| code(unsafe { d.set(name, given, count, from) }))
}

#[unsafe(no_mangle)]
pub extern "C" fn cudnnBackendFinalize(descriptor: *mut c_void) -> i32 {
    if descriptor.is_null() {
        return NULL_POINTER;
    }
    with(descriptor, |d| {
        if d.done.is_some() {
            return BAD_PARAM;
        }
        code(finalise(d).map(|done| d.done = Some(done)))
    })
}

fn graph_of(d: &Descriptor, name: i32) -> Result<Arc<Graph>, i32> {
    match d.children(name).first() {
        Some((_, Final::Graph(graph) | Final::Engine(graph) | Final::Config(graph))) => Ok(graph.clone()),
        Some(_) => Err(DESCRIPTOR_TYPE),
        None => Err(BAD_PARAM),
    }
}

fn finalise(d: &Descriptor) -> Result<Final, i32> {
    Ok(match d.kind {
        kind::TENSOR => Final::Tensor(Arc::new(Tensor::new(d)?)),
        kind::POINTWISE | kind::MATMUL | kind::REDUCTION | kind::CONVOLUTION => Final::Settings(Arc::new(settings(d)?)),
        kind::GRAPH => Final::Graph(Arc::new(Graph::new(d)?)),
        kind::HEURISTIC => {
            let graph = graph_of(d, 201)?;
            if !(0..4).contains(&d.number(200).ok_or(BAD_PARAM)?) {
                return Err(BAD_PARAM);
            }
            // A graph without an engine has a heuristic that names none.
            Final::Heuristic(graph)
        }
        kind::ENGINE => {
            let graph = graph_of(d, 1300)?;
            // This device has one engine for each graph that it supports.
            match d.number(1301).ok_or(BAD_PARAM)? {
                0 => graph.engine.clone().map(|_| Final::Engine(graph))?,
                _ => return Err(BAD_PARAM),
            }
        }
        kind::CONFIG => Final::Config(graph_of(d, 300)?),
        kind::PLAN => {
            let graph = graph_of(d, 401)?;
            let workspace = graph.engine.clone()?.workspace();
            Final::Plan(Arc::new(Plan { graph, workspace }))
        }
        kind::PACK => Final::Pack(Arc::new(Pack::new(d)?)),
        _ => Final::Operation(Arc::new(operation(d)?)),
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cudnnBackendGetAttribute(
    descriptor: *const c_void,
    name: i32,
    wanted: i32,
    room: i64,
    count: *mut i64,
    to: *mut c_void,
) -> i32 {
    if descriptor.is_null() {
        return NULL_POINTER;
    }
    let done = with(descriptor, |d| d.done.clone());
    let Some(done) = done else { return NOT_FINALIZED };
    let number = match (&done, name) {
        (Final::Heuristic(graph), 202) => {
            if wanted != typed::DESCRIPTOR {
                return ATTRIBUTE_TYPE;
            }
            // SAFETY: the caller gives room for a count, and `room` descriptors.
            return unsafe { results(graph, room, count, to) };
        }
        (Final::Graph(graph), 802) => i64::from(graph.engine.is_ok()),
        (Final::Plan(plan), 402) => plan.workspace as i64,
        (Final::Config(graph), 303) => graph.engine.as_ref().map_or(0, |e| e.workspace() as i64),
        _ => return NOT_SUPPORTED,
    };
    if wanted != typed::INT64 {
        return ATTRIBUTE_TYPE;
    }
    // SAFETY: the caller gives room for what it asks for.
    unsafe {
        if !count.is_null() {
            *count = 1;
        }
        if room > 0 && !to.is_null() {
            to.cast::<i64>().write_unaligned(number);
        }
    }
    SUCCESS
}

/// Fills the configurations that the caller has created.
unsafe fn results(graph: &Arc<Graph>, room: i64, count: *mut i64, to: *mut c_void) -> i32 {
    // SAFETY: guaranteed by the caller.
    unsafe {
        if !count.is_null() {
            *count = i64::from(graph.engine.is_ok());
        }
        if room < 1 || to.is_null() || graph.engine.is_err() {
            return SUCCESS;
        }
        let config = to.cast::<*mut c_void>().read_unaligned();
        with(config, |d| {
            if d.kind != kind::CONFIG || d.done.is_some() {
                return BAD_PARAM;
            }
            d.done = Some(Final::Config(graph.clone()));
            SUCCESS
        })
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cudnnBackendExecute(handle: *mut c_void, plan: *mut c_void, pack: *mut c_void) -> i32 {
    if handle.is_null() || plan.is_null() || pack.is_null() {
        return NULL_POINTER;
    }
    let stream = super::super::stream(handle);
    let (plan, pack) = (with(plan, |d| d.done.clone()), with(pack, |d| d.done.clone()));
    let (Some(Final::Plan(plan)), Some(Final::Pack(pack)), Some(stream)) = (plan, pack, stream) else {
        return NOT_FINALIZED;
    };
    // SAFETY: the caller gives addresses of its tensors.
    let bound = match unsafe { bind(&plan, &pack) } {
        Ok(bound) => bound,
        Err(code) => return code,
    };
    let moved = plan.graph.tensors.values().filter(|t| !t.is_virtual).map(|t| t.bytes()).sum();
    let group = match &plan.graph.engine {
        Ok(Engine::Attention(_)) => Counted::Attention,
        Ok(Engine::Fusion) => Counted::Convolution,
        Err(_) => return PATTERN,
    };
    if let Ok(Engine::Attention(a)) = &plan.graph.engine
        && let Some(text) = wrong_layout(a)
    {
        fault(Fault::InvalidCall, format!("{}: {text}", plan.graph.name()));
    }
    let flops = plan.graph.operations.iter().map(|o| o.flops()).sum();
    let work = Work { group, name: plan.graph.name(), bytes: moved, flops };
    if enqueue(stream, work, move || bound.run()).is_ok() { SUCCESS } else { EXECUTION_FAILED }
}

/// Finds the address of each tensor of a plan, and reads the numbers that are given by value.
unsafe fn bind(plan: &Plan, pack: &Pack) -> Result<Bound, i32> {
    if plan.workspace > 0 && pack.workspace == 0 {
        return Err(NULL_POINTER);
    }
    if !pack.workspace.is_multiple_of(16) {
        return Err(MISALIGNED_POINTER);
    }
    let (mut addresses, mut values) = (pack.addresses.clone(), std::collections::BTreeMap::new());
    for t in plan.graph.tensors.values().filter(|t| !t.is_virtual) {
        let address = *addresses.get(&t.id).ok_or(BAD_PARAM)?;
        if address == 0 {
            return Err(NULL_POINTER);
        }
        if t.by_value {
            let mut x = [0.0];
            if t.len() != 1 || t.number == Number::Bool {
                return Err(NOT_SUPPORTED);
            }
            // SAFETY: the caller gives the address of a number of this type on the host.
            unsafe { t.number.read(address, 1, &mut x) };
            values.insert(t.id, x[0]);
            addresses.remove(&t.id);
        } else if !address.is_multiple_of(t.alignment as u64) {
            return Err(MISALIGNED_POINTER);
        }
    }
    let (graph, workspace) = (plan.graph.clone(), pack.workspace);
    Ok(Bound { graph, addresses, values, workspace, workspace_bytes: plan.workspace })
}

macro_rules! unsupported {
    ($($name:ident),*) => { $(
        #[unsafe(no_mangle)]
        pub extern "C" fn $name() -> i32 {
            NOT_SUPPORTED
        }
    )* };
}

unsupported!(cudnnBackendPopulateCudaGraph, cudnnBackendUpdateCudaGraph);
