//! Reads maps and checks that their keys ascend.

use super::{DecodeError, Reader};
use crate::limits::CBOR_DEPTH_MAX;

/// Reads the pairs of one map and checks that its keys ascend.
///
/// The values are read with the [`Reader`] that the map came from, one after each key.
#[derive(Debug)]
pub struct MapReader<'b> {
    what: &'static str,
    left: usize,
    previous: Option<&'b [u8]>,
}

impl<'b> MapReader<'b> {
    pub(super) const fn new(what: &'static str, left: usize) -> Self {
        Self { what, left, previous: None }
    }

    /// Reads the next key as an integer, or `None` after the last pair.
    ///
    /// # Errors
    /// [`DecodeError::Unsorted`], [`DecodeError::Duplicate`], [`DecodeError::Type`] for other keys.
    pub fn next_int(&mut self, reader: &mut Reader<'b>) -> Result<Option<i64>, DecodeError> {
        if self.left == 0 {
            return Ok(None);
        }
        let at = reader.position();
        let key = reader.int(self.what)?;
        self.ascend(reader, at)?;
        Ok(Some(key))
    }

    /// Reads the next key, which the schema fixes.
    ///
    /// # Errors
    /// [`DecodeError::MissingKey`] if a higher key or none follows, [`DecodeError::UnknownKey`] for a key
    /// below it.
    pub fn expect(&mut self, reader: &mut Reader<'b>, key: i64) -> Result<(), DecodeError> {
        if self.optional(reader, key)? { Ok(()) } else { Err(DecodeError::missing_key(self.what, key)) }
    }

    /// Reads the next key if it is `key` and says whether it was.
    ///
    /// # Errors
    /// [`DecodeError::UnknownKey`] for a key below it, and those of [`MapReader::next_int`].
    pub fn optional(&mut self, reader: &mut Reader<'b>, key: i64) -> Result<bool, DecodeError> {
        if self.left == 0 {
            return Ok(false);
        }
        let mut ahead = reader.clone();
        match ahead.int(self.what)? {
            found if found == key => self.next_int(reader).map(|_| true),
            found if encoded_order(found) < encoded_order(key) => Err(self.unknown(found)),
            _ => Ok(false),
        }
    }

    /// Checks that no pair is left.
    ///
    /// # Errors
    /// [`DecodeError::UnknownKey`] if a pair is left.
    pub fn finish(&mut self, reader: &mut Reader<'b>) -> Result<(), DecodeError> {
        match self.next_int(reader)? {
            Some(key) => Err(self.unknown(key)),
            None => Ok(()),
        }
    }

    /// Reads the next key whatever its type and returns its bytes, or `None` after the last pair.
    ///
    /// # Errors
    /// As [`MapReader::next_int`].
    pub fn next_item(&mut self, reader: &mut Reader<'b>) -> Result<Option<&'b [u8]>, DecodeError> {
        self.next_raw(reader, CBOR_DEPTH_MAX)
    }

    pub(super) fn next_raw(
        &mut self,
        reader: &mut Reader<'b>,
        depth: usize,
    ) -> Result<Option<&'b [u8]>, DecodeError> {
        if self.left == 0 {
            return Ok(None);
        }
        let at = reader.position();
        reader.skip_nested(depth)?;
        self.ascend(reader, at).map(Some)
    }

    fn ascend(&mut self, reader: &Reader<'b>, at: usize) -> Result<&'b [u8], DecodeError> {
        let key = reader.input().get(at..reader.position()).unwrap_or_default();
        match self.previous.map(|previous| previous.cmp(key)) {
            Some(core::cmp::Ordering::Equal) => return Err(DecodeError::duplicate(at)),
            Some(core::cmp::Ordering::Greater) => return Err(DecodeError::unsorted(at)),
            Some(core::cmp::Ordering::Less) | None => {}
        }
        self.previous = Some(key);
        self.left -= 1;
        Ok(key)
    }

    /// The error for a key that the schema does not know.
    #[must_use]
    pub fn unknown(&self, key: i64) -> DecodeError {
        DecodeError::unknown_key(self.what, key)
    }

    /// Takes a value that the schema requires.
    ///
    /// # Errors
    /// [`DecodeError::MissingKey`] if there is none.
    pub fn require<T>(&self, value: Option<T>, key: i64) -> Result<T, DecodeError> {
        value.ok_or(DecodeError::missing_key(self.what, key))
    }
}

/// The order of integer keys in deterministic CBOR: negative keys come last, by magnitude.
fn encoded_order(key: i64) -> (bool, u64) {
    (key < 0, key.unsigned_abs())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::Writer;

    #[test]
    fn an_optional_key_is_missed_in_the_order_of_the_encoding() {
        let mut writer = Writer::new();
        writer.map(3).int(2).null().int(-2).null().int(-4).null();
        let reader = &mut Reader::new("test", writer.as_bytes(), 64).unwrap();
        let map = &mut reader.map("test", 3).unwrap();
        assert_eq!(map.optional(reader, 1), Ok(false));
        assert_eq!(map.optional(reader, 3), Err(map.unknown(2)));
        assert_eq!(map.optional(reader, -1), Err(map.unknown(2)));
        assert_eq!(map.optional(reader, 2), Ok(true));
        reader.null("value").unwrap();
        assert_eq!(map.optional(reader, -1), Ok(false));
        assert_eq!(map.optional(reader, -3), Err(map.unknown(-2)));
        assert_eq!(map.optional(reader, -2), Ok(true));
        reader.null("value").unwrap();
        assert_eq!(map.optional(reader, -3), Ok(false));
        assert_eq!(map.optional(reader, -4), Ok(true));
    }
}
