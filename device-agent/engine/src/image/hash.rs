//! Hashing images on the medium.

use alloc::vec;

use sha2::{Digest as _, Sha256};
use whimbrel_protocol::disk::{Area, Disk, DiskError};
use whimbrel_protocol::ids::Digest;

/// Bytes read at once.
const READ_BYTES: usize = 32 * 1024;

/// The digest of the first `size` bytes of `area` as the medium has them; `None` if it is shorter.
///
/// What is still in the cache is flushed first and then dropped: what counts is what a power cut leaves.
pub(crate) fn hash_medium(disk: &mut impl Disk, area: Area, size: u64) -> Result<Option<Digest>, DiskError> {
    if disk.len(area)? < size {
        return Ok(None);
    }
    disk.flush(area)?;
    disk.drop_cache(area)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; READ_BYTES];
    let mut at = 0;
    while at < size {
        let len = usize::try_from(size - at).unwrap_or(READ_BYTES).min(READ_BYTES);
        let Some(part) = buffer.get_mut(..len) else {
            break;
        };
        disk.read(area, at, part)?;
        hash.update(&*part);
        at += len as u64;
    }
    Ok(Some(Digest(hash.finalize().into())))
}
