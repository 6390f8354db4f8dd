//! What a trace says of a CUDA device, beside the counts of the software device.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value as Json;

use crate::repository;

/// The counts by name of a group, over all nodes and what belongs to none.
fn profiled(trace: &Json, group: &str) -> BTreeMap<String, u64> {
    let other = &trace["otherData"];
    let nodes = other["nodes"].as_object().unwrap().values().map(|node| &node["cuda"]);
    let mut sums = BTreeMap::new();
    for counts in nodes.chain([&other["elsewhere"]]) {
        for (name, tally) in counts[group]["by_name"].as_object().into_iter().flatten() {
            *sums.entry(name.clone()).or_default() += tally["count"].as_u64().unwrap();
        }
    }
    sums
}

/// Runs a graph on the device.
fn run(graph: &str, steps: &str, folder: &Path, more: &[&str]) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lsregen"));
    command.current_dir(repository("")).args(["run", graph, "--set", &format!("steps={steps}"), "--device", "cuda"]);
    command.args(["--no-cache", "--quiet", "--output-dir"]).arg(folder).args(more);
    let output = command.env("CUDA_DEVICE_COUNTS", folder.join("counts.json")).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// [`run`], and its trace.
fn traced(graph: &str, steps: &str, folder: &Path, more: &[&str]) -> Json {
    let trace = folder.join("run.json");
    run(graph, steps, folder, &[&["--profile", trace.to_str().unwrap()], more].concat());
    serde_json::from_slice(&fs::read(&trace).unwrap()).unwrap()
}

/// With `--offload`, the autoencoder is loaded while the device still samples, and the image stays the same.
#[test]
fn a_profile_shows_that_offloading_loads_ahead() {
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let [kept, offloaded] = folders.each_ref().map(|folder| folder.path());
    run("graphs/sdxl.yaml", "2", kept, &[]);
    let trace = traced("graphs/sdxl.yaml", "2", offloaded, &["--offload"]);
    assert!(crate::pictures(kept) == crate::pictures(offloaded), "another image");
    let times = |category: &str, name: &str| {
        let events = trace["traceEvents"].as_array().unwrap().iter();
        let event = events.clone().find(|event| event["cat"] == category && event["name"] == name);
        let event = event.unwrap_or_else(|| panic!("no {category} {name}"));
        let [start, duration] = ["ts", "dur"].map(|field| event[field].as_f64().unwrap());
        start..start + duration
    };
    assert!(times("node", "sample").contains(&times("span", "load vae").start), "the autoencoder is not loaded ahead");
}

/// The U-Net of a layout, with its fusers, is recorded too.
#[test]
fn a_profile_of_a_layout_has_replays() {
    let folder = tempfile::tempdir().unwrap();
    let trace = traced("graphs/gligen.yaml", "10", folder.path(), &[]);
    // Of 10 steps, the first computes and the second records.
    assert_eq!(profiled(&trace, "calls").get("cuGraphLaunch"), Some(&8));
}

#[test]
fn a_profile_counts_what_the_device_counts() {
    let folder = tempfile::tempdir().unwrap();
    let trace = traced("graphs/sdxl.yaml", "4", folder.path(), &[]);
    let kernels = profiled(&trace, "kernels");
    assert!(kernels.values().sum::<u64>() > 100, "{kernels:?}");
    // Each step has its own counts, and what is timed has a slice on the device's track.
    let events = trace["traceEvents"].as_array().unwrap();
    let steps = events.iter().filter(|event| event["cat"] == "step" && event["args"]["done"].is_u64());
    assert!(steps.filter(|step| step["args"]["cuda"]["calls"]["count"].as_u64() > Some(0)).count() >= 4);
    let slices = events.iter().filter(|event| event["ph"] == "X" && event["pid"] == 0).count();
    assert_eq!(trace["otherData"]["kernels"], slices);
    // Each stream has its own track, and does one thing at a time.
    let mut streams: BTreeMap<u64, Vec<(f64, f64)>> = BTreeMap::new();
    for event in events.iter().filter(|event| event["ph"] == "X" && event["pid"] == 0) {
        let [start, duration] = ["ts", "dur"].map(|field| event[field].as_f64().unwrap());
        streams.entry(event["tid"].as_u64().unwrap()).or_default().push((start, start + duration));
    }
    for (stream, times) in &mut streams {
        times.sort_by(|a, b| a.0.total_cmp(&b.0));
        assert!(times.windows(2).all(|pair| pair[0].1 <= pair[1].0 + 0.01), "slices of track {stream} overlap");
    }
    if std::env::var("CUDA_DEVICE_MODE").is_ok_and(|mode| mode == "null") {
        println!("without times: the device runs nothing");
    } else {
        assert!(trace["otherData"]["nodes"]["sample"]["cuda"]["kernels"]["microseconds"].as_f64() > Some(0.0));
    }
    assert!(events.iter().any(|event| event["ph"] == "C" && event["name"] == "memory in use"));

    // Only the software device writes its own counts.
    let Ok(counts) = fs::read(folder.path().join("counts.json")) else { return };
    let counts: Json = serde_json::from_slice(&counts).unwrap();
    let of_device = |group: &str| -> BTreeMap<String, u64> {
        let names = counts[group]["by_name"].as_object().into_iter().flatten();
        names.map(|(name, amount)| (name.clone(), amount["count"].as_u64().unwrap())).collect()
    };
    assert_eq!(kernels, of_device("kernels"));
    // The first of four steps computes, the second records, and the others replay.
    assert!(of_device("calls")["cuGraphLaunch"] >= 2, "the U-Net was not replayed");
    for group in ["gemms", "convolutions", "attentions", "copies", "allocations", "frees"] {
        let [ours, its] = [profiled(&trace, group), of_device(group)].map(|names| names.values().sum::<u64>());
        assert_eq!(ours, its, "{group}");
    }
}
