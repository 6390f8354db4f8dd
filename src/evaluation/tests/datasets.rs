//! Rows of files in the forms of COCO, LVIS and YOLO, and captions in all their forms.

use std::fs;
use std::path::{Path, PathBuf};

use lsregen_evaluation::rows::yolo::{self, ImageSizes, class_list};
use lsregen_evaluation::rows::{
    Assembly, Captions, Dataset, MissingCaption, Reason, Row, RowField, Sample, SizeRule, Split, assemble, coco,
};
use tempfile::TempDir;

fn quirks() -> Dataset {
    coco::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/quirks.json")).unwrap()
}

fn how(split: Split) -> Assembly<'static> {
    Assembly {
        split,
        most_objects: 30,
        captions: None,
        missing: MissingCaption::Names,
        size: SizeRule::default(),
        sample: None,
        limit: None,
    }
}

/// The rows as they are written, then the report.
fn shown(mut dataset: Dataset, how: &Assembly) -> String {
    let rows = assemble(&mut dataset, how).unwrap();
    let fields = [RowField::Prompt, RowField::Boxes, RowField::Width, RowField::Height, RowField::Seed];
    let fields = fields.map(|field| (field, field.name().to_string()));
    let lines: String = rows.iter().map(|row| row.line(&fields)).collect();
    format!("{lines}\n{}", dataset.report)
}

struct Folder(TempDir);

impl Folder {
    fn new() -> Folder {
        Folder(tempfile::tempdir().unwrap())
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path
    }
}

#[test]
fn every_quirk_of_coco_has_its_outcome() {
    insta::assert_snapshot!("single", shown(quirks(), &how(Split::Single)));
    insta::assert_snapshot!("multi", shown(quirks(), &how(Split::Multi)));
    insta::assert_snapshot!("all", shown(quirks(), &Assembly { most_objects: 2, ..how(Split::All) }));
}

#[test]
fn every_annotation_is_in_a_row_or_counted() {
    for split in [Split::Single, Split::Multi, Split::All] {
        let mut dataset = quirks();
        let rows = assemble(&mut dataset, &how(split)).unwrap();
        let report = &dataset.report;
        let count = |reasons: &[Reason]| reasons.iter().map(|reason| report.count(*reason)).sum::<usize>();
        use Reason::*;
        let images = [RepeatedImage, NoSize, NoObjects, OneObject, SeveralObjects];
        assert_eq!(rows.len() + count(&images), report.images, "{split:?}");
        let invalid =
            [Crowd, NoBox, NotFinite, NoArea, Outside, NoImage, UnknownCategory, ImageWithoutSize, RepeatedAnnotation];
        let valid: usize = dataset.images.iter().map(|image| image.objects.len()).sum();
        assert_eq!(valid + count(&invalid), report.annotations, "{split:?}");
        for (row, shape) in rows.iter().flat_map(|row| row.boxes.iter().map(move |shape| (row, shape))) {
            let [x0, y0, x1, y1] = shape.bounds;
            assert!(0.0 <= x0 && x0 < x1 && x1 <= 1.0 && 0.0 <= y0 && y0 < y1 && y1 <= 1.0, "{}", row.id);
        }
    }
}

#[test]
fn samples_and_limits_keep_the_order() {
    let ids = |how: &Assembly| -> Vec<String> {
        assemble(&mut quirks(), how).unwrap().into_iter().map(|row| row.id).collect()
    };
    let all = ids(&how(Split::All));
    assert_eq!(ids(&Assembly { limit: Some(2), ..how(Split::All) }), all[..2]);
    let sample = Assembly { sample: Some(Sample { count: 3, seed: 4 }), ..how(Split::All) };
    // sorted(random.Random(4).sample(range(8), 3))
    let expected: Vec<_> = [0, 2, 3].map(|i: usize| all[i].clone()).into();
    assert_eq!((all.len(), ids(&sample)), (8, expected));
    assert_eq!(ids(&Assembly { sample: Some(Sample { count: 99, seed: 0 }), ..how(Split::All) }), all);
}

