//! What a correct program sees: results, streams, events, graphs, limits, modes.

mod common;

use common::*;
use cuda_device::driver::{event as events, graph, memory, module, stream};
use cuda_device::stream::StreamHandle;

use Arg::{Address, Int};

const INVALID_VALUE: i32 = 1;
const OUT_OF_MEMORY: i32 = 2;
const NOT_READY: i32 = 600;
const ILLEGAL_ADDRESS: i32 = 700;
const CAPTURE_UNSUPPORTED: i32 = 900;
const CAPTURE_INVALIDATED: i32 = 901;

fn numbers(count: usize) -> Vec<f32> {
    (0..count).map(|i| i as f32).collect()
}

#[test]
fn kernels_compute() {
    start();
    let x = numbers(256);
    let backwards: Vec<f32> = x.iter().rev().copied().collect();
    let at = upload(&x);
    run(planted("reverse"), 1, 256, &[Address(at)]);
    assert_eq!(download::<f32>(at, 256), backwards);

    let at = upload(&x);
    run(planted("reverse_warp"), 1, 256, &[Address(at)]);
    let result = download::<f32>(at, 256);
    assert_eq!((result[0], result[31], result[32], result[255]), (31.0, 0.0, 63.0, 224.0));

    let at = upload(&x);
    run(planted("warp_sum"), 1, 64, &[Address(at)]);
    let result = download::<f32>(at, 64);
    assert_eq!((result[0], result[31], result[32]), (496.0, 496.0, 1520.0));

    // Several blocks use the same shared memory, one after another.
    let (from, to) = (upload(&x), allocate(512));
    run(planted("stages_waited"), 20, 64, &[Address(from), Address(to)]);
    let result = download::<f32>(to, 128);
    assert_eq!((result[0], result[63], result[64], result[127]), (1.0, 0.0, 65.0, 64.0));
}

#[test]
fn shared_memory_is_aligned_as_declared() {
    start();
    let from = upload(&numbers(128));
    let moved = |kernel, dynamic| {
        let to = allocate(512);
        let args = [Address(from), Address(to)];
        ok(try_launch(planted(kernel), [1; 3], [32, 1, 1], dynamic, StreamHandle::DEFAULT, &args));
        download::<f32>(to, 128)
    };
    assert_eq!(moved("vectors_in_vectors", 0), numbers(128));
    assert_eq!(moved("vectors_in_dynamic", 512), numbers(128));
    // Gaps between variables do not count.
    assert_eq!(moved("all_shared", 0)[..5], [1.0, 1.0, 2.0, 3.0, 5.0]);
    let mut bytes = 0;
    ok(unsafe { module::cuFuncGetAttribute(&mut bytes, 1, planted("all_shared")) });
    assert_eq!(bytes, 48 << 10);
}

#[test]
fn blocks_run_in_parallel_and_atomics_add_up() {
    start();
    let (blocks, threads) = (400usize, 128usize);
    let values: Vec<i32> = (0..blocks * threads).map(|i| (i * 7) as i32).collect();
    let (from, bins) = (upload(&values), upload(&[0u32; 16]));
    run(planted("histogram"), blocks as u32, threads as u32, &[Address(from), Address(bins)]);
    assert_eq!(download::<u32>(bins, 16), vec![(blocks * threads / 16) as u32; 16]);
}

#[test]
fn shared_memory_of_a_launch_has_a_limit() {
    start();
    let kernel = planted("dynamic");
    let at = upload(&numbers(32));
    let launch = |bytes| try_launch(kernel, [1; 3], [32, 1, 1], bytes, StreamHandle::DEFAULT, &[Address(at)]);
    assert_eq!(launch(128), 0);
    assert_eq!(download::<f32>(at, 32)[0], 31.0);
    assert_eq!(launch((48 << 10) + 1), INVALID_VALUE);
    unsafe { ok(module::cuFuncSetAttribute(kernel, 8, 100 << 10)) };
    assert_eq!(launch(100 << 10), 0);
    assert_eq!(unsafe { module::cuFuncSetAttribute(kernel, 8, 300 << 10) }, INVALID_VALUE);
    synchronise();
}

#[test]
fn invalid_launches_return_errors() {
    start();
    let kernel = planted("divergent");
    let at = upload(&numbers(32));
    for (grid, block) in [([1, 65536, 1], [1; 3]), ([1; 3], [1025, 1, 1]), ([0, 1, 1], [1; 3]), ([1; 3], [32, 32, 2])] {
        assert_eq!(try_launch(kernel, grid, block, 0, StreamHandle::DEFAULT, &[Address(at)]), INVALID_VALUE);
    }
    let mut unknown = std::ptr::null();
    let name = c"missing".as_ptr();
    let module = load(include_str!("kernels/planted.ptx"));
    assert_eq!(unsafe { module::cuModuleGetFunction(&mut unknown, module, name) }, 500);
}

