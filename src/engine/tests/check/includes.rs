//! Graphs that include other graphs, as files in a folder.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use insta::assert_snapshot;
use lsregen_engine::{
    Checked, Diagnostic, FileDigests, Graph, Host, Override, Plan, Source, Store, check, check_with, read_source,
    render, to_json,
};
use tempfile::TempDir;

use crate::nodes;
use crate::texts::{Dice, assert_sound, damage};

/// A graph for others to include. It has more nodes than its outputs need.
const INNER: &str = "\
lsregen: 1
about: A layout.
params:
  prompt: a red circle on sand
  seed: 7
  boxes:
    - { phrase: a red circle, box: [0.08, 0.15, 0.45, 0.55] }
  size: 256
nodes:
  small: { type: LoadModel, model: shapes/gligen }
  layout: { type: Layout, model: small, prompt: \"${prompt}, sharp\", boxes: ${boxes}, seed: ${seed} }
  up: { type: Upsample, image: layout.image, width: ${size}, height: ${size} }
  twice: { type: Upsample, image: up, width: 1024, height: 1024 }
  save: { type: SaveImage, image: twice, path: out/inner.png }
outputs:
  image: up
  layout: layout.latent
";

/// Includes it twice, and uses its image and latent.
const OUTER: &str = "\
lsregen: 1
params:
  prompt: a blue square on moss
nodes:
  a: { type: ./inner.yaml, prompt: ${prompt}, seed: 8 }
  b: { type: inner.yaml, size: 64 }
  large: { type: LoadModel, model: shapes/xl }
  image: { type: Decode, model: large, latent: a }
  save: { type: SaveImage, image: image, path: out/a.png }
  save-b: { type: SaveImage, image: b, path: out/b.png }
";

/// A folder of graph files.
struct Folder(TempDir);

impl Folder {
    fn new(files: &[(&str, &str)]) -> Folder {
        let folder = Folder(tempfile::tempdir().expect("a folder"));
        files.iter().for_each(|(name, text)| folder.write(name, text));
        folder
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
        std::fs::write(path, text).expect("a file");
    }

    fn host(&self) -> Host {
        Host::new(self.0.path(), "out")
    }

    fn check(&self, name: &str, overrides: &[&str]) -> Checked {
        let overrides = overrides.iter().map(|arg| Override::parse(arg).ok().expect("a proper override"));
        let text = std::fs::read_to_string(self.path(name)).expect("a file");
        let overrides: Vec<_> = overrides.collect();
        let checked = check(Source::new(name, text), &overrides, &nodes::REGISTRY, &self.host());
        assert_eq!(checked.graph.is_some(), !checked.diagnostics.iter().any(Diagnostic::is_error));
        checked
    }

    fn graph(&self, name: &str, overrides: &[&str]) -> Graph {
        let checked = self.check(name, overrides);
        assert_eq!(self.drawn(&checked), "");
        checked.graph.expect("no error")
    }

    fn drawn(&self, checked: &Checked) -> String {
        // Every span is within its text.
        let json = to_json(&checked.diagnostics);
        assert_eq!(json.as_array().map(Vec::len), Some(checked.diagnostics.len()));
        render(&checked.diagnostics, false).replace(&format!("{}/", self.0.path().display()), "")
    }

    fn report(&self, name: &str, overrides: &[&str]) -> String {
        self.drawn(&self.check(name, overrides))
    }

    fn codes(&self, name: &str) -> Vec<&'static str> {
        self.check(name, &[]).diagnostics.iter().map(|diagnostic| diagnostic.code).collect()
    }

    /// The name and memo key of each node.
    fn keys(&self, graph: &Graph) -> HashMap<String, String> {
        let plan = Plan::new(graph, &Arc::new(self.host()), &Store::in_memory(0), &FileDigests::new()).expect("a plan");
        let keys = plan.steps().iter();
        keys.map(|step| (graph.node(step.node).name.to_string(), step.key.to_string())).collect()
    }
}

fn names(graph: &Graph) -> Vec<&str> {
    graph.order().iter().map(|&node| &*graph.node(node).name).collect()
}

