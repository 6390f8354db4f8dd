//! Codes of what is reported before the workflow is known: files, and YAML itself.

use super::{Code, nodes, other, workflow};

pub const CODES: [Code; 14] = [
    Code {
        name: "file",
        summary: "a file is missing or cannot be read",
        explanation: "A graph, or a file that a node names, does not exist, is a folder, a pipe or a device, or cannot \
            be read. A path in a graph is relative to the graph file, not to the working directory; an absolute path is \
            taken as it is. The message names the path that was tried.",
        example: nodes(
            r"  photo: { type: LoadImage, path: foto.png }
  save: { type: SaveImage, image: photo, path: out/circle.png }
",
            r"  photo: { type: LoadImage, path: photo.png }
  save: { type: SaveImage, image: photo, path: out/circle.png }
",
        ),
    },
    Code {
        name: "not-utf8",
        summary: "a graph file is not UTF-8",
        explanation: "Graph files are text in UTF-8. Reading a file in another encoding (UTF-16, \
            Latin-1), or a binary file, stops at the first byte that is not UTF-8; the message names its line. Save the file as UTF-8.",
        example: other("a graph saved as UTF-16 or Latin-1\n", "the same graph saved as UTF-8\n"),
    },
    Code {
        name: "empty",
        summary: "the file has no content",
        explanation: "The file is empty, or holds only comments and blank lines. A workflow needs at least `lsregen: 1` \
            and `nodes:`.",
        example: workflow(
            r"# a red circle
",
            r"# a red circle
lsregen: 1
nodes:
  xl: { type: LoadModel, model: shapes/xl }
  sample: { type: SDXLSample, model: xl, prompt: a red circle on sand }
  image: { type: Decode, model: xl, latent: sample }
  save: { type: SaveImage, image: image, path: out/circle.png }
",
        ),
    },
    Code {
        name: "too-large",
        summary: "a file, or what its references expand to, exceeds a limit",
        explanation: "Limits keep a check fast and its memory bounded: the size of a graph file, the number of values \
            that `${…}`, anchors and aliases expand to, and the number of graph files and values in one graph. The \
            message names the limit. Long lists of boxes belong in a JSON file (`layout_file`); a large parameter should \
            be named in fewer places.",
        example: other(
            "  layout: { type: Layout, boxes: [ … 100 000 boxes … ] }\n",
            "  layout: { type: Layout, layout_file: boxes.json }\n",
        ),
    },
    Code {
        name: "control-character",
        summary: "the text contains a control character",
        explanation: "Control characters other than tab and line end do not belong in a graph. They usually come from \
            copying out of a terminal, or from a file that is not text. Delete the character.",
        example: nodes(
            "  sample: { type: SDXLSample, model: xl, prompt: \"a red\u{7} circle on sand\" }\n",
            "  sample: { type: SDXLSample, model: xl, prompt: \"a red circle on sand\" }\n",
        ),
    },
    Code {
        name: "syntax",
        summary: "the text is not valid YAML",
        explanation: "The message describes the place where reading stopped; the cause is often in the line above. \
            Frequent causes: a quote or bracket that is never closed, a tab in the indentation, keys of one mapping that \
            are not indented alike, a missing space after `:`, and a text with `: ` in it that needs quotes. Nothing \
            after this place is checked.",
        example: nodes(
            r"  sample: { type: SDXLSample, model: xl, prompt: a red circle on sand, steps: [20 }
",
            r"  sample: { type: SDXLSample, model: xl, prompt: a red circle on sand, steps: 20 }
",
        ),
    },
    Code {
        name: "several-documents",
        summary: "the file holds more than one YAML document",
        explanation: "A line of `---` begins another document. A graph file holds one workflow; move the second to a \
            file of its own.",
        example: workflow(
            r"lsregen: 1
nodes:
  xl: { type: LoadModel, model: shapes/xl }
outputs: { model: xl }
---
lsregen: 1
nodes:
  gligen: { type: LoadModel, model: shapes/gligen }
outputs: { model: gligen }
",
            r"lsregen: 1
nodes:
  xl: { type: LoadModel, model: shapes/xl }
outputs: { model: xl }
",
        ),
    },
    Code {
        name: "tag",
        summary: "a YAML tag is used",
        explanation: "Tags such as `!env` or `!!str` are not supported. If a text looks like a number, put it \
            in quotes; a prompt that begins with `!` needs quotes too.",
        example: nodes(
            r"  sample: { type: SDXLSample, model: xl, prompt: !prompt a red circle on sand }
",
            r"  sample: { type: SDXLSample, model: xl, prompt: a red circle on sand }
",
        ),
    },
    Code {
        name: "key",
        summary: "a key is not a text",
        explanation: "The keys of a mapping are texts. A number, a list or a mapping in the place of a key is often a \
            value that lost its key, a list written in braces, or an unquoted text that begins with `{`.",
        example: nodes(
            r"  layout: { type: Layout, boxes: [{ phrase: a red circle, box: { 0.1, 0.1, 0.5, 0.5 } }] }
",
            r"  layout: { type: Layout, boxes: [{ phrase: a red circle, box: [0.1, 0.1, 0.5, 0.5] }] }
  boxes: { type: DrawLayout, image: image, layout: layout }
  save: { type: SaveImage, image: boxes, path: out/circle.png }
",
        ),
    },
    Code {
        name: "duplicate-key",
        summary: "a key occurs twice in one mapping",
        explanation: "YAML readers differ in which of two equal keys they keep, so neither is taken. Two nodes of the \
            same name are the same error. Remove or rename one of them.",
        example: nodes(
            r"  sample: { type: SDXLSample, model: xl, prompt: a red circle on sand, seed: 1, seed: 2 }
",
            r"  sample: { type: SDXLSample, model: xl, prompt: a red circle on sand, seed: 2 }
",
        ),
    },
    Code {
        name: "number",
        summary: "a number is not finite, or too large",
        explanation: "`.nan` and `.inf` are not accepted, and integers range from −9223372036854775808 to \
            18446744073709551615. Put the value in quotes if it is meant as a text.",
        example: nodes(
            r"  sample: { type: SDXLSample, model: xl, prompt: a red circle on sand, cfg: .inf }
",
            r"  sample: { type: SDXLSample, model: xl, prompt: a red circle on sand, cfg: 7.5 }
",
        ),
    },
    Code {
        name: "merge",
        summary: "the value of `<<` is not a mapping",
        explanation: "`<<` takes in the keys of a mapping that an anchor marks, or of a list of such mappings. Write \
            `<<: *name`, where `&name` marks a mapping above.",
        example: nodes(
            r"  sample: { <<: 20, type: SDXLSample, model: xl, prompt: a red circle on sand }
",
            r"  sample: { <<: { steps: 20 }, type: SDXLSample, model: xl, prompt: a red circle on sand }
",
        ),
    },
    Code {
        name: "recursive-alias",
        summary: "an alias stands inside the value of its own anchor",
        explanation: "An alias is replaced by a copy of the value that its anchor marks; a value cannot contain a copy \
            of itself. Write out the inner value.",
        example: workflow(
            r"lsregen: 1
params:
  boxes: &boxes [{ phrase: a red circle, box: *boxes }]
nodes:
  layout: { type: Layout, boxes: '${boxes}' }
outputs: { layout: layout }
",
            r"lsregen: 1
params:
  boxes: &boxes [{ phrase: a red circle, box: [0.1, 0.1, 0.5, 0.5] }]
nodes:
  layout: { type: Layout, boxes: '${boxes}' }
outputs: { layout: layout }
",
        ),
    },
    Code {
        name: "too-deep",
        summary: "lists, mappings or graphs are nested too deeply",
        explanation: "Lists and mappings may be nested 64 deep; the message states the limit for graphs. No workflow \
            needs more: check for a bracket that is opened too often, or flatten the value.",
        example: nodes(
            r"  layout: { type: Layout, boxes: [[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[
",
            r"  layout: { type: Layout, boxes: [{ phrase: a red circle, box: [0.1, 0.1, 0.5, 0.5] }] }
  boxes: { type: DrawLayout, image: image, layout: layout }
  save: { type: SaveImage, image: boxes, path: out/circle.png }
",
        ),
    },
];
