//! Plants bugs, one a process, and checks that the device reports each.

mod common;

use common::*;
use cuda_device::stream::StreamHandle;

use Arg::{Address, Int};

/// A planted bug: its name, what it does, and words of the report.
struct Planted {
    name: &'static str,
    run: fn(),
    words: &'static [&'static str],
}

const PLANTED: &[Planted] = &[
    Planted {
        name: "read one element past the end",
        run: read_past,
        words: &["out of bounds", "reads 4 bytes", "just behind the end", "kernel copy"],
    },
    Planted {
        name: "write one element past the end",
        run: write_past,
        words: &["out of bounds", "writes 4 bytes", "just behind the end"],
    },
    Planted {
        name: "write inside of the rounding",
        run: write_in_rounding,
        words: &["out of bounds", "writes 4 bytes"],
    },
    Planted { name: "uninitialised read", run: uninitialised, words: &["uninitialised read", "byte 40 of allocation"] },
    Planted {
        name: "copy of unwritten bytes to the host",
        run: unwritten_to_host,
        words: &["uninitialised read", "copy to the host"],
    },
    Planted { name: "kernel uses freed memory", run: use_after_free, words: &["use after free", "freed allocation"] },
    Planted { name: "host frees before the kernel runs", run: early_free, words: &["use after free"] },
    Planted { name: "double free", run: double_free, words: &["invalid free", "freed"] },
    Planted { name: "misaligned vector load", run: misaligned, words: &["misaligned access", "no multiple of 16"] },
    Planted {
        name: "shared memory that is aligned by luck",
        run: aligned_by_luck,
        words: &["misaligned access", "uses 16 bytes", "kernel vectors_in_numbers"],
    },
    Planted { name: "missing barrier", run: missing_barrier, words: &["uninitialised read", "barrier may be missing"] },
    Planted {
        name: "missing second barrier",
        run: missing_second_barrier,
        words: &["shared memory without a barrier"],
    },
    Planted {
        name: "missing wait for a copy",
        run: || stages("first_stage_not_waited"),
        words: &["unfinished copy", "has not waited for its cp.async"],
    },
    Planted {
        name: "missing wait for the last copy",
        run: || stages("last_stage_not_waited"),
        words: &["unfinished copy", "byte 264 of shared memory", "thread 1 has not waited"],
    },
    Planted {
        name: "wait for a copy behind the barrier",
        run: || stages("waited_after_barrier"),
        words: &["shared memory without a barrier"],
    },
    Planted { name: "write over an unfinished copy", run: || stages("written_over_copy"), words: &["unfinished copy"] },
    Planted { name: "divergent barrier", run: divergent, words: &["divergent barrier", "has ended"] },
    Planted { name: "shuffle with an absent lane", run: absent_lane, words: &["absent lane"] },
    Planted { name: "assertion", run: assertion, words: &["trap", "n < 3", "planted.cu"] },
    Planted {
        name: "shared memory out of bounds",
        run: shared_bounds,
        words: &["out of bounds", "shared memory, which has 64"],
    },
    Planted { name: "missing event between streams", run: missing_event, words: &["uninitialised read"] },
    Planted {
        name: "pinned memory freed before its copy",
        run: early_free_host,
        words: &["use after free", "pinned memory"],
    },
    Planted { name: "overlapping copy", run: overlap, words: &["overlapping copy"] },
    Planted { name: "host reads an address of the device", run: host_reads, words: &["stray access"] },
];

/// The process of one planted bug.
#[test]
fn child() {
    let Some(case) = case() else { return };
    start();
    let planted = PLANTED.iter().find(|p| p.name == case).unwrap();
    (planted.run)();
    synchronise();
}

#[test]
fn each_planted_bug_is_reported() {
    if case().is_some() {
        return;
    }
    let mut missed = Vec::new();
    for planted in PLANTED {
        let (success, text) = common::child(planted.name, &[]);
        if success || !planted.words.iter().all(|word| text.contains(word)) {
            missed.push(format!("{} (success {success}):\n{text}", planted.name));
        }
    }
    assert!(missed.is_empty(), "{}", missed.join("\n"));
}

fn read_past() {
    let (x, y) = (upload(&[1f32; 10]), allocate(44));
    run(planted("copy"), 1, 32, &[Int(11), Address(x), Address(y)]);
}