fn params(graph: &Graph, name: &str) -> serde_json::Value {
    let node = graph.order().iter().find(|&&node| &*graph.node(node).name == name).expect("a node");
    graph.node(*node).node.params().expect("JSON")
}

/// The outer graph with one piece replaced.
fn outer(from: &str, to: &str) -> String {
    assert_eq!(OUTER.matches(from).count(), 1, "{from} must stand once in the workflow");
    OUTER.replace(from, to)
}

fn inner(from: &str, to: &str) -> String {
    assert_eq!(INNER.matches(from).count(), 1, "{from} must stand once in the workflow");
    INNER.replace(from, to)
}

/// The diagnostics of the outer graph, beside the inner one.
fn report(outer: &str, inner: &str) -> String {
    Folder::new(&[("outer.yaml", outer), ("inner.yaml", inner)]).report("outer.yaml", &[])
}

#[test]
fn an_included_graph_gives_the_nodes_that_its_outputs_need() {
    let folder = Folder::new(&[("outer.yaml", OUTER), ("inner.yaml", INNER)]);
    let graph = folder.graph("outer.yaml", &[]);
    let expected = ["a/small", "a/layout", "a/up", "b/small", "b/layout", "b/up", "large", "image", "save", "save-b"];
    assert_eq!(names(&graph), expected);
    assert_eq!(graph.outputs().map(|node| &*graph.node(node).name).collect::<Vec<_>>(), ["save", "save-b"]);
    assert_eq!(params(&graph, "a/layout")["prompt"], "a blue square on moss, sharp");
    assert_eq!(params(&graph, "a/layout")["seed"], 8);
    assert_eq!(params(&graph, "b/layout")["prompt"], "a red circle on sand, sharp");
    assert_eq!((&params(&graph, "a/up")["width"], &params(&graph, "b/up")["width"]), (&256.into(), &64.into()));
    let sources: Vec<_> = graph.sources().iter().map(|file| (file.path.as_path(), file.source.text())).collect();
    assert_eq!(sources, [(Path::new("inner.yaml"), INNER)]);
    assert_eq!(graph.sources()[0].resolved, folder.path("inner.yaml"));
}

#[test]
fn equal_work_has_equal_keys_inside_and_outside() {
    let flat = INNER.replace("outputs:\n  image: up\n  layout: layout.latent\n", "").replace("seed: 7", "seed: 8");
    let files = [("outer.yaml", OUTER), ("inner.yaml", INNER), ("flat.yaml", &flat)];
    let folder = Folder::new(&files);
    let nested = folder.keys(&folder.graph("outer.yaml", &["prompt=a star"]));
    let flat = folder.keys(&folder.graph("flat.yaml", &["prompt=a star"]));
    for name in ["small", "layout", "up"] {
        assert_eq!(nested[&format!("a/{name}")], flat[name], "{name}");
    }
    assert_eq!(nested["a/small"], nested["b/small"]);
    assert_ne!(nested["a/layout"], nested["b/layout"]);
}

#[test]
fn values_from_an_outer_file_are_not_expanded_again() {
    let text = outer("prompt: a blue square on moss", "prompt: 'a $${seed} in {braces}'");
    let folder = Folder::new(&[("outer.yaml", &text), ("inner.yaml", INNER)]);
    assert_eq!(params(&folder.graph("outer.yaml", &[]), "a/layout")["prompt"], "a ${seed} in {braces}, sharp");
}

const MIDDLE: &str = "\
lsregen: 1
params: { size: 32, seed: 1 }
nodes:
  b: { type: deep/inner.yaml, size: ${size}, seed: ${seed} }
  up: { type: Upsample, image: b.image, width: ${size}, height: 8 }
  unneeded: { type: deep/inner.yaml, prompt: x }
outputs: { picture: b.image, larger: up }
";