#[test]
fn work_is_deferred_and_events_order_streams() {
    start();
    let (one, two) = (new_stream(), new_stream());
    let (x, y, z) = (upload(&numbers(16)), allocate(64), allocate(64));
    let copy = planted("copy");
    run_on(one, copy, 1, 32, &[Int(16), Address(x), Address(y)]);
    let mut event = 0;
    unsafe {
        ok(events::cuEventCreate(&mut event, 0));
        ok(events::cuEventRecord(event, one));
        // Nothing has run yet. Each question runs a piece.
        assert_eq!(events::cuEventQuery(event), NOT_READY);
        ok(stream::cuStreamWaitEvent(two, event, 0));
    }
    run_on(two, copy, 1, 32, &[Int(16), Address(y), Address(z)]);
    assert_eq!(download_on::<f32>(two, z, 16), numbers(16));
    unsafe {
        ok(events::cuEventQuery(event));
        let mut later = 0;
        ok(events::cuEventCreate(&mut later, 0));
        ok(events::cuEventRecord(later, two));
        ok(events::cuEventSynchronize(later));
        let mut milliseconds = -1.0;
        ok(events::cuEventElapsedTime(&mut milliseconds, event, later));
        assert!(milliseconds >= 0.0, "{milliseconds}");
    }
}

#[test]
fn a_pinned_result_is_not_there_before_the_host_waits() {
    start();
    let stream = new_stream();
    let mut host = std::ptr::null_mut();
    let x = upload(&numbers(4));
    unsafe {
        ok(memory::cuMemHostAlloc(&mut host, 16, 0));
        ok(memory::cuMemcpyDtoHAsync_v2(host, x, 16, stream));
        let early = std::ptr::read_volatile(host.cast::<[f32; 4]>());
        assert!(early[1].is_nan(), "{early:?}");
        ok(stream::cuStreamSynchronize(stream));
        assert_eq!(std::ptr::read_volatile(host.cast::<[f32; 4]>()), [0.0, 1.0, 2.0, 3.0]);
        ok(memory::cuMemFreeHost(host));
    }
}

#[test]
fn a_copy_from_pageable_memory_takes_the_bytes_at_the_call() {
    start();
    let stream = new_stream();
    let x = allocate_on(stream, 16);
    let mut values = numbers(4);
    write_on(stream, x, &values);
    values.fill(9.0);
    assert_eq!(download_on::<f32>(stream, x, 4), numbers(4));
    free_on(stream, x);
}

#[test]
fn a_graph_runs_again_with_the_same_addresses() {
    start();
    let stream = new_stream();
    let (x, y) = (upload(&numbers(16)), allocate(64));
    let copy = planted("copy");
    let mut captured = 0;
    let mut ready = 0;
    unsafe {
        ok(graph::cuStreamBeginCapture_v2(stream, 1));
        let between = allocate_on(stream, 64);
        run_on(stream, copy, 1, 32, &[Int(16), Address(x), Address(between)]);
        run_on(stream, copy, 1, 32, &[Int(16), Address(between), Address(y)]);
        free_on(stream, between);
        ok(graph::cuStreamEndCapture(stream, &mut captured));
        ok(graph::cuGraphInstantiateWithFlags(&mut ready, captured, 0));
        for times in 1..4 {
            write_on(stream, x, &[times as f32; 16]);
            ok(graph::cuGraphLaunch(ready, stream));
            assert_eq!(download_on::<f32>(stream, y, 16), vec![times as f32; 16]);
        }
        ok(graph::cuGraphExecDestroy(ready));
        ok(graph::cuGraphDestroy(captured));
        assert_eq!(graph::cuGraphLaunch(ready, stream), INVALID_VALUE);
    }
}

#[test]
fn a_capture_forbids_waits_and_pageable_copies() {
    start();
    let stream = new_stream();
    let x = upload(&numbers(4));
    let mut captured = 0;
    let values = numbers(4);
    unsafe {
        ok(graph::cuStreamBeginCapture_v2(stream, 2));
        assert_eq!(stream::cuStreamSynchronize(stream), CAPTURE_UNSUPPORTED);
        assert_eq!(graph::cuStreamEndCapture(stream, &mut captured), CAPTURE_INVALIDATED);
        ok(graph::cuStreamBeginCapture_v2(stream, 2));
        let code = memory::cuMemcpyHtoDAsync_v2(x, values.as_ptr().cast(), 16, stream);
        assert_eq!(code, CAPTURE_UNSUPPORTED);
        assert_eq!(graph::cuStreamEndCapture(stream, &mut captured), CAPTURE_INVALIDATED);
        // The stream can be used again.
        let mut status = 9;
        ok(graph::cuStreamIsCapturing(stream, &mut status));
        assert_eq!(status, 0);
        ok(stream::cuStreamSynchronize(stream));
    }
}

