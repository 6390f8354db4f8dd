//! Codes of links between nodes, and of the graph that they form.

use super::{Code, nodes, workflow};

pub const CODES: [Code; 14] = [
    Code {
        name: "missing-input",
        summary: "a required input is not linked",
        explanation: "Link the input to a node that gives a value of its type; the help line names those that do.",
        example: nodes(
            r"  image: { type: Decode, model: xl }
",
            r"  image: { type: Decode, model: xl, latent: sample }
",
        ),
    },
    Code {
        name: "not-a-link",
        summary: "an input has a value instead of a link",
        explanation: "An input takes the name of a node, or `node.output`. It cannot be a number, a mapping or null. \
            Only parameters take values.",
        example: nodes(
            r"  image: { type: Decode, model: xl, latent: 7 }
",
            r"  image: { type: Decode, model: xl, latent: sample }
",
        ),
    },
    Code {
        name: "one-link",
        summary: "an input that takes one link has a list",
        explanation: "Write the link without brackets. To combine several values, use a node that takes a list.",
        example: nodes(
            r"  image: { type: Decode, model: xl, latent: [sample] }
",
            r"  image: { type: Decode, model: xl, latent: sample }
",
        ),
    },
    Code {
        name: "list-of-links",
        summary: "an input that takes a list has a single link",
        explanation: "Put the link in brackets, even if it is the only one.",
        example: nodes(
            r"  grid: { type: ImageGrid, images: image }
  save: { type: SaveImage, image: grid, path: out/grid.png }
",
            r"  grid: { type: ImageGrid, images: [image] }
  save: { type: SaveImage, image: grid, path: out/grid.png }
",
        ),
    },
    Code {
        name: "unknown-node",
        summary: "a link names a node that does not exist",
        explanation: "The graph has no node of this name. A name close to it is suggested; the help line lists the nodes \
            that fit the input. A node inside another graph can be reached only through that graph's outputs.",
        example: nodes(
            r"  image: { type: Decode, model: xl, latent: sampel }
",
            r"  image: { type: Decode, model: xl, latent: sample }
",
        ),
    },
    Code {
        name: "unknown-output",
        summary: "a link names an output that the node does not have",
        explanation: "The part after the dot is the name of an output. `lsregen nodes TYPE` lists the outputs of a type; \
            those of a graph file are under its `outputs`.",
        example: nodes(
            r"  save: { type: SaveImage, image: image.picture, path: out/circle.png }
",
            r"  save: { type: SaveImage, image: image.image, path: out/circle.png }
",
        ),
    },
    Code {
        name: "ambiguous-output",
        summary: "a link does not say which output it means",
        explanation: "The name of a node is enough if exactly one of its outputs has the type of the input. This node \
            has several. Write `node.output`.",
        example: workflow(
            r"lsregen: 1
nodes:
  small: { type: LoadModel, model: shapes/gligen }
  layout: { type: GLIGENLayout, model: small, prompt: a red circle, boxes: [] }
outputs: { image: layout }
",
            r"lsregen: 1
nodes:
  small: { type: LoadModel, model: shapes/gligen }
  layout: { type: GLIGENLayout, model: small, prompt: a red circle, boxes: [] }
outputs: { image: layout.image }
",
        ),
    },
    Code {
        name: "type-mismatch",
        summary: "a link gives a value of another type than the input takes",
        explanation: "Values are typed: Model, Image, Latent, Layout, Guidance, File. The help line names a node that \
            converts between the two types, if there is one, such as Decode from Latent to Image.",
        example: nodes(
            r"  save: { type: SaveImage, image: sample, path: out/circle.png }
",
            r"  save: { type: SaveImage, image: image, path: out/circle.png }
",
        ),
    },
    Code {
        name: "wrong-family",
        summary: "a model is of a family that the input does not take",
        explanation: "Models belong to families: `sd1`, `sd2`, `gligen`, `sdxl`, `playground`, `sdxl-refiner`. Some nodes work with only some of them. Link the \
            input to a model of that family, or use the node type for the other family.",
        example: nodes(
            r"  xl: { type: LoadModel, model: shapes/gligen }
",
            r"  xl: { type: LoadModel, model: shapes/xl }
",
        ),
    },
    Code {
        name: "cycle",
        summary: "nodes wait for each other",
        explanation: "A node needs the result of another that needs its own, directly or through others. The labels show \
            each link of the cycle. Remove one of them.",
        example: nodes(
            r"  image: { type: Upsample, image: image, factor: 2 }
",
            r"  large: { type: Upsample, image: image, factor: 2 }
  save: { type: SaveImage, image: large, path: out/circle.png }
",
        ),
    },
    Code {
        name: "no-output",
        summary: "no node writes anything",
        explanation: "A run computes what its output nodes need (SaveImage, SaveLatent). Without one it would compute \
            nothing. Add an output node, or declare `outputs` if the file is meant to be a node of another graph.",
        example: workflow(
            r"lsregen: 1
nodes:
  xl: { type: LoadModel, model: shapes/xl }
  sample: { type: SDXLSample, model: xl, prompt: a red circle on sand }
  image: { type: Decode, model: xl, latent: sample }
",
            r"lsregen: 1
nodes:
  xl: { type: LoadModel, model: shapes/xl }
  sample: { type: SDXLSample, model: xl, prompt: a red circle on sand }
  image: { type: Decode, model: xl, latent: sample }
  save: { type: SaveImage, image: image, path: out/circle.png }
",
        ),
    },
    Code {
        name: "unneeded-node",
        summary: "no output needs the node (warning)",
        explanation: "The node is valid but is never run. Link an output to it, or remove it.",
        example: nodes(
            r"  large: { type: Upsample, image: image, factor: 2 }
",
            r"  large: { type: Upsample, image: image, factor: 2 }
  save: { type: SaveImage, image: large, path: out/circle.png }
",
        ),
    },
    Code {
        name: "written-twice",
        summary: "two nodes, or two rows, write the same file",
        explanation: "The later would overwrite the earlier. Give one of them another path. In a bulk run every row has \
            a folder of its own below the output folder; a path outside it is the same for all rows unless it contains a \
            parameter that differs.",
        example: nodes(
            r"  again: { type: SaveImage, image: image, path: out/circle.png }
",
            r"  again: { type: SaveImage, image: image, path: out/again.png }
",
        ),
    },
    Code {
        name: "overwritten-input",
        summary: "a node writes a file that the graph reads",
        explanation: "The picture that the graph starts from would be lost, and the next run would read what this one \
            wrote. Write another file.",
        example: nodes(
            r"  photo: { type: LoadImage, path: photo.png }
  save: { type: SaveImage, image: photo, path: photo.png }
",
            r"  photo: { type: LoadImage, path: photo.png }
  save: { type: SaveImage, image: photo, path: out/photo.png }
",
        ),
    },
];
