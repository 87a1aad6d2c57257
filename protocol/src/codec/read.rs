//! Reads deterministic CBOR, and refuses everything else.

use alloc::vec::Vec;

use super::{DecodeError, MapReader, argument_width};
use crate::limits::CBOR_DEPTH_MAX;

/// Reads strict, deterministic CBOR from a byte slice, and allocates for lists only.
///
/// Strings are borrowed from the input. Each method names the field it reads, for the error.
#[derive(Clone, Debug)]
pub struct Reader<'b> {
    input: &'b [u8],
    position: usize,
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

pub(super) const FALSE: u8 = 0xf4;
pub(super) const TRUE: u8 = 0xf5;
pub(super) const NULL: u8 = 0xf6;
/// Ends an item of indefinite length.
const BREAK: u8 = 0xff;

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
        Ok(Self { input: bytes, position: 0 })
    }

    /// Offset of the next item from the start of the input.
    #[must_use]
    pub fn position(&self) -> usize {
        self.position
    }

    /// The whole input.
    #[must_use]
    pub fn input(&self) -> &'b [u8] {
        self.input
    }

    /// The bytes not yet read.
    #[must_use]
    pub fn rest(&self) -> &'b [u8] {
        self.input.get(self.position..).unwrap_or_default()
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
        let at = self.position;
        let bytes = self.rest().get(..count).ok_or(DecodeError::truncated(at))?;
        self.position += count;
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
        let at = self.position;
        let first = *self.rest().first().ok_or(DecodeError::truncated(at))?;
        let item = match first >> 5 {
            0 => Item::Uint,
            1 => Item::Negative,
            2 => Item::Bytes,
            3 => Item::Text,
            4 => Item::Array,
            5 => Item::Map,
            6 => Item::Tag,
            _ => match first {
                FALSE | TRUE => return Ok(Item::Bool),
                NULL => return Ok(Item::Null),
                BREAK => return Err(DecodeError::indefinite(at)),
                _ => return Err(DecodeError::wrong_type("item", at)),
            },
        };
        match first & 0x1f {
            0..=27 => Ok(item),
            31 if matches!(item, Item::Bytes | Item::Text | Item::Array | Item::Map) => {
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
        self.head(what, Item::Uint)
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
        let is_negative = self.peek()? == Item::Negative;
        let argument = self.head(what, if is_negative { Item::Negative } else { Item::Uint })?;
        let value = i64::try_from(argument).map_err(|_| DecodeError::value(what))?;
        // -1 - n is encoded as n.
        Ok(if is_negative { !value } else { value })
    }

    /// Reads `true` or `false`.
    ///
    /// # Errors
    /// [`DecodeError::Type`].
    pub fn bool(&mut self, what: &'static str) -> Result<bool, DecodeError> {
        self.expect(what, Item::Bool)?;
        let is_true = self.rest().first() == Some(&TRUE);
        self.position += 1;
        Ok(is_true)
    }

    /// Reads `null`.
    ///
    /// # Errors
    /// [`DecodeError::Type`].
    pub fn null(&mut self, what: &'static str) -> Result<(), DecodeError> {
        self.expect(what, Item::Null)?;
        self.position += 1;
        Ok(())
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
        self.string(what, Item::Bytes, limit)
    }

    /// Reads a byte string of exactly `N` bytes.
    ///
    /// # Errors
    /// [`DecodeError::Length`] for any other length.
    pub fn byte_array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], DecodeError> {
        let bytes = self.bytes_of(what, N)?;
        bytes.try_into().map_err(|_| DecodeError::length(what, bytes.len() as u64, N as u64))
    }

    /// Reads a byte string that wraps CBOR (`bstr .cbor`) of at most `limit` bytes, and returns a reader of it.
    ///
    /// # Errors
    /// As [`Reader::bytes`].
    pub fn wrapped(&mut self, what: &'static str, limit: usize) -> Result<Self, DecodeError> {
        Ok(Self { input: self.bytes(what, limit)?, position: 0 })
    }

    /// Reads a text string of at most `limit` bytes of UTF-8.
    ///
    /// # Errors
    /// [`DecodeError::TooLong`], [`DecodeError::Utf8`].
    pub fn text(&mut self, what: &'static str, limit: usize) -> Result<&'b str, DecodeError> {
        let at = self.position;
        core::str::from_utf8(self.string(what, Item::Text, limit)?).map_err(|_| DecodeError::utf8(at))
    }

    /// Reads the head of an array of at most `limit` items and returns the count.
    ///
    /// # Errors
    /// [`DecodeError::TooLong`], checked before any item is read.
    pub fn array(&mut self, what: &'static str, limit: usize) -> Result<usize, DecodeError> {
        self.count(what, Item::Array, limit)
    }

    /// Reads an array of at most `limit` items, each with `read`.
    ///
    /// # Errors
    /// As [`Reader::array`], and those of `read`.
    pub fn list<T, E: From<DecodeError>>(
        &mut self,
        what: &'static str,
        limit: usize,
        mut read: impl FnMut(&mut Self) -> Result<T, E>,
    ) -> Result<Vec<T>, E> {
        let count = self.array(what, limit)?;
        // A loop is smaller than what `collect` makes of results.
        let mut items = Vec::new();
        for _ in 0..count {
            items.push(read(self)?);
        }
        Ok(items)
    }

    /// Reads the head of an array of exactly `want` items.
    ///
    /// # Errors
    /// [`DecodeError::Length`] for any other count.
    pub fn array_of(&mut self, what: &'static str, want: usize) -> Result<(), DecodeError> {
        self.claims(what, Item::Array, want)?;
        self.head(what, Item::Array).map(drop)
    }

    /// Reads the head of a map of at most `limit` pairs.
    ///
    /// # Errors
    /// [`DecodeError::TooLong`], checked before any pair is read.
    pub fn map(&mut self, what: &'static str, limit: usize) -> Result<MapReader<'b>, DecodeError> {
        Ok(MapReader::new(what, self.count(what, Item::Map, limit)?))
    }

    /// Reads the tag `want`.
    ///
    /// # Errors
    /// [`DecodeError::Value`] for any other tag.
    pub fn tag(&mut self, what: &'static str, want: u64) -> Result<(), DecodeError> {
        if self.head(what, Item::Tag)? == want { Ok(()) } else { Err(DecodeError::value(what)) }
    }

    /// Checks the next item with everything in it and returns its bytes.
    ///
    /// # Errors
    /// Any [`DecodeError`]; [`DecodeError::Depth`] beyond [`CBOR_DEPTH_MAX`] levels.
    pub fn item(&mut self) -> Result<&'b [u8], DecodeError> {
        let from = self.position;
        self.skip_nested(CBOR_DEPTH_MAX)?;
        Ok(self.input.get(from..self.position).unwrap_or_default())
    }

    /// Claimed counts need no limit here: every item takes at least a byte, or the input has ended.
    pub(super) fn skip_nested(&mut self, depth: usize) -> Result<(), DecodeError> {
        let at = self.position;
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
                if BIGNUM_TAGS.contains(&self.head("item", Item::Tag)?) {
                    return Err(DecodeError::value("tag"));
                }
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

    /// Checks the type of the next item.
    fn expect(&self, what: &'static str, want: Item) -> Result<(), DecodeError> {
        if self.peek()? == want { Ok(()) } else { Err(DecodeError::wrong_type(what, self.position)) }
    }

    /// Reads a byte string of exactly `want` bytes.
    fn bytes_of(&mut self, what: &'static str, want: usize) -> Result<&'b [u8], DecodeError> {
        self.claims(what, Item::Bytes, want)?;
        self.bytes(what, want)
    }

    /// Checks that the next item claims to have length `want`.
    fn claims(&self, what: &'static str, item: Item, want: usize) -> Result<(), DecodeError> {
        self.expect(what, item)?;
        let (claimed, _) = self.argument()?;
        let want = want as u64;
        if claimed == want { Ok(()) } else { Err(DecodeError::length(what, claimed, want)) }
    }

    /// Reads a string. Its claimed length is checked before its bytes are looked for.
    fn string(&mut self, what: &'static str, item: Item, limit: usize) -> Result<&'b [u8], DecodeError> {
        let at = self.position;
        let length = self.count(what, item, limit)?;
        let bytes = self.rest().get(..length).ok_or(DecodeError::truncated(at))?;
        self.position += length;
        Ok(bytes)
    }

    /// Reads the head of a string, an array or a map, and returns its length.
    fn count(&mut self, what: &'static str, item: Item, limit: usize) -> Result<usize, DecodeError> {
        let count = self.head(what, item)?;
        check_length(what, count, limit)?;
        usize::try_from(count).map_err(|_| DecodeError::value(what))
    }

    /// Reads the head of an item that has an argument, and returns the argument.
    fn head(&mut self, what: &'static str, item: Item) -> Result<u64, DecodeError> {
        self.expect(what, item)?;
        let (argument, width) = self.argument()?;
        if width != argument_width(argument) {
            return Err(DecodeError::not_shortest(self.position));
        }
        self.position += 1 + width;
        Ok(argument)
    }

    /// The next head's argument and how many bytes it takes after the first one, whatever the type of the item.
    fn argument(&self) -> Result<(u64, usize), DecodeError> {
        let truncated = DecodeError::truncated(self.position);
        let (first, rest) = self.rest().split_first().ok_or(truncated)?;
        let width = match first & 0x1f {
            small @ 0..=23 => return Ok((u64::from(small), 0)),
            more => 1 << (more & 3),
        };
        let argument = rest.get(..width).ok_or(truncated)?;
        Ok((argument.iter().fold(0, |value, byte| value << 8 | u64::from(*byte)), width))
    }
}

fn check_length(what: &'static str, got: u64, limit: usize) -> Result<(), DecodeError> {
    let limit = limit as u64;
    if got > limit { Err(DecodeError::too_long(what, got, limit)) } else { Ok(()) }
}
