//! `lsregen rows`: layouts of datasets, and that `lsregen run` takes the rows.

use std::fs;
use std::path::PathBuf;

use serde_json::{Value as Json, json};
use tempfile::TempDir;

use crate::{lsregen, outcome, repository};

const COCO: &str = r#"{"images": [{"id": 139, "width": 640, "height": 480}, {"id": 285, "width": 64, "height": 64}],
"annotations": [
{"id": 1, "image_id": 139, "category_id": 1, "area": 5, "iscrowd": 0, "bbox": [64, 48, 320, 240]},
{"id": 2, "image_id": 139, "category_id": 90, "area": 9, "iscrowd": 0, "bbox": [320, 240, 320, 240]},
{"id": 3, "image_id": 139, "category_id": 90, "area": 9, "iscrowd": 1, "bbox": [0, 0, 9, 9]},
{"id": 4, "image_id": 285, "category_id": 1, "area": 9, "iscrowd": 0, "bbox": [0, 0, 64, 32]}],
"categories": [{"id": 1, "name": "person"}, {"id": 90, "name": "umbrella"}]}"#;

struct Case {
    folder: TempDir,
}

impl Case {
    fn new() -> Case {
        let case = Case { folder: tempfile::tempdir().unwrap() };
        fs::write(case.path("instances.json"), COCO).unwrap();
        case
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Runs the command; returns stdout, stderr and the exit code.
    fn run(&self, arguments: &str) -> (String, String, i32) {
        outcome(lsregen().current_dir(self.folder.path()).args(arguments.split(' ')).output().unwrap())
    }

    fn rows(&self, name: &str) -> Vec<Json> {
        let text = fs::read_to_string(self.path(name)).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

#[test]
fn rows_of_coco_are_written_with_what_was_left_out() {
    let case = Case::new();
    let (stdout, stderr, code) = case.run("rows coco --annotations instances.json --split multi --out rows.jsonl");
    assert_eq!((stdout.as_str(), code), ("", 0), "{stderr}");
    let expected = "rows.jsonl: 1 row, of 2 images with 4 annotations\n  annotations left out\n    1  marks a crowd (`iscrowd`) \
                    (3)\n  images left out\n    1  only one object (285)\n";
    assert_eq!(stderr, expected);
    let row = json!({
        "id": "000000000139", "prompt": "an umbrella and a person",
        "boxes": [{"phrase": "umbrella", "box": [0.5, 0.5, 1.0, 1.0]}, {"phrase": "person", "box": [0.1, 0.1, 0.6, 0.6]}],
        "width": 1920, "height": 1440, "seed": 139
    });
    assert_eq!(case.rows("rows.jsonl"), [row]);

    // Stdout has the rows alone. LVIS has the same form.
    let options = "--split single --fields boxes=layout,seed --out -";
    let (stdout, stderr, code) = case.run(&format!("rows lvis --annotations instances.json {options}"));
    assert_eq!(code, 0, "{stderr}");
    let row = "{\"id\":\"000000000285\",\"layout\":[{\"phrase\":\"person\",\"box\":[0.0,0.0,1.0,0.5]}],\"seed\":285}\n";
    assert_eq!(stdout, row);
    assert!(stderr.starts_with("<stdout>: 1 row, of 2 images"), "{stderr}");
}

/// A graph whose images have the size of the model: it has no `width` and no `height`.
const GRAPH: &str = r#"
lsregen: 1
params: { prompt: "", boxes: [], seed: 0 }
nodes:
  model:  { type: LoadModel, model: shapes/gligen }
  layout: { type: GLIGENLayout, model: model, prompt: "${prompt}", boxes: "${boxes}", seed: "${seed}", steps: 1 }
  save:   { type: SaveImage, image: layout.image, path: out/a.png }
"#;

#[test]
fn a_run_takes_the_rows_of_its_graph() {
    let case = Case::new();
    fs::write(case.path("graph.yaml"), GRAPH).unwrap();
    fs::write(case.path("captions.json"), r#"{"139": "someone in the rain", "285": "a person"}"#).unwrap();
    let captions = "--captions captions.json --without-caption error";
    let (_, stderr, code) =
        case.run(&format!("rows coco --annotations instances.json {captions} --graph graph.yaml --out rows.jsonl"));
    assert!(code == 0 && stderr.contains("1  the caption lacks a phrase of the boxes (139)"), "{stderr}");
    assert_eq!(case.rows("rows.jsonl")[0]["prompt"], "someone in the rain");
    assert_eq!(
        case.rows("rows.jsonl")[0].as_object().unwrap().keys().collect::<Vec<_>>(),
        ["id", "prompt", "boxes", "seed"]
    );
    let run = "run graph.yaml --inputs rows.jsonl --device cpu --output-dir out --quiet";
    let (_, stderr, code) = case.run(run);
    assert_eq!(code, 0, "{stderr}");
    assert!(case.path("out/000000000139/out").is_dir() && case.path("out/000000000285/out").is_dir());
}

#[test]
fn rows_of_shapes_are_the_sets_of_the_evaluation() {
    let case = Case::new();
    fs::write(case.path("graph.yaml"), GRAPH).unwrap();
    let (_, stderr, code) = case.run("rows shapes --set tune --count 3 --graph graph.yaml --out rows.jsonl");
    assert_eq!((stderr.as_str(), code), ("rows.jsonl: 3 rows\n", 0));
    let fixture = fs::read_to_string(repository("src/evaluation/tests/fixtures/shapes.json")).unwrap();
    let fixture: Json = serde_json::from_str(&fixture).unwrap();
    for (i, row) in case.rows("rows.jsonl").iter().enumerate() {
        let layout = &fixture["sets"]["tune"][i];
        assert_eq!((&row["prompt"], &row["seed"]), (&layout["prompt"], &layout["seed_small"]));
    }
    let fields = "--fields prompt,seed_small,seed_large";
    let (stdout, _, _) = case.run(&format!("rows shapes --world-seed 5 --split single --count 1 {fields} --out -"));
    let row: Json = serde_json::from_str(&stdout).unwrap();
    assert_eq!((&row["id"], &row["seed_small"], &row["seed_large"]), (&json!("0000"), &json!(10000), &json!(10001)));
}

#[test]
fn yolo_names_and_images_are_found_beside_the_labels() {
    let case = Case::new();
    for folder in ["data/labels/val", "data/images/val"] {
        fs::create_dir_all(case.path(folder)).unwrap();
    }
    fs::write(case.path("data/labels/val/a.txt"), "1 0.5 0.5 0.5 0.5\n").unwrap();
    fs::copy(repository("docs/compare.png"), case.path("data/images/val/a.png")).unwrap();
    let rows = "rows yolo --labels data/labels/val --fields prompt,boxes --out -";
    let (_, stderr, code) = case.run(rows);
    assert!(code == 2 && stderr.contains("there is no data.yaml, dataset.yaml, classes.txt, obj.names"), "{stderr}");
    for names in ["nc: 2\nnames: [person, car]\n", "names:\n  0: person\n  1: car\n"] {
        fs::write(case.path("data/data.yaml"), names).unwrap();
        let (stdout, stderr, code) = case.run(rows);
        assert_eq!(code, 0, "{stderr}");
        let row =
            "{\"id\":\"a\",\"prompt\":\"a car\",\"boxes\":[{\"phrase\":\"car\",\"box\":[0.25,0.25,0.75,0.75]}]}\n";
        assert_eq!(stdout, row, "{names}");
    }
    fs::write(case.path("classes.txt"), "person\nbicycle\n").unwrap();
    let (stdout, stderr, _) = case.run("rows yolo --labels data/labels/val --names classes.txt --size 64x64 --out -");
    assert!(stdout.contains("a bicycle") && stdout.contains("\"width\":192"), "{stdout}{stderr}");
}

#[test]
fn errors_say_what_to_do_and_leave_the_former_file() {
    let case = Case::new();
    fs::write(case.path("rows.jsonl"), "former").unwrap();
    fs::write(case.path("none.yaml"), "lsregen: 1\nparams: { steps: 1 }\nnodes: {}\n").unwrap();
    fs::write(case.path("broken.json"), "{\"images\": [],\n\"annotations\": [{\"image_id\": 1}, 5]}").unwrap();
    let coco = "rows coco --annotations instances.json --out rows.jsonl";
    for (arguments, code, words) in [
        ("rows coco --annotations gone.json --out rows.jsonl".to_string(), 2, "gone.json: No such file"),
        ("rows coco --annotations broken.json --out rows.jsonl".into(), 2, "element 1: invalid type: integer `5`"),
        (format!("{coco} --fields promt"), 2, "did you mean `prompt`? A row has prompt, boxes, width, height, seed"),
        (format!("{coco} --fields prompt=seed,seed"), 2, "two values of `seed`"),
        (format!("{coco} --fields seed_small"), 2, "A row has prompt"),
        (format!("{coco} --graph none.yaml"), 2, "the graph has none of the parameters prompt, boxes"),
        (format!("{coco} --scale 0"), 2, "write a number from 0.01 to 1000"),
        (format!("{coco} --captions gone.json"), 2, "gone.json: No such file"),
        (format!("{coco} --limit 0"), 1, "no rows, of 2 images with 4 annotations"),
        ("rows coco --annotations instances.json --out gone/rows.jsonl".into(), 1, "cannot be written"),
        ("rows shapes --count 0 --out rows.jsonl".into(), 2, "0 is not in 1.."),
        ("rows yolo --labels . --size 64 --out rows.jsonl".into(), 2, "such as 640x480"),
    ] {
        let (stdout, stderr, found) = case.run(&arguments);
        assert!(stdout.is_empty() && found == code && stderr.contains(words), "{arguments}: {found} {stderr}");
    }
    assert_eq!(fs::read_to_string(case.path("rows.jsonl")).unwrap(), "former");
}
