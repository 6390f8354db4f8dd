//! Manifests: the material of a result's key, and where its values are.

use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use super::folder::is_format;
use super::sealed;
use crate::key::{Digest, Key, Material};
use crate::node::SocketSpec;

/// The format of manifests. Raise it when the meaning of a manifest changes.
const FORMAT: u32 = 1;

/// A result on disk. Written after its blobs, so that they exist.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    format: u32,
    /// The memo key.
    pub key: Key,
    /// When it was written, in seconds since 1970.
    created: u64,
    /// The material of the key.
    pub material: Material,
    /// The values of the output sockets. `None` if they are not on disk, because one of them has no format or they are too
    /// large: then the manifest only records that the node ran.
    pub outputs: Option<Vec<Blob>>,
}

/// A value on disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Blob {
    /// [`Payload::TYPE`](crate::Payload::TYPE).
    #[serde(rename = "type")]
    pub type_name: String,
    /// [`Codec::format`](crate::Codec::format).
    pub format: String,
    /// [`Codec::version`](crate::Codec::version).
    pub version: u32,
    /// The digest of its bytes.
    pub digest: Digest,
    /// Its length in bytes.
    pub bytes: u64,
}

impl Manifest {
    pub(crate) fn new(key: Key, material: Material, outputs: Option<Vec<Blob>>) -> Manifest {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Manifest { format: FORMAT, key, created: now.as_secs(), material, outputs }
    }

    /// When it was written.
    pub fn created(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(self.created)
    }

    pub(crate) fn to_text(&self) -> serde_json::Result<String> {
        sealed::seal(self)
    }

    /// Reads the manifest of `key`; `None` if it is damaged.
    pub(crate) fn from_bytes(bytes: &[u8], key: &Key) -> Option<Manifest> {
        let manifest: Manifest = sealed::open(bytes)?;
        let is_valid =
            manifest.format == FORMAT && manifest.key == *key && manifest.blobs().all(|b| is_format(&b.format));
        is_valid.then_some(manifest)
    }

    pub(crate) fn blobs(&self) -> impl Iterator<Item = &Blob> {
        self.outputs.iter().flatten()
    }

    /// Whether these sockets can read its blobs. They cannot if a codec has changed.
    pub(crate) fn fits(&self, sockets: &[SocketSpec]) -> bool {
        self.outputs.as_ref().is_some_and(|blobs| {
            blobs.len() == sockets.len() && blobs.iter().zip(sockets).all(|(blob, socket)| blob.fits(socket))
        })
    }
}

impl Blob {
    fn fits(&self, socket: &SocketSpec) -> bool {
        self.type_name == socket.type_name
            && socket.codec.is_some_and(|codec| (codec.format, codec.version) == (&*self.format, self.version))
    }
}
