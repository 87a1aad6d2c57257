//! Signatures as other tools write them: 64 raw bytes, or DER for ECDSA (RFC 3279 section 2.2.3).

use thiserror::Error;
use whimbrel_protocol::cose::{Algorithm, Signature};

/// Why bytes are not a signature.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("{} bytes that are no signature: 64 raw bytes{} would be right", .got, if *.ecdsa { ", or ECDSA in DER," } else { "" })]
pub struct SignatureFormError {
    got: usize,
    ecdsa: bool,
}

/// Reads a signature of `algorithm`.
///
/// # Errors
/// [`SignatureFormError`].
pub fn parse_signature(algorithm: Algorithm, bytes: &[u8]) -> Result<Signature, SignatureFormError> {
    let ecdsa = algorithm != Algorithm::Ed25519;
    let raw = || bytes.try_into().ok();
    let der = || if ecdsa { parse_der(bytes) } else { None };
    raw().or_else(der).ok_or(SignatureFormError { got: bytes.len(), ecdsa })
}

/// Reads `SEQUENCE { r INTEGER, s INTEGER }` in its only DER form; both numbers are positive and below 2^256.
fn parse_der(bytes: &[u8]) -> Option<Signature> {
    let [0x30, length, content @ ..] = bytes else {
        return None;
    };
    if usize::from(*length) != content.len() || *length >= 0x80 {
        return None;
    }
    let (r, rest) = parse_integer(content)?;
    let (s, rest) = parse_integer(rest)?;
    if !rest.is_empty() {
        return None;
    }
    [r, s].concat().try_into().ok()
}

fn parse_integer(bytes: &[u8]) -> Option<([u8; 32], &[u8])> {
    let [0x02, length, rest @ ..] = bytes else {
        return None;
    };
    let (content, rest) = rest.split_at_checked(usize::from(*length))?;
    let digits = match content {
        // A leading zero is allowed only if the number would be negative without it.
        [0, digits @ ..] if digits.first().is_some_and(|first| *first >= 0x80) => digits,
        [first, ..] if (0x01..0x80).contains(first) => content,
        _ => return None,
    };
    let mut number = [0; 32];
    number.get_mut(32_usize.checked_sub(digits.len())?..)?.copy_from_slice(digits);
    Some((number, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes DER as signers do.
    fn der(r: &[u8], s: &[u8]) -> Vec<u8> {
        let integer = |number: &[u8]| {
            let start = number.iter().position(|byte| *byte != 0).unwrap_or(number.len());
            let digits = &number[start..];
            let sign: &[u8] = if digits[0] >= 0x80 { &[0] } else { &[] };
            [&[2, u8::try_from(sign.len() + digits.len()).unwrap()], sign, digits].concat()
        };
        let content = [integer(r), integer(s)].concat();
        [&[0x30, u8::try_from(content.len()).unwrap()], &content[..]].concat()
    }

    #[test]
    fn raw_and_der_signatures_are_the_same() {
        for first in [0x01, 0x7f, 0x80, 0xff] {
            let (mut r, mut s) = ([0x55; 32], [0xaa; 32]);
            r[0] = first;
            (s[0], s[1]) = (0, first);
            let raw = [r, s].concat();
            assert_eq!(parse_signature(Algorithm::Esp256, &raw).unwrap()[..], raw);
            assert_eq!(parse_signature(Algorithm::Esp256, &der(&r, &s)).unwrap()[..], raw);
            assert!(parse_signature(Algorithm::Ed25519, &der(&r, &s)).is_err());
        }
    }

    #[test]
    fn other_bytes_are_no_signature() {
        let good = der(&[0x55; 32], &[0xaa; 32]);
        // Any 64 bytes may be a raw signature.
        for len in (0..good.len()).filter(|len| *len != 64) {
            assert!(parse_signature(Algorithm::Esp256, &good[..len]).is_err(), "{len}");
        }
        let mut negative = good.clone();
        negative[4] = 0x80;
        assert!(parse_signature(Algorithm::Esp256, &negative).is_err());
        let padded = [&[0x30, 70, 2, 33, 0][..], &[0x55; 32], &[2, 33, 0], &[0xaa; 32]].concat();
        assert!(parse_signature(Algorithm::Esp256, &padded).is_err());
        let too_large = [&[0x30, 71, 2, 33, 1][..], &[0x55; 32], &[2, 33, 0], &[0xaa; 32]].concat();
        assert!(parse_signature(Algorithm::Esp256, &too_large).is_err());
        // Behind the numbers, inside of the sequence and outside of it.
        let inside = [&[0x30, good[1] + 3][..], &good[2..], &[2, 1, 1]].concat();
        assert!(parse_signature(Algorithm::Esp256, &inside).is_err());
        let mut trailing = good;
        trailing.push(0);
        assert!(parse_signature(Algorithm::Esp256, &trailing).is_err());
        let message = parse_signature(Algorithm::Ed25519, &[0; 63]).unwrap_err().to_string();
        assert_eq!(message, "63 bytes that are no signature: 64 raw bytes would be right");
    }
}
