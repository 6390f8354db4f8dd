//! The host: the folders and services of the program that runs a graph.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What a graph may write.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OutputRules {
    /// Whether files may lie outside the output folder.
    pub allow_outside: bool,
    /// Whether files are replaced that this program did not write.
    pub overwrite: bool,
}

/// Where graphs run: the folders of their files, and the services that the program offers to nodes. Clones share the
/// services.
#[derive(Clone)]
pub struct Host {
    graph_folder: PathBuf,
    pub(super) output_folder: PathBuf,
    pub(super) output_rules: OutputRules,
    nonce: u64,
    fingerprint: Arc<str>,
    pub(super) previews: bool,
    services: HashMap<TypeId, Arc<dyn Any + Send + Sync>>,
}

impl Host {
    /// A host without services. Input files are relative to `graph_folder`, the folder of the graph file. Written files
    /// are relative to `output_folder`.
    pub fn new(graph_folder: impl Into<PathBuf>, output_folder: impl Into<PathBuf>) -> Host {
        Host {
            graph_folder: graph_folder.into(),
            output_folder: output_folder.into(),
            output_rules: OutputRules::default(),
            // The one source of randomness of the standard library.
            nonce: RandomState::new().hash_one(()),
            fingerprint: "".into(),
            previews: false,
            services: HashMap::new(),
        }
    }

    /// Adds a service, or replaces the one of the same type. Nodes find a service by its type.
    pub fn with_service<T: Send + Sync + 'static>(mut self, service: T) -> Host {
        self.services.insert(TypeId::of::<T>(), Arc::new(service));
        self
    }

    /// Sets the fingerprint: everything outside the nodes that changes the numbers, such as the kind of device, the
    /// dtype and the version of the backend. It is part of every memo key.
    pub fn with_fingerprint(mut self, fingerprint: impl Into<Arc<str>>) -> Host {
        self.fingerprint = fingerprint.into();
        self
    }

    /// The fingerprint of the host.
    pub fn fingerprint(&self) -> &Arc<str> {
        &self.fingerprint
    }

    /// Sets the folder of written files.
    pub fn with_output_folder(mut self, output_folder: impl Into<PathBuf>) -> Host {
        self.output_folder = output_folder.into();
        self
    }

    /// Sets what graphs may write.
    pub fn with_output_rules(mut self, rules: OutputRules) -> Host {
        self.output_rules = rules;
        self
    }

    /// Sets whether nodes report previews of their results: see [`Context::preview`](crate::Context::preview).
    pub fn with_previews(mut self, previews: bool) -> Host {
        self.previews = previews;
        self
    }

    /// A number that differs from host to host, from which random seeds are drawn. Clones share it.
    pub(crate) fn nonce(&self) -> u64 {
        self.nonce
    }

    pub(crate) fn output_folder(&self) -> &Path {
        &self.output_folder
    }

    /// The folder of the graph file.
    pub fn graph_folder(&self) -> &Path {
        &self.graph_folder
    }

    /// Resolves the path of an input file of a node. `folder` is the folder of the node's own file if that is an
    /// included graph.
    pub(super) fn resolve(&self, folder: Option<&Path>, path: &Path) -> PathBuf {
        folder.unwrap_or(&self.graph_folder).join(path)
    }

    pub(super) fn service<T: Send + Sync + 'static>(&self) -> Option<Arc<T>> {
        self.services.get(&TypeId::of::<T>())?.clone().downcast().ok()
    }
}
