//! Writes deterministic CBOR.

use alloc::vec::Vec;

use super::argument_width;
use super::read::{FALSE, NULL, TRUE};

/// Writes deterministic CBOR (RFC 8949 section 4.2.1) into a growing buffer.
///
/// The caller has to write map keys in ascending order. The writer ensures everything else. Writing cannot
/// fail.
#[derive(Clone, Debug, Default)]
pub struct Writer {
    out: Vec<u8>,
}

impl Writer {
    /// Starts with an empty buffer.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Starts with a buffer that holds `prefix` (a fixed header before a CBOR sequence).
    #[must_use]
    pub fn after(prefix: &[u8]) -> Self {
        Self { out: prefix.to_vec() }
    }

    /// The bytes written.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        self.out
    }

    /// The bytes written so far.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.out
    }

    /// Writes an unsigned integer.
    pub fn uint(&mut self, value: u64) -> &mut Self {
        self.head(0, value)
    }

    /// Writes a signed integer.
    pub fn int(&mut self, value: i64) -> &mut Self {
        // -1 - n is encoded as n.
        let (major, argument) = if value < 0 { (1, !value) } else { (0, value) };
        self.head(major, argument.unsigned_abs())
    }

    /// Writes a byte string.
    pub fn bytes(&mut self, value: &[u8]) -> &mut Self {
        self.head(2, value.len() as u64).raw(value)
    }

    /// Writes a text string.
    pub fn text(&mut self, value: &str) -> &mut Self {
        self.head(3, value.len() as u64).raw(value.as_bytes())
    }

    /// Writes the head of an array of `count` items.
    pub fn array(&mut self, count: usize) -> &mut Self {
        self.head(4, count as u64)
    }

    /// Writes the head of a map of `count` pairs, whose keys the caller writes in ascending order.
    pub fn map(&mut self, count: usize) -> &mut Self {
        self.head(5, count as u64)
    }

    /// Writes a tag.
    pub fn tag(&mut self, value: u64) -> &mut Self {
        self.head(6, value)
    }

    /// Writes `true` or `false`.
    pub fn bool(&mut self, value: bool) -> &mut Self {
        self.raw(&[if value { TRUE } else { FALSE }])
    }

    /// Writes `null`.
    pub fn null(&mut self) -> &mut Self {
        self.raw(&[NULL])
    }

    /// Writes `value` as a byte string, or `null` if there is none.
    pub fn bytes_or_null(&mut self, value: Option<&[u8]>) -> &mut Self {
        match value {
            Some(value) => self.bytes(value),
            None => self.null(),
        }
    }

    /// Appends bytes that are already encoded.
    pub fn raw(&mut self, encoded: &[u8]) -> &mut Self {
        self.out.extend_from_slice(encoded);
        self
    }

    /// Writes what `inner` writes, wrapped in a byte string (`bstr .cbor`).
    pub fn wrapped(&mut self, inner: impl FnOnce(&mut Self)) -> &mut Self {
        let mut content = Self::new();
        inner(&mut content);
        self.bytes(&content.out)
    }

    /// Writes the head of an item of the major type `major`.
    fn head(&mut self, major: u8, argument: u64) -> &mut Self {
        let bytes = argument.to_be_bytes();
        let [.., lowest] = bytes;
        let width = argument_width(argument);
        let info = match width {
            0 => lowest,
            1 => 24,
            2 => 25,
            4 => 26,
            _ => 27,
        };
        self.out.push(major << 5 | info);
        self.raw(bytes.get(bytes.len() - width..).unwrap_or_default())
    }
}
