//! Codes of the workflow as a whole: its keys, its parameters, and the graphs inside it.

use super::{Code, other, workflow};

pub const CODES: [Code; 10] = [
    Code {
        name: "not-a-workflow",
        summary: "the file is not a mapping",
        explanation: "A workflow is a mapping with the keys `lsregen`, `about`, `params`, `nodes` and `outputs`. A list \
            or a plain text is another kind of file.",
        example: workflow(
            r"- { type: LoadModel, model: shapes/xl }
",
            r"lsregen: 1
nodes:
  xl: { type: LoadModel, model: shapes/xl }
outputs: { model: xl }
",
        ),
    },
    Code {
        name: "version",
        summary: "the format version is missing or not supported",
        explanation: "The first key of a graph is `lsregen`, the version of the format. This program reads version 1. A \
            file with a higher version needs a newer program.",
        example: workflow(
            r"nodes:
  xl: { type: LoadModel, model: shapes/xl }
outputs: { model: xl }
",
            r"lsregen: 1
nodes:
  xl: { type: LoadModel, model: shapes/xl }
outputs: { model: xl }
",
        ),
    },
    Code {
        name: "no-nodes",
        summary: "the workflow has no nodes",
        explanation: "`nodes` is missing or empty. It maps the name of each node to its type, parameters and links.",
        example: workflow(
            r"lsregen: 1
about: a red circle
",
            r"lsregen: 1
about: a red circle
nodes:
  xl: { type: LoadModel, model: shapes/xl }
outputs: { model: xl }
",
        ),
    },
    Code {
        name: "name",
        summary: "a node, parameter or output has an invalid name",
        explanation: "A name consists of letters, digits, `_` and `-`, and begins with a letter. A dot is not allowed: \
            in a link it separates a node from its output.",
        example: workflow(
            r"lsregen: 1
nodes:
  the.model: { type: LoadModel, model: shapes/xl }
outputs: { model: the.model }
",
            r"lsregen: 1
nodes:
  the-model: { type: LoadModel, model: shapes/xl }
outputs: { model: the-model }
",
        ),
    },
    Code {
        name: "unknown-param",
        summary: "`${…}` or `--set` names a parameter that the file does not declare",
        explanation: "The parameters of a graph are the keys under `params`, each with its default. Declare the \
            parameter there, or correct its name. A `${` that is meant as plain text is written `$${`.",
        example: workflow(
            r"lsregen: 1
params: { model: shapes/xl }
nodes:
  xl: { type: LoadModel, model: '${modle}' }
outputs: { model: xl }
",
            r"lsregen: 1
params: { model: shapes/xl }
nodes:
  xl: { type: LoadModel, model: '${model}' }
outputs: { model: xl }
",
        ),
    },
    Code {
        name: "unused-param",
        summary: "a parameter is declared but never used (warning)",
        explanation: "No `${…}` names the parameter, so that `--set` would change nothing. Use it where it is meant, or \
            remove it.",
        example: workflow(
            r"lsregen: 1
params: { model: shapes/xl, seed: 7 }
nodes:
  xl: { type: LoadModel, model: '${model}' }
outputs: { model: xl }
",
            r"lsregen: 1
params: { model: shapes/xl }
nodes:
  xl: { type: LoadModel, model: '${model}' }
outputs: { model: xl }
",
        ),
    },
    Code {
        name: "reference",
        summary: "a `${…}` cannot be replaced",
        explanation: "The reference is never closed, names a parameter that is declared further down, or stands inside \
            a text although the parameter is a list or a mapping. A list or mapping must be the whole value: \
            `boxes: ${boxes}`. A parameter can only use the parameters above it.",
        example: workflow(
            r"lsregen: 1
params: { model: shapes/xl }
nodes:
  xl: { type: LoadModel, model: '${model' }
outputs: { model: xl }
",
            r"lsregen: 1
params: { model: shapes/xl }
nodes:
  xl: { type: LoadModel, model: '${model}' }
outputs: { model: xl }
",
        ),
    },
    Code {
        name: "no-outputs",
        summary: "a graph that is used as a node declares no outputs",
        explanation: "A node whose type is a graph file has the outputs that the file lists under `outputs`. Without it nothing \
            in the file can be linked to. Add `outputs` to the inner file.",
        example: other(
            r"# layout.yaml, used as `{ type: ./layout.yaml }`
lsregen: 1
nodes:
  layout: { type: Layout, boxes: [] }
",
            r"# layout.yaml, used as `{ type: ./layout.yaml }`
lsregen: 1
nodes:
  layout: { type: Layout, boxes: [] }
outputs: { layout: layout }
",
        ),
    },
    Code {
        name: "include-cycle",
        summary: "a graph contains itself",
        explanation: "The file of a graph node leads back to a file that it is part of, directly or through others. The \
            message names the files on the way. Remove one of these nodes.",
        example: other(
            r"# layout.yaml
lsregen: 1
nodes:
  again: { type: ./layout.yaml }
outputs: { layout: again }
",
            r"# layout.yaml
lsregen: 1
nodes:
  layout: { type: Layout, boxes: [] }
outputs: { layout: layout }
",
        ),
    },
    Code {
        name: "more-faults",
        summary: "there are more diagnostics than are reported (warning)",
        explanation: "A check keeps 10 000 errors and as many warnings. Correct some of them and check again. A file with \
            so many is often not a workflow at all.",
        example: other(
            "a generated graph in which every node has an error\n",
            "the same graph from a corrected generator\n",
        ),
    },
];
