//! Writes deterministic CBOR.

use alloc::vec::Vec;

use minicbor::encode::{Encoder, Write};

/// Writes deterministic CBOR (RFC 8949 section 4.2.1) into a growing buffer.
///
/// The caller has to write map keys in ascending order. The writer ensures everything else. Writing cannot
/// fail.
#[derive(Clone, Debug, Default)]
pub struct Writer {
    out: Vec<u8>,
}

/// Lets the encoder write into the buffer.
struct Sink<'a>(&'a mut Vec<u8>);

impl Write for Sink<'_> {
    type Error = core::convert::Infallible;

    fn write_all(&mut self, bytes: &[u8]) -> Result<(), Self::Error> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }
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
        self.with(|encoder| encoder.u64(value).map(drop))
    }

    /// Writes a signed integer.
    pub fn int(&mut self, value: i64) -> &mut Self {
        self.with(|encoder| encoder.i64(value).map(drop))
    }

    /// Writes a byte string.
    pub fn bytes(&mut self, value: &[u8]) -> &mut Self {
        self.with(|encoder| encoder.bytes(value).map(drop))
    }

    /// Writes a text string.
    pub fn text(&mut self, value: &str) -> &mut Self {
        self.with(|encoder| encoder.str(value).map(drop))
    }

    /// Writes the head of an array of `count` items.
    pub fn array(&mut self, count: usize) -> &mut Self {
        self.with(|encoder| encoder.array(count as u64).map(drop))
    }

    /// Writes the head of a map of `count` pairs, whose keys the caller writes in ascending order.
    pub fn map(&mut self, count: usize) -> &mut Self {
        self.with(|encoder| encoder.map(count as u64).map(drop))
    }

    /// Writes a tag.
    pub fn tag(&mut self, value: u64) -> &mut Self {
        self.with(|encoder| encoder.tag(minicbor::data::Tag::new(value)).map(drop))
    }

    /// Writes `true` or `false`.
    pub fn bool(&mut self, value: bool) -> &mut Self {
        self.with(|encoder| encoder.bool(value).map(drop))
    }

    /// Writes `null`.
    pub fn null(&mut self) -> &mut Self {
        self.with(|encoder| encoder.null().map(drop))
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

    fn with(
        &mut self,
        write: impl FnOnce(
            &mut Encoder<Sink<'_>>,
        ) -> Result<(), minicbor::encode::Error<core::convert::Infallible>>,
    ) -> &mut Self {
        let mut encoder = Encoder::new(Sink(&mut self.out));
        write(&mut encoder).expect("writing to memory does not fail");
        self
    }
}