fn write_past() {
    let (x, y) = (upload(&[1f32; 64]), allocate(256));
    run(planted("copy"), 1, 64, &[Int(64), Address(x), Address(y + 4)]);
}

fn write_in_rounding() {
    let (x, y) = (upload(&[1f32; 64]), allocate(40));
    run(planted("copy"), 1, 32, &[Int(11), Address(x), Address(y)]);
}

fn uninitialised() {
    let (x, y) = (allocate(64), allocate(64));
    write_on(StreamHandle::DEFAULT, x, &[1f32; 10]);
    run(planted("copy"), 1, 32, &[Int(11), Address(x), Address(y)]);
}

fn unwritten_to_host() {
    download::<f32>(allocate(64), 16);
}

fn use_after_free() {
    let (x, y) = (upload(&[1f32; 16]), allocate(64));
    free(x);
    run(planted("copy"), 1, 32, &[Int(16), Address(x), Address(y)]);
}

fn early_free() {
    let stream = new_stream();
    let (x, y) = (allocate_on(stream, 64), allocate_on(stream, 64));
    write_on(stream, x, &[1f32; 16]);
    unsafe { ok(cuda_device::driver::stream::cuStreamSynchronize(stream)) };
    run_on(stream, planted("copy"), 1, 32, &[Int(16), Address(x), Address(y)]);
    // Does not wait for the stream, as the memory is ordered by streams.
    free(x);
}

fn double_free() {
    let x = upload(&[1f32; 16]);
    free(x);
    free(x);
}

fn misaligned() {
    let (x, y) = (upload(&[1f32; 64]), allocate(256));
    run(planted("copy4"), 1, 8, &[Address(x + 4), Address(y)]);
}

fn aligned_by_luck() {
    let (x, y) = (upload(&[1f32; 128]), allocate(512));
    run(planted("vectors_in_numbers"), 1, 32, &[Address(x), Address(y)]);
}

fn missing_barrier() {
    let x = upload(&[1f32; 256]);
    run(planted("reverse_without_barrier"), 1, 256, &[Address(x)]);
}

fn missing_second_barrier() {
    let x = upload(&[1f32; 64]);
    run(planted("rotate_without_second_barrier"), 1, 64, &[Address(x), Int(3)]);
}

fn stages(kernel: &str) {
    let (x, y) = (upload(&[1f32; 128]), allocate(512));
    run(planted(kernel), 1, 64, &[Address(x), Address(y)]);
}

fn divergent() {
    let x = upload(&[1f32; 32]);
    run(planted("divergent"), 1, 32, &[Address(x)]);
}

fn absent_lane() {
    let x = upload(&[1f32; 32]);
    run(planted("absent_lane"), 1, 32, &[Address(x)]);
}

fn assertion() {
    run(planted("asserts"), 1, 1, &[Int(3)]);
}

fn shared_bounds() {
    let x = upload(&[1f32; 32]);
    ok(try_launch(planted("dynamic"), [1; 3], [32, 1, 1], 64, StreamHandle::DEFAULT, &[Address(x)]));
}

fn missing_event() {
    let (one, two) = (new_stream(), new_stream());
    let (x, y, z) = (upload(&[1f32; 16]), allocate(64), allocate(64));
    run_on(one, planted("copy"), 1, 32, &[Int(16), Address(x), Address(y)]);
    run_on(two, planted("copy"), 1, 32, &[Int(16), Address(y), Address(z)]);
    download_on::<f32>(two, z, 16);
}

fn early_free_host() {
    let mut host = std::ptr::null_mut();
    unsafe { ok(cuda_device::driver::memory::cuMemAllocHost_v2(&mut host, 64)) };
    let (stream, x) = (new_stream(), allocate(64));
    unsafe {
        ok(cuda_device::driver::memory::cuMemcpyHtoDAsync_v2(x, host, 64, stream));
        ok(cuda_device::driver::memory::cuMemFreeHost(host));
    }
}

fn overlap() {
    let x = upload(&[1f32; 16]);
    unsafe { ok(cuda_device::driver::memory::cuMemcpyDtoD_v2(x + 4, x, 32)) };
}

fn host_reads() {
    let x = upload(&[1f32; 16]);
    free(x);
    let value = unsafe { std::ptr::read_volatile(x as *const f32) };
    assert_eq!(value, 1.0);
}
