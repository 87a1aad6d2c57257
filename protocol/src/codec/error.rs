//! Why bytes were not accepted.

use thiserror::Error;

/// Why a strict decoding failed. Always the sender's fault; never a reason to stop.
///
/// Carries numbers and static names only, so that it is `Copy` and tests compare values.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum DecodeError {
    /// The input ends inside an item.
    #[error("input ends inside an item at byte {at}")]
    Truncated {
        /// Byte offset of the item.
        at: usize,
    },
    /// Bytes follow the last item.
    #[error("{count} bytes follow the last item")]
    Trailing {
        /// How many.
        count: usize,
    },
    /// An integer or a length does not use its shortest form (RFC 8949 section 4.2.1).
    #[error("integer or length at byte {at} is not in its shortest form")]
    NotShortest {
        /// Byte offset of the head.
        at: usize,
    },
    /// An indefinite length (RFC 8949 section 3.2).
    #[error("indefinite length at byte {at}")]
    Indefinite {
        /// Byte offset of the head.
        at: usize,
    },
    /// An item of another type than the schema says.
    #[error("{what} has the wrong type at byte {at}")]
    Type {
        /// Which field.
        what: &'static str,
        /// Byte offset of the item.
        at: usize,
    },
    /// A string, list or message is longer than allowed.
    #[error("{what} has length {got}, at most {limit} is allowed")]
    TooLong {
        /// Which field.
        what: &'static str,
        /// Length claimed by the input.
        got: u64,
        /// Most that is allowed.
        limit: u64,
    },
    /// A fixed-size string or list has another size.
    #[error("{what} has length {got}, {want} is required")]
    Length {
        /// Which field.
        what: &'static str,
        /// Length claimed by the input.
        got: u64,
        /// The one length allowed.
        want: u64,
    },
    /// A map key is not greater than the one before it (RFC 8949 section 4.2.1).
    #[error("map keys are not in ascending order at byte {at}")]
    Unsorted {
        /// Byte offset of the key.
        at: usize,
    },
    /// A map key stands twice.
    #[error("map key stands twice at byte {at}")]
    Duplicate {
        /// Byte offset of the second.
        at: usize,
    },
    /// A key that the schema does not know.
    #[error("{what} has unknown key {key}")]
    UnknownKey {
        /// Which map.
        what: &'static str,
        /// The key.
        key: i64,
    },
    /// A key that the schema requires.
    #[error("{what} lacks key {key}")]
    MissingKey {
        /// Which map.
        what: &'static str,
        /// The key.
        key: i64,
    },
    /// A value outside its range.
    #[error("{what} has a value that is not allowed")]
    Value {
        /// Which field.
        what: &'static str,
    },
    /// Nesting deeper than allowed.
    #[error("nesting at byte {at} is deeper than {limit}")]
    Depth {
        /// Byte offset of the head.
        at: usize,
        /// Most that is allowed.
        limit: usize,
    },
    /// A text string that is not UTF-8.
    #[error("text at byte {at} is not UTF-8")]
    Utf8 {
        /// Byte offset of the item.
        at: usize,
    },
    /// A message of a version that this side does not speak.
    #[error("version {got} is not spoken here")]
    Version {
        /// Version found.
        got: u8,
    },
    /// A message of an unknown kind, or of a kind that does not belong on its channel.
    #[error("message kind {got} is not known here")]
    Kind {
        /// Kind found.
        got: u8,
    },
}
