//! The renderer of the world of shapes equals the recipe's: fixtures/render.py.

use std::fs;
use std::path::Path;

use lsregen_evaluation::rows::render;
use lsregen_evaluation::rows::shapes::{Scene, Shape};
use serde::Deserialize;

/// How far a value in 0..1 may be from the recipe's.
const TOLERANCE: f64 = 1e-4;

#[derive(Deserialize)]
struct Picture {
    side: usize,
    seed: u64,
    ground: String,
    objects: Vec<(String, String, [String; 4])>,
    rows: Vec<PixelRow>,
    /// Of the cells of a grid, in millionths, channel by channel.
    means: Vec<i64>,
    squares: Vec<i64>,
}

#[derive(Deserialize)]
struct PixelRow {
    row: usize,
    /// In millionths, channel by channel.
    values: Vec<i64>,
}

fn fixture() -> Vec<Picture> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/render.json");
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

fn text(name: &str) -> &'static str {
    name.to_string().leak()
}

fn scene(picture: &Picture) -> Scene {
    let shape = |(colour, shape, bounds): &(String, String, [String; 4])| Shape {
        colour: text(colour),
        shape: text(shape),
        bounds: bounds.each_ref().map(|value| value.parse().unwrap()),
    };
    Scene { ground: text(&picture.ground), shapes: picture.objects.iter().map(shape).collect() }
}

fn assert_close(values: &[f64], millionths: &[i64], what: &str) {
    assert_eq!(values.len(), millionths.len(), "{what}");
    for (i, (value, expected)) in values.iter().zip(millionths).enumerate() {
        let expected = *expected as f64 * 1e-6;
        assert!((value - expected).abs() <= TOLERANCE, "{what}, value {i}: {value} instead of {expected}");
    }
}

/// Means over the cells of PyTorch's `adaptive_avg_pool2d`, which overlap if they do not divide the side.
fn means(values: &[f64], side: usize) -> Vec<f64> {
    let cells = side.min(8);
    let span = |cell: usize| cell * side / cells..((cell + 1) * side).div_ceil(cells);
    let mean = |channel: usize, cy: usize, cx: usize| {
        let cell = span(cy).flat_map(|y| span(cx).map(move |x| values[(channel * side + y) * side + x]));
        cell.sum::<f64>() / (span(cy).len() * span(cx).len()) as f64
    };
    (0..3).flat_map(|c| (0..cells * cells).map(move |i| (c, i))).map(|(c, i)| mean(c, i / cells, i % cells)).collect()
}

#[test]
fn pictures_are_those_of_the_recipe() {
    let pictures = fixture();
    assert!([128, 256, 75].iter().all(|side| pictures.iter().any(|picture| picture.side == *side)));
    for picture in pictures {
        let side = picture.side;
        let what = format!("{side} pixels, seed {}", picture.seed);
        let tensor = render(&scene(&picture), side, picture.seed).unwrap();
        assert_eq!(tensor.dims(), [1, 3, side, side]);
        let values = tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let values: Vec<f64> = values.into_iter().map(|value| (f64::from(value) + 1.0) / 2.0).collect();
        for PixelRow { row, values: expected } in &picture.rows {
            let own: Vec<f64> = (0..3).flat_map(|c| &values[(c * side + row) * side..][..side]).copied().collect();
            assert_close(&own, expected, &format!("{what}, row {row}"));
        }
        assert_close(&means(&values, side), &picture.means, &format!("{what}, means"));
        let squares: Vec<f64> = values.iter().map(|value| value * value).collect();
        assert_close(&means(&squares, side), &picture.squares, &format!("{what}, squares"));
    }
}

#[test]
fn what_cannot_be_rendered_is_an_error() {
    let shape = Shape { colour: "red", shape: "circle", bounds: [0.2, 0.2, 0.6, 0.6] };
    let error = |ground, shape, side| {
        let error = render(&Scene { ground, shapes: vec![shape] }, side, 0).unwrap_err();
        error.to_string()
    };
    assert!(error("sand", shape, 0).contains("at least 1 pixel"));
    assert!(error("sea", shape, 8).contains("`sea`"));
    assert!(error("sand", Shape { colour: "pink", ..shape }, 8).contains("`pink`"));
    assert!(error("sand", Shape { shape: "cube", ..shape }, 8).contains("`cube`"));
    for bounds in [[0.5; 4], [0.6, 0.2, 0.2, 0.6], [0.2, f64::NAN, 0.6, 0.6]] {
        assert!(error("sand", Shape { bounds, ..shape }, 8).contains("a red circle has an empty box"));
    }
    assert!(render(&Scene { ground: "sand", shapes: vec![] }, usize::MAX, 0).is_err());
}
