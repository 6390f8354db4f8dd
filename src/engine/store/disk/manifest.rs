//! What is known of one result: what its key was made of, and where its values lie.

use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use super::folder::is_format;
use super::sealed;
use crate::digest::Digest;
use crate::key::{Key, Material};
use crate::socket::SocketSpec;

/// Raised when a manifest says something else than before.
const FORMAT: u32 = 1;

/// What the disk knows of a result. Written after its blobs, so that what it names is there.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    format: u32,
    pub key: Key,
    /// When it was written, in seconds since 1970.
    created: u64,
    pub material: Material,
    /// By output socket. `None` where the values are not on disk, because one of them has no form there or they are too
    /// large: the manifest is then a mere record.
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
    /// Of its bytes.
    pub digest: Digest,
    /// Its length.
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

    /// The manifest of `key`, if the bytes are whole.
    pub(crate) fn from_bytes(bytes: &[u8], key: &Key) -> Option<Manifest> {
        let manifest: Manifest = sealed::open(bytes)?;
        let sound = manifest.format == FORMAT && manifest.key == *key && manifest.blobs().all(|b| is_format(&b.format));
        sound.then_some(manifest)
    }

    pub(crate) fn blobs(&self) -> impl Iterator<Item = &Blob> {
        self.outputs.iter().flatten()
    }

    /// Whether these sockets can read its blobs: others cannot where a codec has changed since.
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
