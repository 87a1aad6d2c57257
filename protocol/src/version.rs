//! The protocol's version, which every message and every signed object carries (SPEC section 3.2).

use crate::codec::DecodeError;

/// The version that this crate speaks.
pub const PROTOCOL_VERSION: u8 = 1;

/// High nibbles from here on start a CBOR tag, so they are signed objects and never versions.
const FIRST_TAG_NIBBLE: u8 = 0xc;

/// The first byte of an unsigned message: version in the high nibble, kind in the low one.
pub(crate) const fn head_byte(version: u8, kind: u8) -> u8 {
    version << 4 | kind & 0x0f
}

/// Reads the first byte of a message; `None` for signed objects, which begin with a CBOR tag.
///
/// # Errors
/// [`DecodeError::Truncated`] for an empty message, [`DecodeError::Version`] for other versions.
pub(crate) fn read_head(message: &[u8]) -> Result<Option<u8>, DecodeError> {
    let first = *message.first().ok_or(DecodeError::truncated(0))?;
    match first >> 4 {
        version if version >= FIRST_TAG_NIBBLE => Ok(None),
        PROTOCOL_VERSION => Ok(Some(first & 0x0f)),
        version => Err(DecodeError::version(version)),
    }
}
