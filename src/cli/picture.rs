//! Pictures that carry their graph, as sources of it.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use lsregen_engine::GraphRecord;
use lsregen_nodes::metadata::{Carried, carried, is_png};

use super::{Exit, console, usage};

/// The record of the picture at `path`; `None` where the file is no PNG, or none that can be read.
pub fn record(path: &Path) -> Result<Option<GraphRecord>, Exit> {
    let mut png = vec![];
    let Ok(mut file) = File::open(path) else { return Ok(None) };
    // Its first bytes alone: what is no picture may be large.
    if file.by_ref().take(8).read_to_end(&mut png).is_err() || !is_png(&png) {
        return Ok(None);
    }
    let shown = path.display();
    file.read_to_end(&mut png).map_err(|error| usage(format!("{shown}: cannot be read: {error}")))?;
    let json = match carried(&png) {
        Ok(Carried::Record(json)) => json,
        Ok(Carried::ComfyUi) => {
            return Err(usage(format!(
                "{shown}: this picture carries a workflow of ComfyUI, not a graph of lsregen: open it there, and write \
                 its nodes as a graph (`lsregen nodes` lists them)"
            )));
        }
        Ok(Carried::Nothing) => {
            return Err(usage(format!(
                "{shown}: this picture carries no graph: it comes from another program, or was written with \
                 `--no-metadata`, or the texts in it were removed"
            )));
        }
        Err(error) => return Err(bad(format!("{shown}: the graph cannot be read: {error}"))),
    };
    GraphRecord::parse(&json).map(Some).map_err(|error| bad(format!("{shown}: {error}")))
}

fn bad(message: String) -> Exit {
    console::complain(message);
    Exit::BadGraph
}
