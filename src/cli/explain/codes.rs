//! The codes of diagnostics: one entry for each code that the engine, the nodes or the command report.
//!
//! The tests of this module compare the entries with the sources, and check every example.

mod command;
mod links;
mod nodes;
mod text;
mod warnings;
mod workflow;

/// The documentation of a code.
pub struct Code {
    /// The code as diagnostics have it: `unknown-type`.
    pub name: &'static str,
    /// One clause, for lists.
    pub summary: &'static str,
    /// Why it is reported and how to correct it.
    pub explanation: &'static str,
    pub example: Example,
}

/// A minimal invalid input, and the same input corrected.
pub struct Example {
    pub form: Form,
    pub wrong: &'static str,
    pub right: &'static str,
}

/// The form of an example.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// A workflow file.
    Workflow,
    /// Entries under `nodes:`. The other nodes of the graph are those of [`FRAME`].
    Nodes,
    /// The value of `--set`.
    Set,
    /// Lines of a file for `--inputs`.
    Rows,
    /// More than one file, or a description.
    Other,
}

/// The graph around examples of the form [`Form::Nodes`]. An entry of an example replaces the entry here of the same
/// name.
pub const FRAME: &str = r"lsregen: 1
nodes:
  xl: { type: LoadModel, model: shapes/xl }
  sample: { type: SDXLSample, model: xl, prompt: a red circle on sand }
  image: { type: Decode, model: xl, latent: sample }
  save: { type: SaveImage, image: image, path: out/circle.png }
";

/// Codes of one topic.
pub struct Topic {
    pub title: &'static str,
    pub codes: &'static [Code],
}

/// All codes, by topic, in the order in which a check reaches them.
pub const TOPICS: [Topic; 6] = [
    Topic { title: "The text", codes: &text::CODES },
    Topic { title: "The workflow", codes: &workflow::CODES },
    Topic { title: "Nodes and parameters", codes: &nodes::CODES },
    Topic { title: "Links", codes: &links::CODES },
    Topic { title: "Warnings of nodes", codes: &warnings::CODES },
    Topic { title: "The command", codes: &command::CODES },
];

/// All codes.
pub fn all() -> impl Iterator<Item = &'static Code> {
    TOPICS.iter().flat_map(|topic| topic.codes)
}

const fn workflow(wrong: &'static str, right: &'static str) -> Example {
    Example { form: Form::Workflow, wrong, right }
}

const fn nodes(wrong: &'static str, right: &'static str) -> Example {
    Example { form: Form::Nodes, wrong, right }
}

const fn set(wrong: &'static str, right: &'static str) -> Example {
    Example { form: Form::Set, wrong, right }
}

const fn rows(wrong: &'static str, right: &'static str) -> Example {
    Example { form: Form::Rows, wrong, right }
}

const fn other(wrong: &'static str, right: &'static str) -> Example {
    Example { form: Form::Other, wrong, right }
}
