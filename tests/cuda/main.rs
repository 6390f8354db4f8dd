//! Every graph and every guidance on a CUDA device, in every dtype, beside the CPU. Needs a device, or the software device:
//! `tools/cuda/check` runs it there. ONLY and DTYPES select some. With UPDATE_DOCS=1, which requires all, the results become
//! the table in docs/cuda.md.

#[path = "../guided.rs"]
mod guided;
mod profile;

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The path of a file in the repository.
fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// A dtype, and how far its pictures may be from the CPU's: at most in one number, and on average, of 255.
struct Dtype {
    name: &'static str,
    most: u8,
    mean: f64,
}

const DTYPES: [Dtype; 3] = [
    Dtype { name: "f32", most: 2, mean: 0.05 },
    Dtype { name: "f16", most: 255, mean: 2.0 },
    Dtype { name: "bf16", most: 255, mean: 6.0 },
];

/// Graphs and guidances that amplify rounding, and the mean difference that they may have in half precision:
/// docs/cuda.md#guidance-in-half-precision has measurements.
const AMPLIFYING: [&str; 8] =
    ["Edges", "ClipText", "ClipImage", "Style", "BoxDiff", "graphs/boxdiff.yaml", "OnnxFeature", "graphs/onnx.yaml"];
const AMPLIFIED: f64 = 60.0;

/// How far two pictures are apart.
#[derive(Clone, Copy, Default)]
struct Apart {
    most: u8,
    mean: f64,
}

/// Runs a graph; the error is what it printed.
fn run(graph: &str, device: &[&str], sets: &[&str], folder: &Path) -> Result<(), String> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lsregen"));
    command.current_dir(repository("")).args(["run", graph, "--no-cache", "--quiet", "--output-dir"]).arg(folder);
    command.args(device).args(sets.iter().flat_map(|set| ["--set", set]));
    let output = command.output().unwrap();
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
}

/// The pictures below a folder, by name.
fn pictures(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
            if entry.path().is_dir() {
                folders.push(entry.path());
            } else if entry.path().extension().is_some_and(|e| e == "png") {
                let file = std::io::BufReader::new(fs::File::open(entry.path()).unwrap());
                let mut reader = png::Decoder::new(file).read_info().unwrap();
                let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
                reader.next_frame(&mut pixels).unwrap();
                found.push((entry.file_name().into_string().unwrap(), pixels));
            }
        }
    }
    found.sort();
    found
}

fn apart(a: &[(String, Vec<u8>)], b: &[(String, Vec<u8>)]) -> Apart {
    assert!(!a.is_empty() && a.iter().map(|x| &x.0).eq(b.iter().map(|x| &x.0)), "other files");
    let mut worst = Apart::default();
    for ((_, a), (name, b)) in a.iter().zip(b) {
        assert_eq!(a.len(), b.len(), "{name}");
        let differences = || a.iter().zip(b).map(|(a, b)| a.abs_diff(*b));
        let mean = differences().map(f64::from).sum::<f64>() / a.len() as f64;
        worst = Apart { most: worst.most.max(differences().max().unwrap()), mean: worst.mean.max(mean) };
    }
    worst
}

/// Runs a graph on the CPU and on the device in each dtype. Returns its row of the table, and what is wrong.
fn compare(name: &str, graph: &str, sets: &[&str]) -> (String, Vec<String>) {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    run(graph, &["--device", "cpu"], sets, &at("cpu")).unwrap_or_else(|error| panic!("{name} on the CPU: {error}"));
    let exact = pictures(&at("cpu"));
    let (mut row, mut faults) = (format!("| {name} |"), Vec::new());
    for dtype in DTYPES.iter().filter(|dtype| wanted("DTYPES", dtype.name)) {
        let started = std::time::Instant::now();
        match run(graph, &["--device", "cuda", "--dtype", dtype.name], sets, &at(dtype.name)) {
            Ok(()) => {
                let Apart { most, mean } = apart(&exact, &pictures(&at(dtype.name)));
                println!(
                    "{name} {}: at most {most}, mean {mean:.3}, {:.1} s",
                    dtype.name,
                    started.elapsed().as_secs_f64()
                );
                write!(row, " {most} ({mean:.2}) |").unwrap();
                let amplifies = dtype.name != "f32" && AMPLIFYING.iter().any(|part| name.starts_with(part));
                if most > dtype.most || mean > if amplifies { AMPLIFIED } else { dtype.mean } {
                    faults.push(format!("{name} in {}: at most {most}, mean {mean:.3}", dtype.name));
                }
            }
            Err(error) => {
                println!("{name} {}: {error}", dtype.name);
                write!(row, " fails |").unwrap();
                faults.push(format!("{name} in {}: {error}", dtype.name));
            }
        }
    }
    (row, faults)
}

