//! From a text to a graph or diagnostics.

mod faults;
mod graphs;
mod includes;
mod nodes;
mod places;
mod reference;
mod resolved;
mod texts;
mod workflow_schema;

use lsregen_engine::{Checked, Host, Override, Source, check, render};

/// A workflow without errors and warnings. The other tests damage it.
pub const GOOD: &str = "\
lsregen: 1
about: A layout, drawn large.
params:
  prompt: a red circle and a blue square on sand
  seed: 7
nodes:
  small: { type: LoadModel, model: shapes/gligen }
  large: { type: LoadModel, model: shapes/xl }
  layout:
    type: Layout
    model: small
    prompt: ${prompt}
    boxes:
      - { phrase: a red circle, box: [0.08, 0.15, 0.45, 0.55] }
      - { phrase: a blue square, box: [0.55, 0.50, 0.92, 0.90] }
    seed: ${seed}
  up: { type: Upsample, image: layout.image, width: 256, height: 256 }
  z0: { type: Encode, model: large, image: up }
  invert: { type: Invert, model: large, latent: z0 }
  sample: { type: Sample, model: large, guidance: [invert.guidance], prompt: \"${prompt}, sharp\" }
  image: { type: Decode, model: large, latent: sample }
  save: { type: SaveImage, image: image, path: out/picture.png }
";

pub fn host() -> Host {
    Host::new("tests/check/files", "out")
}

/// Checks a text as the file `graph.yaml`.
pub fn checked(text: &str, overrides: &[&str]) -> Checked {
    let overrides: Vec<_> = overrides.iter().map(|arg| Override::parse(arg).ok().expect("a proper override")).collect();
    check(Source::new("graph.yaml", text), &overrides, &nodes::REGISTRY, &host())
}

/// All diagnostics of a text.
pub fn report(text: &str, overrides: &[&str]) -> String {
    let checked = checked(text, overrides);
    assert_eq!(checked.graph.is_some(), !checked.diagnostics.iter().any(|d| d.is_error()));
    render(&checked.diagnostics, false)
}
