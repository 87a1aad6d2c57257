//! Applies a patch in memory.

use alloc::vec::Vec;

use crate::device::{InstallFailure, Opening};
use crate::patch::{Decoder, Header};

/// Makes the image of a patch. As on any device, the header has to name the images that were signed.
pub(super) fn apply(patch: &[u8], opening: &Opening, running: &mut &[u8]) -> Result<Vec<u8>, InstallFailure> {
    let (header, at) = Header::decode(patch).map_err(|_| InstallFailure::Decode)?;
    let memory = opening.transfer.decoder.map_or(0, |decoder| decoder.memory_bytes);
    let signed = Some(header.base) == opening.base
        && header.image.digest == opening.image
        && header.image.size == opening.image_size
        && header.memory_bytes() <= memory;
    if !signed {
        return Err(InstallFailure::Decode);
    }
    let mut decoder = Decoder::new(header);
    let mut rest = patch.get(at..).unwrap_or_default();
    let mut image = Vec::new();
    let mut room = [0; 1000];
    while !decoder.is_complete() {
        let (used, filled) =
            decoder.decode(rest, true, running, &mut room).map_err(|_| InstallFailure::Decode)?;
        image.extend_from_slice(room.get(..filled).unwrap_or_default());
        rest = rest.get(used..).unwrap_or_default();
        if used == 0 && filled == 0 {
            return Err(InstallFailure::Decode);
        }
    }
    decoder.finish(rest.len() as u64).map_err(|_| InstallFailure::Decode)?;
    Ok(image)
}
