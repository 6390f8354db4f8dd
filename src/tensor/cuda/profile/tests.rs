use std::ffi::{c_char, c_void};
use std::ptr::null;

use super::*;

/// A wrapper of `$function`, which stands for the library's function `$name`.
macro_rules! wrapped {
    ($name:literal, $function:ident: fn($($type:ty),*)) => {
        // SAFETY: wrappers have the signature of what they call.
        unsafe {
            let target = $function as extern "C" fn($($type),*) -> i32 as *mut c_void;
            let wrapper = wrappers::of($name, target).expect($name);
            std::mem::transmute::<*mut c_void, unsafe extern "C" fn($($type),*) -> i32>(wrapper)
        }
    };
}

extern "C" fn allocate(to: *mut u64, bytes: usize, _: usize) -> i32 {
    // SAFETY: the test gives a place.
    unsafe { *to = 0x1000 + bytes as u64 };
    0
}

extern "C" fn free(_: u64, _: usize) -> i32 {
    0
}

extern "C" fn get_function(to: *mut usize, _: usize, _: *const c_char) -> i32 {
    // SAFETY: the test gives a place.
    unsafe { *to = 77 };
    0
}

#[allow(clippy::too_many_arguments)]
extern "C" fn launch(
    f: usize,
    x: u32,
    y: u32,
    z: u32,
    a: u32,
    b: u32,
    c: u32,
    shared: u32,
    stream: usize,
    params: usize,
    extra: usize,
) -> i32 {
    // Arguments on the stack arrive too.
    if (f, x, y, z, a, b, c, shared, stream, params, extra) == (77, 1, 2, 3, 4, 5, 6, 7, stream, 9, 10) { 0 } else { 1 }
}

extern "C" fn begin(_: usize, _: i32) -> i32 {
    0
}

extern "C" fn end(_: usize, graph: *mut usize) -> i32 {
    // SAFETY: the test gives a place.
    unsafe { *graph = 500 };
    0
}

extern "C" fn instantiate(to: *mut usize, _: usize, _: u64) -> i32 {
    // SAFETY: the test gives a place.
    unsafe { *to = 600 };
    0
}

extern "C" fn launch_graph(_: usize, _: usize) -> i32 {
    0
}

extern "C" fn synchronise(_: usize) -> i32 {
    std::thread::sleep(std::time::Duration::from_millis(2));
    0
}

fn tally(counts: &Counts, group: Group, name: &str) -> Tally {
    counts.groups.get(&group).and_then(|names| names.get(name)).copied().unwrap_or_default()
}

