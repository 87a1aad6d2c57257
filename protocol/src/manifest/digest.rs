//! SUIT_Digest: an algorithm and its output (draft-ietf-suit-manifest-37 section 10).
//!
//! ```cddl
//! digest = [-16, bstr .size 32]
//! ```

use alloc::vec::Vec;

use super::ManifestError;
use super::consts::digest::SHA_256;
use crate::codec::{Reader, Writer};
use crate::ids::Digest;
use crate::limits::ENVELOPE_BYTES_MAX;

/// Writes the digest as SUIT has it.
pub(crate) fn write_digest(writer: &mut Writer, digest: &Digest) {
    writer.array(2).int(SHA_256).bytes(&digest.0);
}

/// The bytes of the digest as SUIT has it: what a release key signs.
pub(crate) fn digest_bytes(digest: &Digest) -> Vec<u8> {
    let mut writer = Writer::new();
    write_digest(&mut writer, digest);
    writer.into_bytes()
}

/// Reads a digest.
///
/// # Errors
/// [`ManifestError::DigestAlgorithm`] for other algorithms; any [`DecodeError`](crate::codec::DecodeError).
pub(crate) fn read_digest(reader: &mut Reader<'_>) -> Result<Digest, ManifestError> {
    reader.array_of("digest", 2)?;
    let alg = reader.int("digest algorithm")?;
    if alg != SHA_256 {
        return Err(ManifestError::digest_algorithm(alg));
    }
    Ok(Digest(reader.byte_array("digest")?))
}

/// Reads a digest that a byte string wraps.
///
/// # Errors
/// As [`read_digest`].
pub(crate) fn read_wrapped_digest(
    reader: &mut Reader<'_>,
    what: &'static str,
) -> Result<Digest, ManifestError> {
    let mut inner = reader.wrapped(what, ENVELOPE_BYTES_MAX)?;
    let digest = read_digest(&mut inner)?;
    inner.finish()?;
    Ok(digest)
}

/// The digest of `content` with the byte string head that wraps it in the envelope: what SUIT hashes for
/// manifests and severed members (sections 8.3 and 8.4.12). Without the head nothing matches.
pub(crate) fn digest_of_wrapped(content: &[u8]) -> Digest {
    let mut writer = Writer::new();
    writer.bytes(content);
    Digest::of(writer.as_bytes())
}
