//! Warnings of nodes: the graph runs, but probably not as intended.

use super::{Code, nodes};

pub const CODES: [Code; 7] = [
    Code {
        name: "absent-phrase",
        summary: "the prompt lacks a phrase of the layout (warning)",
        explanation: "The layout has an object that the prompt does not name. The model draws what the prompt says, so the \
            object may be missing, or may leave its box. Name every object of the layout in the prompt. Guidances by \
            attention cannot work without the words; for them it is an error.",
        example: nodes(
            r"  small: { type: LoadModel, model: shapes/gligen }
  layout: { type: GLIGENLayout, model: small, prompt: sand, boxes: [{ phrase: a red star, box: [0, 0, 1, 1] }] }
  save: { type: SaveImage, image: layout.image, path: out/star.png }
",
            r"  small: { type: LoadModel, model: shapes/gligen }
  layout: { type: GLIGENLayout, model: small, prompt: a red star, boxes: [{ phrase: a red star, box: [0, 0, 1, 1] }] }
  save: { type: SaveImage, image: layout.image, path: out/star.png }
",
        ),
    },
    Code {
        name: "clamped",
        summary: "a part of a layout is not used as it is given (warning)",
        explanation: "A box reaches beyond the image and is clamped to it, or annotations of a COCO file are left out: those \
            of crowds, and those without area.",
        example: nodes(
            r"  layout: { type: Layout, boxes: [{ phrase: a circle, box: [-0.1, 0, 0.5, 0.5] }] }
  draw: { type: DrawLayout, image: image, layout: layout }
  save: { type: SaveImage, image: draw, path: out/boxes.png }
",
            r"  layout: { type: Layout, boxes: [{ phrase: a circle, box: [0, 0, 0.5, 0.5] }] }
  draw: { type: DrawLayout, image: image, layout: layout }
  save: { type: SaveImage, image: draw, path: out/boxes.png }
",
        ),
    },
    Code {
        name: "leftover-noise",
        summary: "The noise of a latent is not what the node that takes it expects (warning)",
        explanation: "A sampling with `leftover_noise` hands on a latent that still has noise. The sampling that continues has \
            `add_noise: false`, its `start_step` is the `end_step` of the first, and both have the same `steps`, `scheduler`, \
            `conventions` and `denoise`. Other nodes, such as Decode, take latents without noise.",
        example: nodes(
            r"  first: { type: SDXLSample, model: xl, prompt: sand, steps: 4, end_step: 2, leftover_noise: true }
  second: { type: SDXLSample, model: xl, prompt: sand, steps: 4, start_step: 2, latent: first }
  decoded: { type: Decode, model: xl, latent: second }
  save: { type: SaveImage, image: decoded, path: out/sand.png }
",
            r"  first: { type: SDXLSample, model: xl, prompt: sand, steps: 4, end_step: 2, leftover_noise: true }
  second: { type: SDXLSample, model: xl, prompt: sand, steps: 4, start_step: 2, latent: first, add_noise: false }
  decoded: { type: Decode, model: xl, latent: second }
  save: { type: SaveImage, image: decoded, path: out/sand.png }
",
        ),
    },
    Code {
        name: "no-effect",
        summary: "a parameter, a guidance or a key of a model's file has no effect (warning)",
        explanation: "Another parameter disables it. Without classifier-free guidance, which starts above `cfg: 1`, there is \
            no negative prompt, and a smaller `cfg` is the same as 1. A guidance has no effect if none of the sampling's \
            steps is in its `window`, or between its timesteps; `window: 0` asks for that, and is not reported. A key of \
            scheduler_config.json, such as `use_karras_sigmas`, has no effect if the `sampler` has no such setting, as in \
            diffusers; `sampler: auto` is the sampler of the file.",
        example: nodes(
            r"  other: { type: SDXLSample, model: xl, prompt: a circle, negative: a square, cfg: 1 }
  decoded: { type: Decode, model: xl, latent: other }
  save: { type: SaveImage, image: decoded, path: out/circle.png }
",
            r"  other: { type: SDXLSample, model: xl, prompt: a circle, negative: a square, cfg: 2 }
  decoded: { type: Decode, model: xl, latent: other }
  save: { type: SaveImage, image: decoded, path: out/circle.png }
",
        ),
    },
    Code {
        name: "not-downloaded",
        summary: "a model is not on this machine, so the check has not seen its files (warning)",
        explanation: "A run downloads the model first, and checks the graph again with it. Errors that depend on the model, \
            such as its family, may therefore appear only then.",
        example: nodes(
            r"  other: { type: LoadModel, model: hf:owner/name }
  save: { type: SaveImage, image: image, path: out/circle.png }
",
            r"  save: { type: SaveImage, image: image, path: out/circle.png }
",
        ),
    },
    Code {
        name: "prompt-syntax",
        summary: "the prompt has the syntax of another program (warning)",
        explanation: "`<lora:…>`, `embedding:…` and `__wildcard__` mean something in other programs. Here they are read as \
            plain text, like any word.",
        example: nodes(
            r"  sample: { type: SDXLSample, model: xl, prompt: a red circle on sand <lora:paper:0.8> }
",
            r"  sample: { type: SDXLSample, model: xl, prompt: a red circle on sand }
",
        ),
    },
    Code {
        name: "stretched",
        summary: "Upsample changes the proportions of an image (warning)",
        explanation: "The width and height of the result have other proportions than the image, so circles become ellipses. \
            Give the image the proportions of the result where it is made, or resize it by `factor`.",
        example: nodes(
            r"  up: { type: Upsample, image: image, width: 256, height: 128 }
  save: { type: SaveImage, image: up, path: out/circle.png }
",
            r"  up: { type: Upsample, image: image, width: 256, height: 256 }
  save: { type: SaveImage, image: up, path: out/circle.png }
",
        ),
    },
];