const NESTED: &str = "\
lsregen: 1
params: { n: 16, folder: lib }
nodes:
  a: { type: \"${folder}/middle.yaml\", size: ${n} }
  save: { type: SaveImage, image: a.larger, path: a.png }
  save2: { type: SaveImage, image: a.picture, path: b.png }
";

fn nested() -> Folder {
    Folder::new(&[("nested.yaml", NESTED), ("lib/middle.yaml", MIDDLE), ("lib/deep/inner.yaml", INNER)])
}

#[test]
fn graphs_lie_inside_each_other() {
    let folder = nested();
    let graph = folder.graph("nested.yaml", &["n=24"]);
    assert_eq!(names(&graph), ["a/b/small", "a/b/layout", "a/b/up", "a/up", "save", "save2"]);
    assert_eq!(params(&graph, "a/b/up")["width"], 24);
    assert_eq!(params(&graph, "a/b/layout")["seed"], 1);
    let paths: Vec<_> = graph.sources().iter().map(|file| file.path.to_str().expect("UTF-8")).collect();
    assert_eq!(paths, ["lib/middle.yaml", "lib/deep/inner.yaml"]);
}

#[test]
fn files_of_a_node_lie_beside_its_own_file() {
    let reads = "lsregen: 1\nparams: { path: picture.png }\nnodes:\n  photo: { type: LoadImage, path: ${path} }\n\
                 outputs: { image: photo }\n";
    let graph = "lsregen: 1\nnodes:\n  a: { type: lib/reads.yaml }\n  b: { type: lib/reads.yaml, path: ../other.png }\n  \
                 own: { type: LoadImage, path: lib/picture.png }\n  \
                 s: { type: SaveImage, image: a, path: a.png }\n  t: { type: SaveImage, image: b, path: b.png }\n  \
                 u: { type: SaveImage, image: own, path: c.png }\n";
    let folder =
        Folder::new(&[("graph.yaml", graph), ("lib/reads.yaml", reads), ("lib/picture.png", "p"), ("other.png", "o")]);
    let keys = folder.keys(&folder.graph("graph.yaml", &[]));
    assert_ne!(keys["a/photo"], keys["b/photo"]);
    folder.write("lib/picture.png", "q");
    let changed = folder.keys(&folder.graph("graph.yaml", &[]));
    assert_ne!((&keys["a/photo"], &keys["own"]), (&changed["a/photo"], &changed["own"]));
    assert_eq!(keys["b/photo"], changed["b/photo"]);
    std::fs::remove_file(folder.path("lib/picture.png")).expect("it was there");
    assert_eq!(folder.codes("graph.yaml"), ["file", "file"]);
}

/// `inside` damages the valid inner graph, `outside` the valid outer one.
macro_rules! fault {
    ($name:ident, outside $from:expr => $to:expr) => {
        #[test]
        fn $name() {
            assert_snapshot!(stringify!($name), report(&outer($from, $to), INNER));
        }
    };
    ($name:ident, inside $from:expr => $to:expr) => {
        #[test]
        fn $name() {
            assert_snapshot!(stringify!($name), report(OUTER, &inner($from, $to)));
        }
    };
}

fault!(graph_missing, outside "./inner.yaml" => "./iner.yaml");
fault!(graph_is_a_folder, outside "./inner.yaml" => ".yaml/../../.yaml");
fault!(graph_without_its_ending, outside "./inner.yaml" => "./inner");
fault!(graph_unknown_key, outside "seed: 8" => "sede: 8, colour: red, layout: x");
fault!(graph_key_without_colon, outside "seed: 8" => "blue");
fault!(graph_unknown_output, outside "latent: a " => "latent: a.laytou ");
fault!(graph_of_other_type, outside "latent: a " => "latent: a.image ");
fault!(graph_gives_no_such_type, outside "model: large, latent: a" => "model: a, latent: a");
fault!(graph_not_linked_to, outside "image: b," => "image: image,");
fault!(value_out_of_range, outside "size: 64" => "size: 4");
fault!(value_of_wrong_kind, outside "seed: 8" => "seed: many");
fault!(value_with_a_faulty_part, outside "seed: 8" => "boxes: [{ phrase: x, box: [0, 0, 1] }, ${prompt}]");
fault!(value_that_the_node_objects_to, outside "seed: 8" => "boxes: [{ phrase: x, box: [1, 0, 0, 1] }]");

fault!(inside_unknown_type, inside "type: Layout" => "type: Layuot");
fault!(inside_unknown_node, inside "image: layout.image" => "image: laiout.image");
fault!(inside_unused_param, inside "  size: 256" => "  size: 256\n  steps: 3");
fault!(inside_broken, inside "nodes:\n" => "nodes: [\n");
fault!(inside_is_no_workflow, inside INNER => "- a\n- b\n");
fault!(inside_empty, inside INNER => "");
fault!(inside_cycle, inside "image: layout.image" => "image: twice");
fault!(no_outputs_declared, inside "outputs:\n  image: up\n  layout: layout.latent\n" => "");
fault!(outputs_are_a_list, inside "outputs:\n  image: up\n  layout: layout.latent\n" => "outputs: [up]\n");
fault!(output_of_unknown_node, inside "image: up\n" => "image: upp\n");
fault!(output_of_unknown_output, inside "layout.latent\n" => "layout.lat\n");
fault!(output_ambiguous, inside "layout: layout.latent\n" => "layout: layout\n");
fault!(output_that_gives_nothing, inside "layout: layout.latent\n" => "layout: save\n");
fault!(output_that_is_no_link, inside "layout: layout.latent\n" => "layout: [up]\n  bad.name: up\n");

#[test]
fn an_error_in_a_nested_graph() {
    let folder = nested();
    folder.write("lib/deep/inner.yaml", inner("width: ${size}", "widht: ${size}"));
    assert_snapshot!(folder.report("nested.yaml", &[]));
}

#[test]
fn a_value_that_goes_through_two_files_shows_its_way() {
    assert_snapshot!(nested().report("nested.yaml", &["n=4"]));
}

#[test]
fn a_family_is_followed_through_a_graph() {
    let models = "lsregen: 1\nnodes:\n  m: { type: LoadModel, model: shapes/gligen }\n  \
                  p: { type: Patch, model: m }\noutputs: { model: p }\n";
    let graph = "lsregen: 1\nnodes:\n  models: { type: models.yaml }\n  \
                 sample: { type: Sample, model: models, guidance: [] }\n  \
                 image: { type: Decode, model: models.model, latent: sample }\n  \
                 save: { type: SaveImage, image: image, path: a.png }\n";
    assert_snapshot!(Folder::new(&[("graph.yaml", graph), ("models.yaml", models)]).report("graph.yaml", &[]));
}

#[test]
fn an_error_of_a_file_is_reported_once_one_of_a_value_at_each_use() {
    let graph = "lsregen: 1\nnodes:\n  a: { type: inner.yaml, size: 4 }\n  b: { type: inner.yaml, size: 5 }\n  \
                 c: { type: inner.yaml }\n  s: { type: SaveImage, image: a, path: a.png }\n  \
                 t: { type: SaveImage, image: b, path: b.png }\n  u: { type: SaveImage, image: c, path: c.png }\n";
    let folder = Folder::new(&[("graph.yaml", graph), ("inner.yaml", &inner("image: up,", "image: pu,"))]);
    let of_values = ["out-of-range"; 4]; // width and height, of two uses
    let codes = folder.codes("graph.yaml");
    assert_eq!((codes[0], &codes[1..]), ("unknown-node", &of_values[..]));
}

#[test]
fn a_graph_cannot_contain_itself() {
    let using = |file: &str| {
        format!(
            "lsregen: 1\nnodes:\n  next: {{ type: {file} }}\n  s: {{ type: SaveImage, image: next, path: a.png }}\n\
                 outputs: {{ image: next }}\n"
        )
    };
    let folder = Folder::new(&[
        ("self.yaml", &using("./self.yaml")),
        ("a.yaml", &using("sub/b.yaml")),
        ("sub/b.yaml", &using("../sub/../sub/c.yaml")),
        ("sub/c.yaml", &using("../a.yaml")),
        ("into.yaml", &using("a.yaml")),
    ]);
    assert_snapshot!(["self.yaml", "a.yaml", "into.yaml"].map(|name| folder.report(name, &[])).join("---\n"));
    #[cfg(unix)]
    {
        folder.write("linked.yaml", using("link.yaml"));
        std::os::unix::fs::symlink("linked.yaml", folder.path("link.yaml")).expect("a link");
        assert_eq!(folder.codes("linked.yaml"), ["include-cycle"]);
    }
}

#[test]
fn a_graph_that_declares_outputs_needs_no_output_node() {
    let text = inner("  save: { type: SaveImage, image: twice, path: out/inner.png }\n", "");
    let folder = Folder::new(&[("inner.yaml", &text)]);
    // Nothing needs `twice` now.
    assert_eq!(folder.codes("inner.yaml"), ["unneeded-node"]);
    folder.write("inner.yaml", text.replace("  image: up\n", "  image: twice\n"));
    let graph = folder.graph("inner.yaml", &[]);
    assert_eq!(graph.outputs().count(), 0);
    assert_eq!(graph.order().len(), 4);
}

#[test]
fn invalid_and_missing_files_are_listed() {
    let text = "lsregen: 1\nnodes:\n  a: { type: inner.yaml }\n  b: { type: ./gone.yml }\n  c: { type: lib/latin.yaml }\n  \
                s: { type: SaveImage, image: a, path: a.png }\n  t: { type: SaveImage, image: b, path: b.png }\n";
    let folder = Folder::new(&[("graph.yaml", text), ("inner.yaml", "lsregen: [\n")]);
    folder.write("lib/latin.yaml", b"lsregen: 1\nabout: caf\xe9\n");
    let checked = folder.check("graph.yaml", &[]);
    assert_snapshot!(folder.drawn(&checked));
    let expected = ["inner.yaml", "gone.yml", "lib/latin.yaml"].map(|name| folder.path(name));
    assert_eq!(checked.includes, expected);
}

#[test]
fn files_too_large_are_refused() {
    let folder = Folder::new(&[("outer.yaml", OUTER)]);
    folder.write("inner.yaml", "#".repeat((1 << 20) + 1));
    assert_snapshot!(folder.report("outer.yaml", &[]));
}

/// The texts need not be files.
#[test]
fn a_graph_can_be_read_from_memory() {
    let folder = nested();
    let graph = folder.graph("nested.yaml", &[]);
    let carried: HashMap<_, _> =
        graph.sources().iter().map(|file| (file.path.clone(), file.source.text().to_string())).collect();
    let read = |path: &Path| match carried.get(path) {
        Some(text) => Ok(Source::new(path.display().to_string(), text.as_str())),
        None => Err(read_source(Path::new("no/such/file.yaml")).err().expect("there is none")),
    };
    let elsewhere = Host::new("nowhere", "out");
    let again = |text: &str| check_with(Source::new("x.yaml", text), &[], &nodes::REGISTRY, &elsewhere, &read);
    let again_graph = again(NESTED).graph.expect("a graph");
    assert_eq!(folder.keys(&graph), folder.keys(&again_graph));
    let missing = again(&NESTED.replace("folder: lib", "folder: bin"));
    assert_eq!(missing.diagnostics.iter().map(|d| d.code).collect::<Vec<_>>(), ["file"]);
}

#[test]
fn errors_after_the_check_are_located_in_the_inner_file() {
    let folder = nested();
    let graph = folder.graph("nested.yaml", &[]);
    let at = |name: &str, path| {
        let node = graph.order().iter().find(|&&node| &*graph.node(node).name == name).expect("a node");
        let label = graph.locate(*node, path);
        let file = Path::new(label.source.name()).file_name().expect("a name").to_string_lossy().into_owned();
        (file, label.source.slice(label.span).to_string())
    };
    let expect = |file: &str, text: &str| (file.to_string(), text.to_string());
    assert_eq!(at("a/b/up", "width"), expect("inner.yaml", "${size}"));
    assert_eq!(at("a/b/up", ""), expect("inner.yaml", "up"));
    assert_eq!(at("a/up", "height"), expect("middle.yaml", "8"));
    assert_eq!(at("save", "path"), expect("nested.yaml", "a.png"));
}

/// A file for each level, each with two nodes that include the next.
fn bomb(levels: usize, uses: usize) -> Folder {
    let folder = Folder::new(&[]);
    for level in 0..levels {
        let mut text = String::from("lsregen: 1\nnodes:\n  up: { type: Upsample, image: n0, width: 8, height: 8 }\n");
        for i in 0..uses {
            text.push_str(&format!("  n{i}: {{ type: l{}.yaml }}\n", level + 1));
        }
        text.push_str("outputs: { image: up }\n");
        folder.write(&format!("l{level}.yaml"), text);
    }
    let leaf = "lsregen: 1\nnodes:\n  up: { type: LoadImage, path: picture.png }\noutputs: { image: up }\n";
    folder.write(&format!("l{levels}.yaml"), leaf);
    folder.write("picture.png", "p");
    folder
}

#[test]
fn graphs_that_grow_are_refused() {
    let start = Instant::now();
    let folder = bomb(12, 9);
    let checked = folder.check("l0.yaml", &[]);
    let codes: Vec<_> = checked.diagnostics.iter().map(|diagnostic| diagnostic.code).collect();
    assert_eq!(codes, ["too-large"], "{}", folder.drawn(&checked));
    assert_eq!(folder.codes("l10.yaml").iter().filter(|code| **code != "no-output").count(), 8, "81 uses are few");
    let deep = bomb(20, 1);
    assert_eq!(deep.codes("l0.yaml"), ["too-deep"]);
    assert!(deep.check("l5.yaml", &[]).graph.is_some());
    // Many files.
    let mut text = String::from("lsregen: 1\nnodes:\n");
    (0..2000).for_each(|i| text.push_str(&format!("  n{i}: {{ type: x{i}.yaml }}\n")));
    let many = Folder::new(&[("many.yaml", &text)]);
    let codes = many.codes("many.yaml");
    assert_eq!((codes.len(), codes.last()), (1001, Some(&"too-large")));
    assert!(start.elapsed() < Duration::from_secs(60), "not of the order of seconds");
}

/// An invalid file that is included often does not fill the memory with its errors.
#[test]
fn many_uses_of_an_invalid_file() {
    let mut faulty = String::from("lsregen: 1\nnodes:\n");
    (0..100).for_each(|i| faulty.push_str(&format!("  n{i}: {{ type: Nix{i} }}\n")));
    faulty.push_str("outputs: { image: n0 }\n");
    let mut text = String::from("lsregen: 1\nnodes:\n");
    (0..1000).for_each(|i| text.push_str(&format!("  n{i}: {{ type: faulty.yaml }}\n")));
    let folder = Folder::new(&[("graph.yaml", &text), ("faulty.yaml", &faulty)]);
    assert_eq!(folder.codes("graph.yaml").len(), 100);
}

#[test]
fn damaged_nested_graphs_are_reported_and_never_panic() {
    let mut dice = Dice(3);
    for round in 0..4_000 {
        let (mut outer, mut middle, mut inner) = (OUTER.to_string(), MIDDLE.to_string(), INNER.to_string());
        let hit = [&mut outer, &mut middle, &mut inner].into_iter().nth(round % 3);
        hit.into_iter().for_each(|text| damage(text, &mut dice));
        let outer = outer.replace("type: inner.yaml, size: 64", "type: middle.yaml, size: 64");
        let outer = outer.replace("image: b,", "image: b.larger,");
        let read = |path: &Path| match path.to_str() {
            Some("middle.yaml") => Ok(Source::new("middle.yaml", middle.as_str())),
            Some("inner.yaml" | "deep/inner.yaml") => Ok(Source::new("inner.yaml", inner.as_str())),
            _ => Err(read_source(Path::new("no/such/file.yaml")).err().expect("there is none")),
        };
        let outcome = std::panic::catch_unwind(|| {
            let source = Source::new("outer.yaml", outer.as_str());
            assert_sound(&check_with(source, &[], &nodes::REGISTRY, &Host::new(".", "out"), &read));
        });
        assert!(outcome.is_ok(), "round {round}: {outer:?} {middle:?} {inner:?}");
    }
}

/// Opening a pipe would wait for a writer.
#[cfg(unix)]
#[test]
fn a_pipe_is_no_file() {
    let folder = Folder::new(&[("outer.yaml", "lsregen: 1\nnodes: { a: { type: pipe.yaml } }\n")]);
    let made = std::process::Command::new("mkfifo").arg(folder.0.path().join("pipe.yaml")).status();
    assert!(made.is_ok_and(|status| status.success()), "mkfifo");
    let checked = folder.check("outer.yaml", &[]);
    let message = &checked.diagnostics[0].message;
    assert!(message.ends_with("is a pipe or a device, but a file is needed"), "{message}");
}
