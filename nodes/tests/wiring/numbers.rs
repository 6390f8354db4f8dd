//! Tests parameters that change pixels within a node by the values of these pixels.

use lsregen_engine::EdgeValue;
use lsregen_nodes::values::Image;
use lsregen_tensor::image::{Resampling, resize};
use serde_json::json;

use crate::asked::Bench;
use crate::inputs::{Inputs, image, run};

fn numbers(image: &EdgeValue) -> Vec<f32> {
    image.get::<Image>().unwrap().tensor().unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

/// The result is `opacity` of the map plus 1 − `opacity` of the image.
#[test]
fn attention_maps_are_laid_over_the_image() {
    let inputs = Inputs::new(Bench::new().path());
    let ground = image(48, 32);
    let map = |opacity: f64, is_over: bool| {
        let over = if is_over { vec![EdgeValue::new(ground.clone())] } else { vec![] };
        let [latent, _] = inputs.latent.clone();
        let params = json!({ "prompt": "a red circle", "phrase": "red circle", "opacity": opacity });
        numbers(&run("AttentionMap", params, vec![vec![inputs.xl[0].clone()], vec![latent], over]))
    };
    let alone = map(0.5, false);
    let fitted = resize(&ground.tensor().unwrap(), 64, 64, Resampling::Bicubic).unwrap().clamp(-1f32, 1f32).unwrap();
    let fitted: Vec<f32> = fitted.flatten_all().unwrap().to_vec1().unwrap();
    for opacity in [0.0, 0.25, 1.0] {
        let mixed = alone.iter().zip(&fitted).map(|(map, image)| map * opacity + image * (1.0 - opacity));
        let far = mixed.zip(map(opacity.into(), true)).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(far < 0.05, "{opacity}: {far}");
    }
}

/// Boxes with labels cover more pixels than boxes alone.
#[test]
fn labels_are_drawn_only_on_request() {
    let picture = image(128, 128);
    let [layout, _] = Inputs::new(Bench::new().path()).layout;
    let drawn = |labels: bool| {
        let links = vec![vec![EdgeValue::new(picture.clone())], vec![layout.clone()]];
        let image = numbers(&run("DrawLayout", json!({ "labels": labels }), links));
        image.iter().zip(numbers(&EdgeValue::new(picture.clone()))).filter(|(a, b)| (*a - b).abs() > 0.05).count()
    };
    assert!(drawn(true) > drawn(false) && drawn(false) > 0);
}
