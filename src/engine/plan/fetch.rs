//! Downloads the files that the nodes of a graph need.

use super::PlanError;
use crate::graph::Graph;
use crate::node::{CheckContext, FetchProgress, Host};

/// Downloads the files of every node that are not on this machine: see [`Node::fetch`](crate::Node::fetch). Returns
/// whether anything was downloaded.
///
/// # Errors
/// Returns the error of the first node whose files could not be downloaded.
pub fn fetch(graph: &Graph, host: &Host, progress: &mut dyn FnMut(FetchProgress)) -> Result<bool, Box<PlanError>> {
    let mut fetched = false;
    for &index in graph.order() {
        let node = graph.node(index);
        let cx = CheckContext::within(host, node.folder.as_deref());
        let result = node.node.fetch(&cx, progress);
        fetched |= result.map_err(|cause| Box::new(PlanError { node: index, name: node.name.clone(), cause }))?;
    }
    Ok(fetched)
}
