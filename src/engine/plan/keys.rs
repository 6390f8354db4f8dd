//! Computes the memo key of every node of a graph.

use super::PlanError;
use crate::graph::{Graph, GraphNode};
use crate::key::{InputMaterial, Key, Material, canonical_json};
use crate::node::{CheckContext, Host, NodeError, guarded};
use crate::store::{FileDigests, FileState};

/// The key of a node, its material, and the files that are part of it.
pub(super) struct Identity {
    pub key: Key,
    pub material: Material,
    pub files: ReadFiles,
}

/// The files that a node may read: its own, and those of its inputs that [read late](crate::Payload::READS_LATE).
#[derive(Clone, Default)]
pub(crate) struct ReadFiles {
    /// As they were when the keys were computed.
    pub files: Vec<FileState>,
    /// The results that read some of them late. If a file has changed, they may hold both contents.
    pub late: Vec<Key>,
}

/// Returns the identity of each node, by index.
///
/// # Errors
/// Returns the error of every node whose key cannot be computed, but none for the nodes that depend on it.
pub(super) fn identify(graph: &Graph, host: &Host, digests: &FileDigests) -> Result<Vec<Identity>, Vec<PlanError>> {
    let mut identities: Vec<Option<Identity>> = graph.order().iter().map(|_| None).collect();
    let mut errors = vec![];
    for &index in graph.order() {
        let node = graph.node(index);
        let made = input_material(graph, node, &identities).and_then(|inputs| {
            // If a producer has no key, its own error is reported.
            let Some(inputs) = inputs else { return Ok(None) };
            guarded(node.node_type.name, || identity(node, inputs, host, digests))
                .unwrap_or_else(|panicked| Err(NodeError::new("", panicked.to_string())))
                .map(|mut identity| {
                    identity.files.add_inputs(graph, node, &identities);
                    Some(identity)
                })
        });
        match made {
            Ok(identity) => identities[index.index()] = identity,
            Err(cause) => errors.push(PlanError::new(graph, index, cause)),
        }
    }
    if errors.is_empty() { Ok(identities.into_iter().flatten().collect()) } else { Err(errors) }
}

/// The links of a node as part of its key; `None` if a producer has no key.
///
/// # Errors
/// Returns an error if a link is invalid. This cannot happen in a checked graph.
fn input_material(
    graph: &Graph,
    node: &GraphNode,
    identities: &[Option<Identity>],
) -> Result<Option<Vec<InputMaterial>>, NodeError> {
    let sockets = node.node_type.inputs;
    if node.inputs.len() != sockets.len() {
        let message = format!("it has links for {} sockets, but its type has {}", node.inputs.len(), sockets.len());
        return Err(NodeError::new("", message));
    }
    let mut inputs = vec![];
    for (socket, links) in sockets.iter().zip(&node.inputs) {
        for link in links {
            let producer = graph.node(link.producer);
            if link.output >= producer.node_type.outputs.len() {
                let message =
                    format!("it is linked to output {} of `{}`, which does not exist", link.output, producer.name);
                return Err(NodeError::new(socket.name, message));
            }
            let Some(Identity { key: producer, .. }) = identities[link.producer.index()] else { return Ok(None) };
            inputs.push(InputMaterial { socket: socket.name.into(), producer, output: link.output });
        }
    }
    Ok(Some(inputs))
}

impl ReadFiles {
    /// Adds the files that the inputs of a node may still read.
    fn add_inputs(&mut self, graph: &Graph, node: &GraphNode, identities: &[Option<Identity>]) {
        let late = node.inputs.iter().flatten().filter(|link| {
            let outputs = graph.node(link.producer).node_type.outputs;
            outputs.get(link.output).is_some_and(|output| output.reads_late)
        });
        for producer in late.filter_map(|link| identities[link.producer.index()].as_ref()) {
            for key in [producer.key].iter().chain(&producer.files.late) {
                if !self.late.contains(key) {
                    self.late.push(*key);
                }
            }
            for file in &producer.files.files {
                if !self.files.iter().any(|known| known.path() == file.path()) {
                    self.files.push(file.clone());
                }
            }
        }
    }
}

fn identity(
    node: &GraphNode,
    inputs: Vec<InputMaterial>,
    host: &Host,
    digests: &FileDigests,
) -> Result<Identity, NodeError> {
    let params = node.node.params().map_err(|error| {
        NodeError::new("", format!("its parameters cannot be written as JSON for its memo key: {error}"))
    })?;
    let mut digested = vec![];
    let mut files = vec![];
    for file in node.node.files(&CheckContext::within(host, node.folder.as_deref())) {
        let state = digests.digest(&file.path).map_err(|error| NodeError::new(&*file.param, error.to_string()))?;
        digested.push((file.param, state.digest()));
        files.push(state);
    }
    let material = Material {
        node_type: node.node_type.name.into(),
        version: node.node_type.version,
        params: canonical_json(&params),
        inputs,
        files: digested,
        node_fingerprint: node.node.fingerprint(),
        host_fingerprint: host.fingerprint().clone(),
    };
    let files = ReadFiles { files, late: vec![] };
    Ok(Identity { key: material.key(), material, files })
}