/// Files that are not what they should be: the message names the file and says what to do.
#[test]
fn errors_name_the_file_the_place_and_the_remedy() {
    let folder = Folder::new();
    let start = "{\"images\": [{\"id\": 1, \"width\": 9, \"height\": 9}],\n\"categories\": [],\n\"annotations\": [\n";
    for (text, words) in [
        ("", "empty; download"),
        ("<html>", "not JSON"),
        ("[{\"image_id\": 1}]", "is a list, such as detections"),
        ("{}", "no `images` and `annotations`"),
        ("{\"images\": [], \"annotations\": []}", "no `categories`"),
        (&format!("{start}{{\"image_id\": 1, \"caption\": \"x\"}}]}}"), "give it as `--captions`"),
        (&format!("{start}{{\"image_id\": 1, \"segments_info\": []}}]}}"), "panoptic"),
        (&format!("{start}{{\"image_id\": 1}},\n{{\"id\": 5}}]}}"), "element 1: missing field `image_id` at line 5"),
        (
            &format!("{start}{{\"image_id\": 1, \"bbox\": \"x\"}}]}}"),
            "element 0: invalid type: string \"x\", expected a box",
        ),
        (&format!("{start}{{\"image_id\": 1, \"bbox\": [1, 2, [3], 4]}}]}}"), "expected a number at line 4"),
        (&format!("{start}{{\"image_id\": 1"), "element 0: EOF"),
        ("{\"images\": [{\"width\": 1}], \"annotations\": []}", "element 0: missing field `id` at line 1"),
    ] {
        let path = folder.write("a.json", text);
        let error = coco::read(&path).unwrap_err().to_string();
        assert!(error.contains(words) && error.starts_with(path.to_str().unwrap()), "{text}: {error}");
    }
    let error = coco::read(&folder.0.path().join("none.json")).unwrap_err().to_string();
    assert!(error.contains("none.json: No such file"), "{error}");
}

#[test]
fn lvis_names_become_phrases() {
    let lvis = r#"{"info": {}, "images": [
        {"id": 397133, "width": 640, "height": 427, "neg_category_ids": [5], "not_exhaustive_category_ids": [], "coco_url": "u"}],
        "annotations": [
        {"id": 1, "area": 10.5, "image_id": 397133, "bbox": [64, 42.7, 64, 42.7], "category_id": 1203, "segmentation": [[1, 2]]},
        {"id": 2, "area": 99.5, "image_id": 397133, "bbox": [0, 0, 640, 427], "category_id": 2, "segmentation": [[1, 2]]}],
        "categories": [
        {"id": 2, "name": "bow_(weapon)", "synonyms": ["bow_(weapon)"], "def": "a weapon", "frequency": "r", "synset": "bow.n.04"},
        {"id": 1203, "name": "aerosol_can", "frequency": "c"}]}"#;
    let folder = Folder::new();
    let dataset = coco::read(&folder.write("lvis.json", lvis)).unwrap();
    insta::assert_snapshot!("lvis", shown(dataset, &how(Split::Multi)));
}

fn captioned(text: &str) -> Result<Captions, String> {
    Captions::read(&Folder::new().write("captions.json", text)).map_err(|error| error.to_string())
}

#[test]
fn captions_are_read_in_every_form() {
    let forms = [
        r#"{"info": {}, "images": [{"id": 139, "file_name": "x"}], "annotations": [
            {"image_id": 139, "id": 9, "caption": "later"}, {"image_id": 285, "id": 3, "caption": "two"},
            {"image_id": 139, "id": 8, "caption": "one\n  line"}]}"#,
        r#"[{"image_id": 139, "caption": "one line"}, {"caption": "two", "image_id": "000000000285"}, {"image_id": 4, "caption": " "}]"#,
        "{\"image_id\": 139, \"caption\": \"one line\"}\n\n{\"score\": 0.5, \"image_id\": 285, \"caption\": [\"two\", \"three\"]}\n",
        r#"{"139": "one line", "val2017/000000000285.jpg": ["two", "three"], "7": null}"#,
        r#"[{"id": 139, "text": "one line"}, {"file_name": "000000000285.jpg", "text": "two"}]"#,
        "\u{feff}{\"139\": \"one line\"}\n{\"285\": \"two\"}",
    ];
    for text in forms {
        let captions = captioned(text).unwrap();
        let of = |id| captions.of(&lsregen_evaluation::rows::Id::Number(id));
        assert_eq!((of(139), of(285), of(4), of(7)), (Some("one line"), Some("two"), None, None), "{text}");
    }
    for (text, words) in [
        ("", "no captions"),
        ("{\"annotations\": []}", "no captions"),
        ("[1]", "element 0: invalid type: integer `1`, expected captions"),
        ("{\"139\": 5}", "`139`: a caption must be a text"),
        ("[{\"139\": \"a\"}, {\"caption\": \"b\"}]", "element 1: a caption without `image_id` at line 1"),
        ("{\"139\": \"a\"", "EOF"),
        ("{\"139\": \"a\"}\n{\"140\": \"b", "EOF"),
        ("image_id,caption\n139,x", "expected value at line 1 column 1; write `["),
    ] {
        let error = captioned(text).unwrap_err();
        assert!(error.contains(words) && error.contains("captions.json: "), "{text}: {error}");
    }
}

