//! Layouts of the built-in world of shapes: the scenes of `models/shapes/recipe/world.py` and the sets of
//! `tools/evaluation/evaluate.py`, equal to theirs bit for bit.

use super::python_random::PythonRandom;
use super::row::{Row, RowBox};

/// The colours of the world.
const COLOURS: [&str; 6] = ["red", "green", "blue", "yellow", "purple", "white"];
const SHAPES: [&str; 4] = ["circle", "square", "triangle", "star"];
const GROUNDS: [&str; 4] = ["sand", "slate", "moss", "clay"];

/// The side in pixels of the images of `shapes/xl`.
const SIDE: u32 = 256;

/// The seed of the scenes on which settings were chosen.
pub const TUNE_SEED: u64 = 77;

/// The seed of the scenes on which results are reported.
pub const TEST_SEED: u64 = 21;

/// A shape in a scene.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shape {
    /// The name of its colour.
    pub colour: &'static str,
    /// Its name.
    pub shape: &'static str,
    /// x0 y0 x1 y1 in fractions of the image.
    pub bounds: [f64; 4],
}

/// A scene: shapes on a ground. Their boxes do not overlap.
#[derive(Clone, Debug, PartialEq)]
pub struct Scene {
    /// The name of the ground.
    pub ground: &'static str,
    /// One to three shapes, no two of the same name and colour.
    pub shapes: Vec<Shape>,
}

impl Scene {
    /// Draws a scene: `sample_scene` of world.py.
    pub fn sample(random: &mut PythonRandom) -> Scene {
        let n = random.choice(&[1, 2, 2, 3]);
        let mut shapes: Vec<Shape> = vec![];
        for _ in 0..60 {
            if shapes.len() == n {
                break;
            }
            let mut side = random.uniform(0.22, 0.55);
            if n == 3 {
                side = side.min(0.40);
            }
            let aspect = random.uniform(0.92, 1.08);
            let (w, h) = ((side * aspect).min(0.9), (side / aspect).min(0.9));
            let x = random.uniform(0.03, 0.97 - w);
            let y = random.uniform(0.03, 0.97 - h);
            let bounds = [x, y, x + w, y + h];
            if shapes.iter().any(|shape| touch(bounds, shape.bounds)) {
                continue;
            }
            let (colour, shape) = (random.choice(&COLOURS), random.choice(&SHAPES));
            if !shapes.iter().any(|other| (other.colour, other.shape) == (colour, shape)) {
                shapes.push(Shape { colour, shape, bounds });
            }
        }
        Scene { ground: random.choice(&GROUNDS), shapes }
    }

    /// Returns the caption: `a red circle and a blue star on sand`.
    pub fn caption(&self) -> String {
        let names: Vec<_> = self.shapes.iter().map(Shape::phrase).collect();
        format!("{} on {}", names.join(" and "), self.ground)
    }
}

impl Shape {
    /// Returns its phrase: `a red circle`.
    pub fn phrase(&self) -> String {
        format!("a {} {}", self.colour, self.shape)
    }
}

/// Whether two boxes are closer to each other than 0.04.
fn touch(a: [f64; 4], b: [f64; 4]) -> bool {
    let near = |at: usize| a[at + 2].min(b[at + 2]) + 0.02 > a[at].max(b[at]) - 0.02;
    near(0) && near(1)
}

/// Which scenes of the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SceneSplit {
    /// Alternately one with one shape and one with more, as in evaluate.py.
    Alternate,
    /// Scenes with one shape.
    Single,
    /// Scenes with two or three shapes.
    Multi,
    /// All, as they are drawn.
    All,
}

/// Draws `count` scenes. [`SceneSplit::Alternate`] are those of `scenes(count, seed)` in evaluate.py.
pub fn scenes(count: usize, seed: u64, split: SceneSplit) -> Vec<Scene> {
    let mut random = PythonRandom::new(seed);
    let mut drawn = std::iter::repeat_with(|| Scene::sample(&mut random));
    match split {
        SceneSplit::All => drawn.take(count).collect(),
        SceneSplit::Single => drawn.filter(|scene| scene.shapes.len() == 1).take(count).collect(),
        SceneSplit::Multi => drawn.filter(|scene| scene.shapes.len() > 1).take(count).collect(),
        SceneSplit::Alternate => {
            let (mut one, mut more) = (vec![], vec![]);
            while one.len().min(more.len()) < count.div_ceil(2) {
                let Some(scene) = drawn.next() else { break };
                if scene.shapes.len() > 1 { more.push(scene) } else { one.push(scene) }
            }
            one.into_iter().zip(more).flat_map(<[Scene; 2]>::from).take(count).collect()
        }
    }
}

/// Returns `count` rows with the seeds of `layouts(count, seed)` in evaluate.py: for the row i, `seed_small` is
/// 2 (1000 `seed` + i), and `seed_large` is one more. `seed` is `seed_small`.
pub fn rows(count: usize, seed: u64, split: SceneSplit) -> Vec<Row> {
    let scenes = scenes(count, seed, split).into_iter();
    let row = |(i, scene): (usize, Scene)| {
        let at = seed.wrapping_mul(1000).wrapping_add(i as u64).wrapping_mul(2);
        let boxes = scene.shapes.iter().map(|shape| RowBox { phrase: shape.phrase(), bounds: shape.bounds });
        Row {
            id: format!("{i:04}"),
            prompt: scene.caption(),
            boxes: boxes.collect(),
            width: SIDE,
            height: SIDE,
            seed: at,
            seed_small: at,
            seed_large: at.wrapping_add(1),
        }
    };
    scenes.enumerate().map(row).collect()
}
