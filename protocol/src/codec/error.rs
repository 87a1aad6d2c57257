//! Why bytes were not accepted.

use crate::errors::refusals;

refusals! {
    /// Why a strict decoding failed. Always the sender's fault; never a reason to stop.
    ///
    /// Carries numbers and static names only, so that it is `Copy` and tests compare values.
    pub enum DecodeError {
        /// The input ends inside an item.
        ("input ends inside an item at byte {at}")
        Truncated = truncated {
            /// Byte offset of the item.
            at: usize,
        },
        /// Bytes follow the last item.
        ("{count} bytes follow the last item")
        Trailing = trailing {
            /// How many.
            count: usize,
        },
        /// An integer or a length does not use its shortest form (RFC 8949 section 4.2.1).
        ("integer or length at byte {at} is not in its shortest form")
        NotShortest = not_shortest {
            /// Byte offset of the head.
            at: usize,
        },
        /// An indefinite length (RFC 8949 section 3.2).
        ("indefinite length at byte {at}")
        Indefinite = indefinite {
            /// Byte offset of the head.
            at: usize,
        },
        /// An item of another type than the schema says.
        ("{what} has the wrong type at byte {at}")
        Type = wrong_type {
            /// Which field.
            what: &'static str,
            /// Byte offset of the item.
            at: usize,
        },
        /// A string, list or message is longer than allowed.
        ("{what} has length {got}, at most {limit} is allowed")
        TooLong = too_long {
            /// Which field.
            what: &'static str,
            /// Length claimed by the input.
            got: u64,
            /// Most that is allowed.
            limit: u64,
        },
        /// A fixed-size string or list has another size.
        ("{what} has length {got}, {want} is required")
        Length = length {
            /// Which field.
            what: &'static str,
            /// Length claimed by the input.
            got: u64,
            /// The one length allowed.
            want: u64,
        },
        /// A map key is not greater than the one before it (RFC 8949 section 4.2.1).
        ("map keys are not in ascending order at byte {at}")
        Unsorted = unsorted {
            /// Byte offset of the key.
            at: usize,
        },
        /// A map key stands twice.
        ("map key stands twice at byte {at}")
        Duplicate = duplicate {
            /// Byte offset of the second.
            at: usize,
        },
        /// A key that the schema does not know.
        ("{what} has unknown key {key}")
        UnknownKey = unknown_key {
            /// Which map.
            what: &'static str,
            /// The key.
            key: i64,
        },
        /// A key that the schema requires.
        ("{what} lacks key {key}")
        MissingKey = missing_key {
            /// Which map.
            what: &'static str,
            /// The key.
            key: i64,
        },
        /// A value outside its range.
        ("{what} has a value that is not allowed")
        Value = value {
            /// Which field.
            what: &'static str,
        },
        /// Nesting deeper than allowed.
        ("nesting at byte {at} is deeper than {limit}")
        Depth = depth {
            /// Byte offset of the head.
            at: usize,
            /// Most that is allowed.
            limit: usize,
        },
        /// A text string that is not UTF-8.
        ("text at byte {at} is not UTF-8")
        Utf8 = utf8 {
            /// Byte offset of the item.
            at: usize,
        },
        /// A message of a version that this side does not speak.
        ("version {got} is not spoken here")
        Version = version {
            /// Version found.
            got: u8,
        },
        /// A message of an unknown kind, or of a kind that does not belong on its channel.
        ("message kind {got} is not known here")
        Kind = kind {
            /// Kind found.
            got: u8,
        },
    }
}