/// Every function goes through the trampolines, counted for the task of its thread; those with a wrapper are measured.
#[test]
fn calls_are_counted_by_task_and_scope() {
    start(10);
    enter(1_000_001);
    let mut version = 0;
    // SAFETY: with or without a driver.
    let codes = [0; 2].map(|_| unsafe {
        candle_core::cuda_backend::cudarc::driver::sys::cuDriverGetVersion(&raw mut version) as u32
    });
    assert_eq!(codes[0], codes[1]);
    let counts = take(1_000_001);
    assert_eq!(tally(&counts, Group::Calls, "cuDriverGetVersion").count, 2, "{counts:?}");

    change(1_000_001, 1_000_002);
    let allocate = wrapped!("cuMemAllocAsync", allocate: fn(*mut u64, usize, usize));
    let free = wrapped!("cuMemFreeAsync", free: fn(u64, usize));
    let (mut a, mut b) = (0, 0);
    // SAFETY: the functions above.
    unsafe {
        allocate(&raw mut a, 1 << 20, 0);
        allocate(&raw mut b, 1 << 10, 0);
        free(a, 0);
    }
    let counts = take(1_000_002);
    assert_eq!((counts.peak, counts.in_use), ((1 << 20) + (1 << 10), 1 << 10));
    assert_eq!(tally(&counts, Group::Allocations, "cuMemAllocAsync").count, 2);
    assert_eq!(tally(&counts, Group::Frees, "cuMemFreeAsync").bytes, 1 << 20);

    change(1_000_001, 1_000_003);
    let get = wrapped!("cuModuleGetFunction", get_function: fn(*mut usize, usize, *const c_char));
    let launch = wrapped!("cuLaunchKernel", launch: fn(usize, u32, u32, u32, u32, u32, u32, u32, usize, usize, usize));
    let begin = wrapped!("cuStreamBeginCapture_v2", begin: fn(usize, i32));
    let end = wrapped!("cuStreamEndCapture", end: fn(usize, *mut usize));
    let instantiate = wrapped!("cuGraphInstantiateWithFlags", instantiate: fn(*mut usize, usize, u64));
    let launch_graph = wrapped!("cuGraphLaunch", launch_graph: fn(usize, usize));
    let synchronise = wrapped!("cuStreamSynchronize", synchronise: fn(usize));
    let (mut f, mut graph, mut executable) = (0, 0, 0);
    // SAFETY: the functions above.
    unsafe {
        get(&raw mut f, 0, c"softmax".as_ptr());
        let once = || launch(f, 1, 2, 3, 4, 5, 6, 7, 40, 9, 10);
        assert_eq!((once(), launch(f, 0, 2, 3, 4, 5, 6, 7, 40, 9, 10)), (0, 1));
        // What is captured runs with the graph.
        begin(40, 0);
        allocate(&raw mut a, 100, 40);
        free(a, 40);
        assert_eq!((once(), once()), (0, 0));
        end(40, &raw mut graph);
        instantiate(&raw mut executable, graph, 0);
        for _ in 0..3 {
            launch_graph(executable, 40);
        }
        synchronise(40);
    }
    leave(1_000_001);
    let counts = take(1_000_003);
    assert_eq!(tally(&counts, Group::Kernels, "softmax").count, 1 + 2 * 3, "{counts:?}");
    assert_eq!(tally(&counts, Group::Graphs, "graph").count, 3);
    assert_eq!(tally(&counts, Group::Allocations, "cuMemAllocAsync").bytes, 3 * 100);
    assert_eq!((tally(&counts, Group::Frees, "cuMemFreeAsync").count, counts.in_use), (3, 1 << 10));
    assert!(tally(&counts, Group::Synchronisations, "cuStreamSynchronize").microseconds >= 2000.0);
    assert_eq!(counts.launched, 4);
    // Without a driver there are no events, but everything ends.
    assert_eq!(drain(true).resolved, 4);
}

#[test]
fn plans_are_named_by_what_they_compute() {
    let mut known = descriptors::Descriptors::default();
    let parts = |known: &mut descriptors::Descriptors, of: usize, parts: &[usize]| {
        // SAFETY: so many numbers.
        unsafe { known.attribute(of, 0, descriptors::DESCRIPTOR, parts.len() as i64, parts.as_ptr().cast()) };
    };
    let tensor = |known: &mut descriptors::Descriptors, at: usize, dims: &[i64]| {
        known.created(at, 17);
        // SAFETY: so many numbers.
        unsafe { known.attribute(at, 902, 3, dims.len() as i64, dims.as_ptr().cast()) };
    };
    tensor(&mut known, 1, &[2, 10, 64, 32]);
    tensor(&mut known, 2, &[2, 10, 32, 64]);
    for (at, kind, of) in [(3, 19, vec![1, 2]), (4, 13, vec![1]), (5, 19, vec![2, 1]), (6, 15, vec![3, 4, 5])] {
        known.created(at, kind);
        parts(&mut known, at, &of);
    }
    // Graph ← heuristic → engine ← plan, as cuDNN's are made.
    known.created(7, 4);
    parts(&mut known, 7, &[6]);
    known.created(8, 3);
    // SAFETY: one number.
    unsafe { known.found(7, 1, [8usize].as_ptr().cast()) };
    known.created(9, 5);
    parts(&mut known, 9, &[8]);
    known.finalised(9);
    // Its parts are destroyed, and others are at their places.
    (1..=8).for_each(|at| known.created(at, 16));
    assert_eq!(known.plan(9), (Group::Attentions, "attention 2×10×64×32 · 2×10×32×64".into()));
    tensor(&mut known, 1, &[2, 4, 8, 8]);
    known.created(10, 10);
    parts(&mut known, 10, &[1]);
    known.created(9, 5);
    parts(&mut known, 9, &[10]);
    known.finalised(9);
    assert_eq!(known.plan(9), (Group::Convolutions, "convolution 2×4×8×8".into()));
    // A circle ends, and a null pointer is no list.
    parts(&mut known, 10, &[9]);
    // SAFETY: null is not read.
    unsafe { known.attribute(10, 0, descriptors::DESCRIPTOR, 5, null()) };
    known.finalised(9);
    assert_eq!(known.plan(12345), (Group::Operations, "operations".into()));
}
