//! The record of a run that a PNG file holds.

use std::io::Read;
use std::path::Path;

use lsregen_engine::GraphRecord;
use lsregen_files::Kind;
use lsregen_nodes::metadata::{Carried, carried, is_png};

use super::{Exit, terminal, usage};

/// Reads the record of the PNG file at `path`; `None` if it is not a PNG file or cannot be read.
///
/// # Errors
/// When the PNG file holds no valid record; the reason is printed.
pub fn read(path: &Path) -> Result<Option<GraphRecord>, Exit> {
    let mut png = vec![];
    let Ok(mut file) = lsregen_files::open(path, Kind::IMAGE) else { return Ok(None) };
    // The signature first: a file that is not a PNG may be large.
    if file.by_ref().take(8).read_to_end(&mut png).is_err() || !is_png(&png) {
        return Ok(None);
    }
    let shown = path.display();
    file.read_to_end(&mut png).map_err(|error| usage(format!("{shown}: cannot be read: {error}")))?;
    let json = match carried(&png) {
        Ok(Carried::Record(json)) => json,
        Ok(Carried::ComfyUi) => {
            return Err(usage(format!(
                "{shown}: this PNG file holds a workflow of ComfyUI, not a graph of lsregen: open it in ComfyUI, and \
                 write its nodes as a graph (`lsregen nodes` lists the node types)"
            )));
        }
        Ok(Carried::Nothing) => {
            return Err(usage(format!(
                "{shown}: this PNG file holds no graph: another program wrote it, or it was written with \
                 `--no-metadata`, or its metadata was removed"
            )));
        }
        Err(error) => return Err(invalid(format!("{shown}: the graph cannot be read: {error}"))),
    };
    GraphRecord::parse(&json).map(Some).map_err(|error| invalid(format!("{shown}: {error}")))
}

fn invalid(message: String) -> Exit {
    terminal::complain(message);
    Exit::BadGraph
}
