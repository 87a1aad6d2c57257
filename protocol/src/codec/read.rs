//! Reads deterministic CBOR, and refuses everything else.

use minicbor::data::Type;
use minicbor::decode::Decoder;

use super::{DecodeError, MapReader};
use crate::limits::CBOR_DEPTH_MAX;

/// Reads strict, deterministic CBOR from a byte slice without allocating.
///
/// Strings are borrowed from the input. Each method names the field it reads, for the error.
#[derive(Clone, Debug)]
pub struct Reader<'b> {
    decoder: Decoder<'b>,
}

/// What kind of item comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Item {
    /// An unsigned integer.
    Uint,
    /// A negative integer.
    Negative,
    /// A byte string.
    Bytes,
    /// A text string.
    Text,
    /// An array.
    Array,
    /// A map.
    Map,
    /// A tag.
    Tag,
    /// `true` or `false`.
    Bool,
    /// `null`.
    Null,
}

/// Tags of integers in byte strings (RFC 8949 section 3.4.3). They would be a second encoding of integers
/// that fit 64 bits, and none of ours is larger.
const BIGNUM_TAGS: [u64; 2] = [2, 3];

impl<'b> Reader<'b> {
    /// Starts at the first byte of `bytes`, which must hold at most `limit` bytes.
    ///
    /// # Errors
    /// [`DecodeError::TooLong`] before anything is parsed.
    pub fn new(what: &'static str, bytes: &'b [u8], limit: usize) -> Result<Self, DecodeError> {
        check_length(what, bytes.len() as u64, limit)?;
        Ok(Self { decoder: Decoder::new(bytes) })
    }

    /// Offset of the next item from the start of the input.
    #[must_use]
    pub fn position(&self) -> usize {
        self.decoder.position()
    }