/// Whether a name contains a part that a variable lists, if there is the variable: ONLY for graphs and guidances, DTYPES.
fn wanted(variable: &str, name: &str) -> bool {
    std::env::var(variable).map_or(true, |only| only.split(',').any(|part| name.contains(part)))
}

#[test]
fn graphs_and_guidances_equal_the_cpus() {
    let updates_docs = std::env::var_os("UPDATE_DOCS").is_some();
    let is_partial = ["ONLY", "DTYPES"].iter().any(|variable| std::env::var_os(variable).is_some());
    assert!(!(updates_docs && is_partial), "UPDATE_DOCS needs a full run: unset ONLY and DTYPES");
    let (mut table, mut faults) = (String::new(), Vec::new());
    let mut add = |name: &str, graph: &str, sets: &[&str]| {
        if wanted("ONLY", name) {
            let (row, found) = compare(name, graph, sets);
            table.push_str(&format!("{row}\n"));
            faults.extend(found);
        }
    };
    let mut graphs: Vec<_> =
        fs::read_dir(repository("graphs")).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    graphs.retain(|name| name.ends_with(".yaml"));
    graphs.sort();
    for name in &graphs {
        // In the third step, a recording of the U-Net is replayed.
        let sets: &[&str] = if name == "ablation-steps.yaml" { &["few=2", "some=3", "many=4"] } else { &["steps=3"] };
        add(&format!("graphs/{name}"), &format!("graphs/{name}"), sets);
    }
    // A layout that fills every slot, at sides that the U-Net cannot halve three times.
    let corner = |i: usize| {
        format!("{{ phrase: a red circle, box: [{0}, {0}, {1}, {1}] }}", i as f64 / 40.0, (i + 9) as f64 / 40.0)
    };
    let full = format!("boxes=[{}]", (0..30).map(corner).collect::<Vec<_>>().join(", "));
    let sets = ["steps=3", "width=136", "height=104", &full];
    add("GLIGEN of 30 boxes, odd sides", "graphs/gligen-large.yaml", &sets);
    let folder = tempfile::tempdir().unwrap();
    for (i, (kind, told)) in guided::GUIDANCES.iter().enumerate() {
        let path = guided::write(folder.path(), &format!("{i}.yaml"), &guided::graph(Some((kind, told))));
        let name = if guided::GUIDANCES[..i].iter().any(|(k, _)| k == kind) {
            format!("{kind} (2)")
        } else {
            kind.to_string()
        };
        add(&name, &path, &["steps=4"]);
    }
    let table = format!("| graph or guidance | f32 | f16 | bf16 |\n|---|---|---|---|\n{table}");
    println!("{table}");
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    if updates_docs {
        update_docs(&table);
    }
}

/// A run on the software device that fails as planned; `None` on a real device.
fn failure(variable: &str, value: &str, sets: &[&str]) -> Option<(Option<i32>, String)> {
    std::env::var_os("CUDA_DEVICE_CACHE")?;
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_lsregen"));
    command.current_dir(repository("")).args(["run", "graphs/gligen.yaml", "--device", "cuda", "--no-cache"]);
    command.args(["--output-dir"]).arg(folder.path()).args(sets.iter().flat_map(|set| ["--set", set]));
    let output = command.env(variable, value).output().unwrap();
    Some((output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned()))
}

/// A device that fails in mid-run ends the run with a message that says what happened and what to do. Only the software
/// device fails on request.
#[test]
fn failures_in_a_run_are_explained() {
    let cases: &[(&str, &str, &[&str])] = &[
        ("CUDA_DEVICE_MEMORY", "16MiB", &["the GPU's memory is full", "--offload"]),
        ("CUDA_DEVICE_FAIL", "memory:700", &["the GPU's memory is full", "--offload"]),
        ("CUDA_DEVICE_FAIL", "lost:300", &["ILLEGAL_ADDRESS", "cannot use the GPU any more"]),
        ("CUDA_DEVICE_FAIL", "library:3", &["SUBLIBRARY_LOADING_FAILED", "libcudnn"]),
    ];
    for (variable, value, wanted) in cases {
        let Some((code, stderr)) = failure(variable, value, &["steps=2"]) else { return };
        assert_eq!(code, Some(1), "{variable}={value}: {stderr}");
        assert!(wanted.iter().all(|text| stderr.contains(text)), "{variable}={value}: {stderr}");
        assert!(!stderr.contains("panicked"), "{variable}={value}: {stderr}");
    }
}

/// Writes the table between its marks in docs/cuda.md.
fn update_docs(table: &str) {
    let path = repository("docs/cuda.md");
    let text = fs::read_to_string(&path).unwrap();
    let (start, end) = ("<!-- table: graphs -->\n", "<!-- end -->");
    let from = text.find(start).expect("docs/cuda.md has a place for the table") + start.len();
    let to = from + text[from..].find(end).unwrap();
    fs::write(path, format!("{}{table}{}", &text[..from], &text[to..])).unwrap();
}
