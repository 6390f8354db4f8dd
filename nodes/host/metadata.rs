//! The metadata of a saved PNG file: the program, and the graph that made the image.
//!
//! Deals with the text chunks of a PNG file, not with the content of a record: see
//! [`GraphRecord`](lsregen_engine::GraphRecord).

use std::borrow::Cow;

use lsregen_engine::{Context, RecordPart};
use lsregen_tensor::image::{PNG_SIGNATURE, read_texts};

use super::bridge::raise;

/// Whether PNG files contain their graph: a service of the host. By default they do.
///
/// Not part of memo keys, because the image is the same. But a file that was written with the other setting does not
/// count as written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metadata(pub bool);

impl Metadata {
    pub(crate) fn wanted(cx: &Context) -> bool {
        cx.service::<Metadata>().map_or(true, |metadata| metadata.0)
    }
}

/// The keyword of the record.
const RECORD: &str = "lsregen";

/// PNG's keyword for the program; every file that may contain a record has it.
const PROGRAM: &str = "Software";
const NAME: &str = concat!("lsregen ", env!("CARGO_PKG_VERSION"));

/// The text chunk of every file that may contain a record, and of previews.
pub(crate) const PROGRAM_TEXT: (&str, &str) = (PROGRAM, NAME);

/// Returns the text chunks for a new file. `part` is the image of a batch that it contains.
pub(crate) fn texts(cx: &Context, part: Option<RecordPart>) -> Vec<(&'static str, Cow<'_, str>)> {
    if !Metadata::wanted(cx) {
        return vec![];
    }
    let record = cx.record().and_then(|record| {
        let json = match part {
            None => record.json().map(Cow::Borrowed),
            Some(part) => record.json_of_part(part).map(Cow::Owned),
        };
        if json.is_none() {
            cx.note("the PNG file contains no graph: the values of its parameters cannot be written into the text of the graph");
        }
        json
    });
    let program = (PROGRAM, Cow::Borrowed(NAME));
    [program].into_iter().chain(record.map(|json| (RECORD, json))).collect()
}

/// Whether a file was written by this program with its name in it, as `texts` has it.
pub fn is_carried(png: &[u8]) -> bool {
    read_texts(png, [PROGRAM]).is_ok_and(|[program]| program.is_some_and(|program| program.starts_with(RECORD)))
}

/// The metadata that an image file contains.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Carried {
    /// A record, as JSON.
    Record(String),
    /// A workflow of ComfyUI.
    ComfyUi,
    Nothing,
}

/// Whether a file is a PNG file, by its signature.
pub fn is_png(bytes: &[u8]) -> bool {
    bytes.starts_with(&PNG_SIGNATURE)
}

/// Reads the metadata of a PNG file.
///
/// # Errors
/// If its text chunks are corrupt.
pub fn carried(png: &[u8]) -> anyhow::Result<Carried> {
    let [record, prompt, workflow] = read_texts(png, [RECORD, "prompt", "workflow"]).map_err(raise)?;
    // ComfyUI's texts are JSON objects; other programs use the keyword `prompt` too.
    let is_comfy = |text: &String| text.trim_start().starts_with('{');
    Ok(match record {
        Some(json) => Carried::Record(json),
        None if prompt.iter().chain(&workflow).any(is_comfy) => Carried::ComfyUi,
        None => Carried::Nothing,
    })
}
