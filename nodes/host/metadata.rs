//! What a written picture carries beside its pixels: the program, and the graph that it came from.
//!
//! Knows the texts of a PNG file. Does not know what a record says: see [`GraphRecord`](lsregen_engine::GraphRecord).

use lsregen_engine::Context;
use lsregen_tensor::image::{PNG_SIGNATURE, read_texts};

use super::bridge::raise;

/// Whether pictures carry their graph; a service of the host. They do where a host does not offer it.
///
/// No part of any memo key: a picture is the same with and without. A file that was written the other way does not
/// count as written, though.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metadata(pub bool);

impl Metadata {
    pub(crate) fn wanted(cx: &Context) -> bool {
        cx.service::<Metadata>().map_or(true, |metadata| metadata.0)
    }
}

/// The keyword of the record.
const RECORD: &str = "lsregen";

/// The keyword that PNG has for the program; it stands in every file that may carry a record.
const PROGRAM: &str = "Software";
const NAME: &str = concat!("lsregen ", env!("CARGO_PKG_VERSION"));

/// The texts of a picture that is written now.
pub(crate) fn texts(cx: &Context) -> Vec<(&'static str, &str)> {
    if !Metadata::wanted(cx) {
        return vec![];
    }
    let record = cx.record().and_then(|record| {
        let json = record.json();
        if json.is_none() {
            cx.note("the picture carries no graph: with these values the graph could not be put into one text");
        }
        json
    });
    [(PROGRAM, NAME)].into_iter().chain(record.map(|json| (RECORD, json))).collect()
}

/// Whether a file was written with its [`texts`].
pub(crate) fn is_carried(png: &[u8]) -> bool {
    read_texts(png, [PROGRAM]).is_ok_and(|[program]| program.is_some_and(|program| program.starts_with(RECORD)))
}

/// What a picture says of its making.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Carried {
    /// A record, as JSON.
    Record(String),
    /// A workflow of ComfyUI.
    ComfyUi,
    Nothing,
}

/// Whether a file is PNG, by how it begins.
pub fn is_png(bytes: &[u8]) -> bool {
    bytes.starts_with(&PNG_SIGNATURE)
}

/// What a PNG file carries.
///
/// # Errors
/// When it is damaged where this should stand.
pub fn carried(png: &[u8]) -> anyhow::Result<Carried> {
    let [record, prompt, workflow] = read_texts(png, [RECORD, "prompt", "workflow"]).map_err(raise)?;
    // ComfyUI's are JSON objects; other programs too call a text `prompt`.
    let is_comfy = |text: &String| text.trim_start().starts_with('{');
    Ok(match record {
        Some(json) => Carried::Record(json),
        None if prompt.iter().chain(&workflow).any(is_comfy) => Carried::ComfyUi,
        None => Carried::Nothing,
    })
}
