//! The world of shapes equals Python's: fixtures/shapes.py.

use std::fs;
use std::path::Path;

use lsregen_evaluation::rows::shapes::{Scene, SceneSplit, TEST_SEED, TUNE_SEED, rows, scenes};
use lsregen_evaluation::rows::{PythonRandom, Row};
use serde::Deserialize;

#[derive(Deserialize)]
struct Fixture {
    random: Vec<Numbers>,
    samples: Vec<Sampled>,
    scenes: Vec<Drawn>,
    odd: Vec<Layout>,
    sets: Sets,
}

/// A float that is written as a text.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(try_from = "String")]
struct Exact(f64);

impl TryFrom<String> for Exact {
    type Error = std::num::ParseFloatError;

    fn try_from(text: String) -> Result<Exact, Self::Error> {
        text.parse().map(Exact)
    }
}

#[derive(Deserialize)]
struct Numbers {
    seed: u64,
    first: [Exact; 3],
    last: [Exact; 3],
    below: Vec<u32>,
}

#[derive(Deserialize)]
struct Sampled {
    n: usize,
    count: usize,
    seed: u64,
    /// The first 50.
    indices: Vec<usize>,
}

#[derive(Deserialize)]
struct Drawn {
    seed: u64,
    ground: String,
    objects: Vec<(String, String, [Exact; 4])>,
    caption: String,
}

#[derive(Deserialize)]
struct Sets {
    tune: Vec<Layout>,
    test: Vec<Layout>,
}

#[derive(Deserialize)]
struct Layout {
    id: usize,
    prompt: String,
    ground: String,
    seed_small: u64,
    seed_large: u64,
    boxes: Vec<Box>,
}

#[derive(Deserialize)]
struct Box {
    phrase: String,
    #[serde(rename = "box")]
    bounds: [Exact; 4],
}

fn fixture() -> Fixture {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/shapes.json");
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

#[test]
fn random_numbers_are_pythons() {
    for Numbers { seed, first, last, below } in fixture().random {
        let mut random = PythonRandom::new(seed);
        let values: Vec<_> = (0..700).map(|_| Exact(random.random())).collect();
        assert_eq!((&values[..3], &values[697..]), (&first[..], &last[..]), "{seed}");
        assert_eq!((1..40).map(|n| random.below(n)).collect::<Vec<_>>(), below, "{seed}");
    }
    for Sampled { n, count, seed, indices } in fixture().samples {
        let drawn = PythonRandom::new(seed).sample(n, count);
        assert_eq!(drawn.len(), count);
        assert_eq!(drawn[..indices.len()], indices, "{n} {count} {seed}");
    }
}

#[test]
fn scenes_and_captions_are_those_of_the_recipe() {
    let drawn = fixture().scenes;
    assert!(drawn.len() >= 200);
    for stream in drawn.chunk_by(|a, b| a.seed == b.seed) {
        let mut random = PythonRandom::new(stream[0].seed);
        for expected in stream {
            let scene = Scene::sample(&mut random);
            assert_eq!((scene.ground, scene.caption()), (&*expected.ground, expected.caption.clone()));
            let objects = scene.shapes.iter().map(|s| (s.colour.to_string(), s.shape.to_string(), s.bounds.map(Exact)));
            assert_eq!(objects.collect::<Vec<_>>(), expected.objects);
        }
        let all = scenes(stream.len(), stream[0].seed, SceneSplit::All);
        assert!(all.iter().map(Scene::caption).eq(stream.iter().map(|scene| scene.caption.clone())));
    }
}

fn assert_equal(rows: &[Row], layouts: &[Layout]) {
    assert_eq!(rows.len(), layouts.len());
    for (row, layout) in rows.iter().zip(layouts) {
        assert_eq!(row.id, format!("{:04}", layout.id));
        assert!(row.prompt == layout.prompt && row.prompt.ends_with(&layout.ground));
        assert_eq!((row.seed_small, row.seed_large), (layout.seed_small, layout.seed_large));
        let boxes = row.boxes.iter().map(|shape| (shape.phrase.as_str(), shape.bounds.map(Exact)));
        assert!(boxes.eq(layout.boxes.iter().map(|shape| (shape.phrase.as_str(), shape.bounds))), "{}", row.id);
    }
}

#[test]
fn the_sets_are_those_of_the_evaluation() {
    let fixture = fixture();
    assert_equal(&rows(100, TUNE_SEED, SceneSplit::Alternate), &fixture.sets.tune);
    assert_equal(&rows(100, TEST_SEED, SceneSplit::Alternate), &fixture.sets.test);
    assert_equal(&rows(7, 3, SceneSplit::Alternate), &fixture.odd);
}

#[test]
fn splits_are_parts_of_one_stream() {
    let all = scenes(100, 1, SceneSplit::All);
    let (one, more): (Vec<_>, Vec<_>) = all.into_iter().partition(|scene| scene.shapes.len() == 1);
    assert_eq!(scenes(one.len(), 1, SceneSplit::Single), one);
    assert_eq!(scenes(more.len(), 1, SceneSplit::Multi), more);
    assert!(rows(0, 1, SceneSplit::Alternate).is_empty());
}