#[test]
fn a_graph_that_keeps_memory_cannot_run_twice() {
    start();
    let stream = new_stream();
    let x = upload(&numbers(16));
    let (mut captured, mut ready) = (0, 0);
    unsafe {
        ok(graph::cuStreamBeginCapture_v2(stream, 2));
        let kept = allocate_on(stream, 64);
        run_on(stream, planted("copy"), 1, 32, &[Int(16), Address(x), Address(kept)]);
        ok(graph::cuStreamEndCapture(stream, &mut captured));
        ok(graph::cuGraphInstantiateWithFlags(&mut ready, captured, 0));
        ok(graph::cuGraphLaunch(ready, stream));
        assert_eq!(download_on::<f32>(stream, kept, 16), numbers(16));
        assert_eq!(graph::cuGraphLaunch(ready, stream), INVALID_VALUE);
        free_on(stream, kept);
        ok(graph::cuGraphLaunch(ready, stream));
        assert_eq!(download_on::<f32>(stream, kept, 16), numbers(16));
    }
}

#[test]
fn the_name_says_what_it_is() {
    start();
    assert_eq!(device_name(), "Software CUDA device");
}

/// Cases with settings of their own, each in a process.
#[test]
fn child() {
    match case().as_deref() {
        None => {}
        Some("small") => {
            start();
            let first = allocate(600 << 10);
            let mut second = 0;
            assert_eq!(unsafe { memory::cuMemAlloc_v2(&mut second, 600 << 10) }, OUT_OF_MEMORY);
            free(first);
            allocate(1 << 20);
        }
        Some("lost") => {
            start();
            let (x, y) = (upload(&numbers(4)), allocate(16));
            let kernel = planted("copy");
            let launch =
                || try_launch(kernel, [1; 3], [4, 1, 1], 0, StreamHandle::DEFAULT, &[Int(4), Address(x), Address(y)]);
            assert_eq!((launch(), launch()), (0, ILLEGAL_ADDRESS));
            assert_eq!(unsafe { memory::cuMemFree_v2(x) }, ILLEGAL_ADDRESS);
        }
        Some("memory") => {
            start();
            allocate(16);
            let mut second = 0;
            assert_eq!(unsafe { memory::cuMemAlloc_v2(&mut second, 16) }, OUT_OF_MEMORY);
            allocate(16);
        }
        Some("null") => {
            start();
            // Far more than this machine has.
            let x = allocate(60 << 30);
            let y = allocate(10 << 30);
            run(planted("copy"), 1 << 20, 256, &[Int(i32::MAX), Address(x), Address(y)]);
            assert_eq!(download::<f32>(y, 4), vec![0.0; 4]);
        }
        Some("counts") => {
            start();
            let (x, y) = (upload(&numbers(16)), allocate(64));
            run(planted("copy"), 1, 32, &[Int(16), Address(x), Address(y)]);
            run(planted("copy"), 1, 32, &[Int(8), Address(x), Address(y)]);
            synchronise();
            free(x);
        }
        Some(other) => panic!("{other}"),
    }
}

fn child_succeeds(case: &str, environment: &[(&str, &str)]) {
    let (success, text) = common::child(case, environment);
    assert!(success, "{case}:\n{text}");
}

#[test]
fn settings_act() {
    if case().is_some() {
        return;
    }
    child_succeeds("small", &[("CUDA_DEVICE_MEMORY", "1MiB")]);
    child_succeeds("lost", &[("CUDA_DEVICE_FAIL", "lost:2")]);
    child_succeeds("memory", &[("CUDA_DEVICE_FAIL", "memory:2")]);
    child_succeeds("null", &[("CUDA_DEVICE_MODE", "null")]);
}

#[test]
fn counts_are_written_at_the_end() {
    if case().is_some() {
        return;
    }
    let path = std::env::temp_dir().join(format!("cuda-device-counts-{}.json", std::process::id()));
    child_succeeds("counts", &[("CUDA_DEVICE_COUNTS", path.to_str().unwrap())]);
    let counts: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    let kernel = &counts["kernels"]["by_name"]["copy"];
    assert_eq!(kernel["count"], 2);
    assert_eq!((&kernel["read"], &kernel["written"], &kernel["threads"]), (&96.into(), &96.into(), &64.into()));
    assert_eq!(counts["memory"]["peak"], 128);
    assert_eq!(counts["memory"]["allocations_at_exit"], 1);
    assert_eq!(counts["calls"]["by_name"]["cuLaunchKernel"]["count"], 2);
    std::fs::remove_file(path).unwrap();
}