#[test]
fn images_without_captions_are_named_left_out_or_refused() {
    let captions = captioned("{\"139\": \"A toothbrush (red) on a table\", \"a/b\": \"nobody\"}").unwrap();
    let how = |missing| Assembly { captions: Some(&captions), missing, ..how(Split::Single) };
    insta::assert_snapshot!("captions", shown(quirks(), &how(MissingCaption::Names)));
    let mut dataset = quirks();
    let rows = assemble(&mut dataset, &how(MissingCaption::LeaveOut)).unwrap();
    assert_eq!((rows.len(), dataset.report.count(Reason::NoCaption)), (2, 3));
    let error = assemble(&mut quirks(), &how(MissingCaption::Fail)).unwrap_err().to_string();
    assert!(error.contains("the image 1 has no caption"), "{error}");
    let others = captioned("{\"77\": \"x\"}").unwrap();
    let foreign = Assembly { captions: Some(&others), ..how(MissingCaption::Names) };
    let error = assemble(&mut quirks(), &foreign).unwrap_err().to_string();
    assert!(error.contains("they have the ids 77, …, but the annotations 1, 2, 3, …"), "{error}");
}

#[test]
fn yolo_labels_are_read_with_the_sizes_of_their_images() {
    let folder = Folder::new();
    let picture = |name: &str, width, height| {
        let path = folder.write(&format!("images/val/{name}"), "");
        image::RgbImage::new(width, height).save(path).unwrap();
    };
    picture("street 1.png", 200, 100);
    picture("000000000139.png", 64, 48);
    picture("3.png", 10, 10);
    folder.write(
        "labels/val/street 1.txt",
        "0 0.5 0.5 0.5 0.5\n2 0.1 0.1 0.1 0.1 0.9\r\n\n7 0.1 0.1 0.1 0.1\n1 0.9 0.9 0.4 0.4\n",
    );
    folder.write(
        "labels/val/000000000139.txt",
        "\u{feff}1 0.1 0.1 0.5 0.1 0.5 0.6 0.1 0.6\n0 nan 0.5 0.1 0.1\n0 0.5 0.5 0 0.1\n",
    );
    folder.write("labels/val/3.txt", "");
    folder.write("labels/val/0003.txt", "0 0.5 0.5 1 1");
    folder.write("labels/val/without image.txt", "0 0.5 0.5 1 1");
    folder.write("labels/val/classes.txt", "no labels");
    let labels = folder.0.path().join("labels/val");
    let names = class_list("person\nfire_hydrant\ncar\n");
    let sizes = ImageSizes::Folder(yolo::images_folder(&labels));
    let dataset = yolo::read(&labels, &names, &sizes).unwrap();
    let text = shown(dataset, &how(Split::All)).replace(labels.to_str().unwrap(), "labels").replace('\\', "/");
    insta::assert_snapshot!("yolo", text);
    let rows = |split| -> Vec<Row> {
        let mut dataset = yolo::read(&labels, &names, &ImageSizes::Same(100, 100)).unwrap();
        assemble(&mut dataset, &how(split)).unwrap()
    };
    assert_eq!(rows(Split::Multi).len(), 1);
    assert_eq!((rows(Split::Single).len(), rows(Split::Single)[0].width), (3, 288));
    for (text, words) in [
        ("0 0.5 0.5 0.1\n", "a.txt:1: the class is followed by 3 numbers"),
        ("0 0.5 0.5 1 1\nperson 0.5 0.5 1 1", "a.txt:2: `person` is not the number of a class"),
        ("0 0.5 0.5 1 x", "`x` is not a number; a line is `class x y width height`"),
    ] {
        let path = folder.write("bad/a.txt", text);
        let error = yolo::read(path.parent().unwrap(), &names, &ImageSizes::Same(9, 9)).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
    let empty = folder.0.path().join("empty");
    fs::create_dir(&empty).unwrap();
    assert!(yolo::read(&empty, &names, &sizes).unwrap_err().to_string().contains("has no labels"));
    let error = yolo::read(&labels, &names, &ImageSizes::Folder(empty)).unwrap_err().to_string();
    assert!(error.contains("has no images") && error.contains("--size"), "{error}");
}