    /// The whole input.
    #[must_use]
    pub fn input(&self) -> &'b [u8] {
        self.decoder.input()
    }

    /// The bytes not yet read.
    #[must_use]
    pub fn rest(&self) -> &'b [u8] {
        self.input().get(self.position()..).unwrap_or_default()
    }

    /// Whether everything has been read.
    #[must_use]
    pub fn is_at_end(&self) -> bool {
        self.rest().is_empty()
    }

    /// Takes `count` bytes that are not CBOR (fixed headers before a CBOR sequence).
    ///
    /// # Errors
    /// [`DecodeError::Truncated`].
    pub fn raw(&mut self, count: usize) -> Result<&'b [u8], DecodeError> {
        let at = self.position();
        let bytes = self.rest().get(..count).ok_or(DecodeError::truncated(at))?;
        self.decoder.set_position(at + count);
        Ok(bytes)
    }

    /// Checks that everything has been read.
    ///
    /// # Errors
    /// [`DecodeError::Trailing`].
    pub fn finish(&self) -> Result<(), DecodeError> {
        match self.rest().len() {
            0 => Ok(()),
            count => Err(DecodeError::trailing(count)),
        }
    }

    /// Says what comes next without reading it.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`] at the end, [`DecodeError::Indefinite`] or [`DecodeError::Type`] for
    /// items that are never allowed (indefinite lengths, floats, `undefined`, other simple values).
    pub fn peek(&self) -> Result<Item, DecodeError> {
        let at = self.position();
        if self.is_at_end() {
            return Err(DecodeError::truncated(at));
        }
        // The only input that fails here is a negative integer that ends after its first byte.
        match self.decoder.datatype().map_err(|_| DecodeError::truncated(at))? {
            Type::U8 | Type::U16 | Type::U32 | Type::U64 => Ok(Item::Uint),
            Type::I8 | Type::I16 | Type::I32 | Type::I64 | Type::Int => Ok(Item::Negative),
            Type::Bytes => Ok(Item::Bytes),
            Type::String => Ok(Item::Text),
            Type::Array => Ok(Item::Array),
            Type::Map => Ok(Item::Map),
            Type::Tag => Ok(Item::Tag),
            Type::Bool => Ok(Item::Bool),
            Type::Null => Ok(Item::Null),
            Type::BytesIndef | Type::StringIndef | Type::ArrayIndef | Type::MapIndef | Type::Break => {
                Err(DecodeError::indefinite(at))
            }
            _ => Err(DecodeError::wrong_type("item", at)),
        }
    }

    /// Reads an unsigned integer.
    ///
    /// # Errors
    /// Any [`DecodeError`] of a malformed head; [`DecodeError::Type`] for other items.
    pub fn uint(&mut self, what: &'static str) -> Result<u64, DecodeError> {
        let at = self.expect(what, Item::Uint)?;
        let value = self.decoder.u64().map_err(|_| DecodeError::truncated(at))?;
        self.shortest(at, self.position() - at, value)?;
        Ok(value)
    }

    /// Reads an unsigned integer of at most `limit`.
    ///
    /// # Errors
    /// As [`Reader::uint`], and [`DecodeError::Value`] above the limit.
    pub fn uint_max(&mut self, what: &'static str, limit: u64) -> Result<u64, DecodeError> {
        let value = self.uint(what)?;
        if value > limit { Err(DecodeError::value(what)) } else { Ok(value) }
    }

    /// Reads an unsigned integer that fits 32 bits.
    ///
    /// # Errors
    /// As [`Reader::uint_max`].
    pub fn u32(&mut self, what: &'static str) -> Result<u32, DecodeError> {
        u32::try_from(self.uint(what)?).map_err(|_| DecodeError::value(what))
    }

    /// Reads a signed integer of at most 64 bits.
    ///
    /// # Errors
    /// As [`Reader::uint`].
    pub fn int(&mut self, what: &'static str) -> Result<i64, DecodeError> {
        let at = self.position();
        if self.peek()? == Item::Uint {
            return i64::try_from(self.uint(what)?).map_err(|_| DecodeError::value(what));
        }
        self.expect(what, Item::Negative)?;
        let value = self.decoder.i64().map_err(|_| head_error(what, self.input(), at))?;
        let argument = value.checked_add(1).map_or(0, i64::unsigned_abs);
        self.shortest(at, self.position() - at, argument)?;
        Ok(value)
    }

    /// Reads `true` or `false`.
    ///
    /// # Errors
    /// [`DecodeError::Type`].
    pub fn bool(&mut self, what: &'static str) -> Result<bool, DecodeError> {
        let at = self.expect(what, Item::Bool)?;
        self.decoder.bool().map_err(|_| DecodeError::wrong_type(what, at))
    }

    /// Reads `null`.
    ///
    /// # Errors
    /// [`DecodeError::Type`].
    pub fn null(&mut self, what: &'static str) -> Result<(), DecodeError> {
        let at = self.expect(what, Item::Null)?;
        self.decoder.null().map_err(|_| DecodeError::wrong_type(what, at))
    }

    /// Reads a `null` if one comes next and says whether it did.
    ///
    /// # Errors
    /// As [`Reader::peek`].
    pub fn is_null(&mut self) -> Result<bool, DecodeError> {
        if self.peek()? == Item::Null {
            self.null("null")?;
            return Ok(true);
        }
        Ok(false)
    }

    /// Reads a byte string of at most `limit` bytes.
    ///
    /// # Errors
    /// [`DecodeError::TooLong`] above the limit, checked on the claimed length.
    pub fn bytes(&mut self, what: &'static str, limit: usize) -> Result<&'b [u8], DecodeError> {
        let at = self.expect(what, Item::Bytes)?;
        self.string_head(what, at, limit)?;
        self.decoder.bytes().map_err(|_| DecodeError::truncated(at))
    }

    /// Reads a byte string of exactly `N` bytes.
    ///
    /// # Errors
    /// [`DecodeError::Length`] for any other length.
    pub fn byte_array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], DecodeError> {
        let at = self.expect(what, Item::Bytes)?;
        let (claimed, _) = self.argument(at)?;
        if claimed != N as u64 {
            return Err(DecodeError::length(what, claimed, N as u64));
        }
        let bytes = self.bytes(what, N)?;
        bytes.try_into().map_err(|_| DecodeError::length(what, bytes.len() as u64, N as u64))
    }

    /// Reads a text string of at most `limit` bytes of UTF-8.
    ///
    /// # Errors
    /// [`DecodeError::TooLong`], [`DecodeError::Utf8`].
    pub fn text(&mut self, what: &'static str, limit: usize) -> Result<&'b str, DecodeError> {
        let at = self.expect(what, Item::Text)?;
        self.string_head(what, at, limit)?;
        self.decoder.str().map_err(|_| DecodeError::utf8(at))
    }

    /// Reads the head of an array of at most `limit` items and returns the count.
    ///
    /// # Errors
    /// [`DecodeError::TooLong`], checked before any item is read.
    pub fn array(&mut self, what: &'static str, limit: usize) -> Result<usize, DecodeError> {
        let at = self.expect(what, Item::Array)?;
        self.count_head(what, at, limit)
    }

    /// Reads the head of an array of exactly `want` items.
    ///
    /// # Errors
    /// [`DecodeError::Length`] for any other count.
    pub fn array_of(&mut self, what: &'static str, want: usize) -> Result<(), DecodeError> {
        let at = self.expect(what, Item::Array)?;
        let (got, _) = self.argument(at)?;
        if got != want as u64 {
            return Err(DecodeError::length(what, got, want as u64));
        }
        self.count_head(what, at, want).map(|_| ())
    }

    /// Reads the head of a map of at most `limit` pairs.
    ///
    /// # Errors
    /// [`DecodeError::TooLong`], checked before any pair is read.
    pub fn map(&mut self, what: &'static str, limit: usize) -> Result<MapReader<'b>, DecodeError> {
        let at = self.expect(what, Item::Map)?;
        let left = self.count_head(what, at, limit)?;
        Ok(MapReader::new(what, left))
    }

    /// Reads the tag `want`.
    ///
    /// # Errors
    /// [`DecodeError::Value`] for any other tag.
    pub fn tag(&mut self, what: &'static str, want: u64) -> Result<(), DecodeError> {
        let at = self.expect(what, Item::Tag)?;
        let (value, head) = self.argument(at)?;
        self.shortest(at, head, value)?;
        if value != want {
            return Err(DecodeError::value(what));
        }
        self.decoder.set_position(at + head);
        Ok(())
    }

    /// Checks the next item with everything in it and returns its bytes.
    ///
    /// # Errors
    /// Any [`DecodeError`]; [`DecodeError::Depth`] beyond [`CBOR_DEPTH_MAX`] levels.
    pub fn item(&mut self) -> Result<&'b [u8], DecodeError> {
        let from = self.position();
        self.skip_nested(CBOR_DEPTH_MAX)?;
        Ok(self.input().get(from..self.position()).unwrap_or_default())
    }

    /// Claimed counts need no limit here: every item takes at least a byte, or the input has ended.
    pub(super) fn skip_nested(&mut self, depth: usize) -> Result<(), DecodeError> {
        let at = self.position();
        let inner = || depth.checked_sub(1).ok_or(DecodeError::depth(at, CBOR_DEPTH_MAX));
        match self.peek()? {
            Item::Uint => self.uint("item").map(|_| ()),
            Item::Negative => self.int("item").map(|_| ()),
            Item::Bytes => self.bytes("item", usize::MAX).map(|_| ()),
            Item::Text => self.text("item", usize::MAX).map(|_| ()),
            Item::Bool => self.bool("item").map(|_| ()),
            Item::Null => self.null("item"),
            Item::Tag => {
                let inner = inner()?;
                let (value, head) = self.argument(at)?;
                self.shortest(at, head, value)?;
                if BIGNUM_TAGS.contains(&value) {
                    return Err(DecodeError::value("tag"));
                }
                self.decoder.set_position(at + head);
                self.skip_nested(inner)
            }
            Item::Array => {
                let inner = inner()?;
                for _ in 0..self.array("item", usize::MAX)? {
                    self.skip_nested(inner)?;
                }
                Ok(())
            }
            Item::Map => {
                let inner = inner()?;
                let mut map = self.map("item", usize::MAX)?;
                while map.next_raw(self, inner)?.is_some() {
                    self.skip_nested(inner)?;
                }
                Ok(())
            }
        }
    }

    /// Checks the type of the next item and returns its offset.
    fn expect(&self, what: &'static str, want: Item) -> Result<usize, DecodeError> {
        let at = self.position();
        if self.peek()? == want { Ok(at) } else { Err(DecodeError::wrong_type(what, at)) }
    }

    /// Checks a string's claimed length against `limit` and its head for the shortest form.
    fn string_head(&self, what: &'static str, at: usize, limit: usize) -> Result<(), DecodeError> {
        let (length, head) = self.argument(at)?;
        self.shortest(at, head, length)?;
        check_length(what, length, limit)?;
        let left = self.rest().len().saturating_sub(head);
        if length > left as u64 { Err(DecodeError::truncated(at)) } else { Ok(()) }
    }

    /// Reads the head of an array or map.
    fn count_head(&mut self, what: &'static str, at: usize, limit: usize) -> Result<usize, DecodeError> {
        let (count, head) = self.argument(at)?;
        self.shortest(at, head, count)?;
        check_length(what, count, limit)?;
        let count = usize::try_from(count).map_err(|_| DecodeError::value(what))?;
        self.decoder.set_position(at + head);
        Ok(count)
    }

    /// The argument of the head at `at` and the head's length in bytes, whatever its major type.
    fn argument(&self, at: usize) -> Result<(u64, usize), DecodeError> {
        let truncated = DecodeError::truncated(at);
        let head = self.input().get(at..).ok_or(truncated)?;
        let (first, rest) = head.split_first().ok_or(truncated)?;
        let width = match first & 0x1f {
            small @ 0..=23 => return Ok((u64::from(small), 1)),
            24 => 1,
            25 => 2,
            26 => 4,
            27 => 8,
            31 => return Err(DecodeError::indefinite(at)),
            _ => return Err(DecodeError::wrong_type("item", at)),
        };
        let argument = rest.get(..width).ok_or(truncated)?;
        Ok((argument.iter().fold(0, |value, byte| value << 8 | u64::from(*byte)), 1 + width))
    }

    /// Checks that a head of `length` bytes is the shortest for its argument.
    fn shortest(&self, at: usize, length: usize, argument: u64) -> Result<(), DecodeError> {
        let shortest = match argument {
            0..=23 => 1,
            24..=0xff => 2,
            0x100..=0xffff => 3,
            0x1_0000..=0xffff_ffff => 5,
            _ => 9,
        };
        if length == shortest { Ok(()) } else { Err(DecodeError::not_shortest(at)) }
    }
}

fn check_length(what: &'static str, got: u64, limit: usize) -> Result<(), DecodeError> {
    let limit = limit as u64;
    if got > limit { Err(DecodeError::too_long(what, got, limit)) } else { Ok(()) }
}

/// A negative integer that minicbor refused: cut short, or beyond 64 bits.
fn head_error(what: &'static str, input: &[u8], at: usize) -> DecodeError {
    let width = match input.get(at).map(|head| head & 0x1f) {
        Some(24) => 1,
        Some(25) => 2,
        Some(26) => 4,
        Some(27) => 8,
        _ => 0,
    };
    if input.len().saturating_sub(at) <= width {
        DecodeError::truncated(at)
    } else {
        DecodeError::value(what)
    }
}
