//! Codes of single nodes: their types, keys and values.

use super::{Code, nodes, other};

pub const CODES: [Code; 10] = [
    Code {
        name: "missing-type",
        summary: "a node has no `type`",
        explanation: "Every node names its type. `lsregen nodes` lists the types; a path that ends in `.yaml` or `.yml` \
            is a graph file used as a node.",
        example: nodes(
            r"  image: { model: xl, latent: sample }
",
            r"  image: { type: Decode, model: xl, latent: sample }
",
        ),
    },
    Code {
        name: "unknown-type",
        summary: "there is no node type of this name",
        explanation: "Types are case-sensitive. `lsregen nodes` lists them. Types of other programs, such as ComfyUI's \
            `KSampler`, do not exist here; docs/nodes.md shows what each type does. A graph file as a type needs its \
            extension.",
        example: nodes(
            r"  image: { type: Decoder, model: xl, latent: sample }
",
            r"  image: { type: Decode, model: xl, latent: sample }
",
        ),
    },
    Code {
        name: "unknown-key",
        summary: "a key is not one that belongs here",
        explanation: "The key is neither an input nor a parameter of the node, of the workflow, or of the value that \
            contains it. A name close to it is suggested. An output of a node is not a key: other nodes link to it. `lsregen \
            nodes TYPE` lists the keys of a type.",
        example: nodes(
            r"  sample: { type: SDXLSample, model: xl, prompt: a red circle on sand, step: 30 }
",
            r"  sample: { type: SDXLSample, model: xl, prompt: a red circle on sand, steps: 30 }
",
        ),
    },
    Code {
        name: "missing-param",
        summary: "a required parameter is missing",
        explanation: "The parameter has no default. Add it to the node; `lsregen nodes TYPE` describes it.",
        example: nodes(
            r"  sample: { type: SDXLSample, model: xl }
",
            r"  sample: { type: SDXLSample, model: xl, prompt: a red circle on sand }
",
        ),
    },
    Code {
        name: "missing-key",
        summary: "a value lacks a required key",
        explanation: "Some parameters are mappings, or lists of them, with keys of their own: a box of a layout has \
            `phrase` and `box`. Add the key.",
        example: nodes(
            r"  layout: { type: Layout, boxes: [{ box: [0.1, 0.1, 0.5, 0.5] }] }
  boxes: { type: DrawLayout, image: image, layout: layout }
  save: { type: SaveImage, image: boxes, path: out/circle.png }
",
            r"  layout: { type: Layout, boxes: [{ phrase: a red circle, box: [0.1, 0.1, 0.5, 0.5] }] }
  boxes: { type: DrawLayout, image: image, layout: layout }
  save: { type: SaveImage, image: boxes, path: out/circle.png }
",
        ),
    },
    Code {
        name: "wrong-type",
        summary: "a value is of another type than required",
        explanation: "The value is, for instance, a text where a number is required. Quotes turn a number into a text; \
            without them `yes` is a text and `true` is not. A key without a value is null, which no parameter takes unless \
            it is optional.",
        example: nodes(
            r"  sample: { type: SDXLSample, model: xl, prompt: a red circle on sand, steps: many }
",
            r"  sample: { type: SDXLSample, model: xl, prompt: a red circle on sand, steps: 30 }
",
        ),
    },
    Code {
        name: "not-a-choice",
        summary: "a text is not one of the values that are allowed",
        explanation: "The parameter takes one of a few words, which the message lists.",
        example: nodes(
            r"  sample: { type: SDXLSample, model: xl, prompt: a red circle on sand, sampler: eulr }
",
            r"  sample: { type: SDXLSample, model: xl, prompt: a red circle on sand, sampler: euler }
",
        ),
    },
    Code {
        name: "out-of-range",
        summary: "a number, or the length of a list or text, is outside its range",
        explanation: "The message states the range, which `lsregen nodes TYPE` lists too.",
        example: nodes(
            r"  sample: { type: SDXLSample, model: xl, prompt: a red circle on sand, steps: 0 }
",
            r"  sample: { type: SDXLSample, model: xl, prompt: a red circle on sand, steps: 30 }
",
        ),
    },
    Code {
        name: "wrong-value",
        summary: "a node cannot be made from its parameters",
        explanation: "Each parameter fits its schema, but creating the node from \
            them fails. This does not happen for built-in nodes, but may for a node type that you added. The message \
            comes from the node type.",
        example: other("the message of the node type says what it refuses\n", "what the node type accepts\n"),
    },
    Code {
        name: "invalid",
        summary: "the node objects to its values, files or links",
        explanation: "Each value by itself is of the right type and in range, but the node cannot work with them: \
            parameters that exclude each other, a box whose sides are swapped, a model whose files are incomplete, a \
            guidance that was made for another number of steps than the sampling, a phrase that the prompt does not have. \
            The message says which, and what to do.",
        example: nodes(
            r"  up: { type: Upsample, image: image, factor: 2, width: 256, height: 256 }
  save: { type: SaveImage, image: up, path: out/circle.png }
",
            r"  up: { type: Upsample, image: image, factor: 2 }
  save: { type: SaveImage, image: up, path: out/circle.png }
",
        ),
    },
];
