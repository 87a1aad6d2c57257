//! Shows any CBOR to people: in diagnostic notation (RFC 8949 section 8), and as COSE if it is COSE.
//!
//! This is for bytes that the strict reader refuses. Nothing acts on the result, and no secret of a key is shown.

use core::fmt::Write as _;

use ciborium::Value as Cbor;
use coset::{AsCborValue as _, CborSerializable as _, CoseKey, CoseSign1};

use super::canonical::deviations;
use crate::output::{Fields, Value};

/// Deepest nesting that is shown or handed to coset, which recurses as deep as its input does.
const DEPTH_MAX: usize = 24;
/// Longest diagnostic text.
const TEXT_MAX: usize = 16 * 1024;
/// Longest byte string that is shown whole.
const BYTES_SHOWN: usize = 64;
/// The label of the secret of an EC2 or OKP key (RFC 9053 section 7).
const SECRET_LABEL: i64 = -4;
/// The label of the key type, and the types RSA and symmetric, of which every member of the type's own may be
/// secret.
const KEY_TYPE: i64 = 1;
const OTHER_KEY_TYPES: [i64; 2] = [3, 4];
/// The tag of a COSE_Sign1.
const TAG_SIGN1: u64 = 18;

/// Explains `bytes`; `None` if they are not CBOR.
#[must_use]
pub(super) fn explain(bytes: &[u8]) -> Option<Fields> {
    let findings = deviations(bytes);
    if findings.iter().any(|finding| !finding.what.is_lenient()) {
        return None;
    }
    let value: Cbor = ciborium::from_reader(bytes).ok()?;
    let findings = findings.iter().map(|finding| Value::Text(finding.to_string())).collect::<Vec<_>>();
    let mut fields = Fields::new().with("not_canonical", findings);
    if depth(&value) <= DEPTH_MAX {
        if let Some(key) = cose_key(bytes) {
            fields.add("cose_key", key);
        }
        if let Some(sign1) = cose_sign1(&value) {
            fields.add("cose_sign1", sign1);
        }
    }
    Some(fields.with("diagnostic", diagnostic(&value)))
}

fn depth(value: &Cbor) -> usize {
    1 + match value {
        Cbor::Array(items) => items.iter().map(depth).max().unwrap_or(0),
        Cbor::Map(pairs) => pairs.iter().map(|(key, value)| depth(key).max(depth(value))).max().unwrap_or(0),
        Cbor::Tag(_, inner) => depth(inner),
        _ => 0,
    }
}

/// A COSE_Key as coset reads it, also with members that ours don't have.
fn cose_key(bytes: &[u8]) -> Option<Fields> {
    let key = CoseKey::from_slice(bytes).ok()?;
    let private = key.params.iter().any(|(label, _)| *label == coset::Label::Int(SECRET_LABEL));
    Some(
        Fields::new()
            .with("key_type", name(&key.kty))
            .with("algorithm", key.alg.as_ref().map(name))
            .with("key_id", hex::encode(key.key_id))
            .with("private", private),
    )
}

/// A COSE_Sign1 as coset reads it, tagged or not.
fn cose_sign1(value: &Cbor) -> Option<Fields> {
    let array = match value {
        Cbor::Tag(TAG_SIGN1, inner) => inner.as_ref(),
        other => other,
    };
    let sign1 = CoseSign1::from_cbor_value(array.clone()).ok()?;
    let algorithm = sign1.protected.header.alg.as_ref().map(name);
    Some(
        Fields::new()
            .with("tagged", matches!(value, Cbor::Tag(..)))
            .with("algorithm", algorithm)
            .with("key_id", hex::encode(sign1.unprotected.key_id))
            .with("payload", sign1.payload.map_or_else(|| "detached".into(), |payload| count(payload.len())))
            .with("signature", count(sign1.signature.len())),
    )
}

/// Takes the name that IANA gave out of `Assigned(Name)`.
fn name(label: &impl core::fmt::Debug) -> String {
    let text = format!("{label:?}");
    text.strip_prefix("Assigned(").and_then(|text| text.strip_suffix(')')).unwrap_or(&text).into()
}

fn count(bytes: usize) -> String {
    format!("{bytes} bytes")
}

fn diagnostic(value: &Cbor) -> String {
    let mut out = String::new();
    write(&mut out, value, DEPTH_MAX);
    if out.len() > TEXT_MAX {
        let end = (0..=TEXT_MAX).rev().find(|end| out.is_char_boundary(*end)).unwrap_or(0);
        out.truncate(end);
        out.push_str("...");
    }
    out
}

fn write(out: &mut String, value: &Cbor, depth: usize) {
    let Some(depth) = depth.checked_sub(1).filter(|_| out.len() <= TEXT_MAX) else {
        out.push_str("...");
        return;
    };
    match value {
        Cbor::Integer(number) => put(out, format_args!("{}", i128::from(*number))),
        Cbor::Bytes(bytes) => write_bytes(out, bytes, depth),
        Cbor::Float(number) => put(out, format_args!("{number:?}")),
        Cbor::Text(text) => put(out, format_args!("{text:?}")),
        Cbor::Bool(flag) => put(out, format_args!("{flag}")),
        Cbor::Null => out.push_str("null"),
        Cbor::Tag(tag, inner) => {
            put(out, format_args!("{tag}("));
            write(out, inner, depth);
            out.push(')');
        }
        Cbor::Array(items) => {
            out.push('[');
            for (number, item) in items.iter().enumerate() {
                separate(out, number);
                write(out, item, depth);
            }
            out.push(']');
        }
        Cbor::Map(pairs) => {
            out.push('{');
            for (number, (key, value)) in pairs.iter().enumerate() {
                separate(out, number);
                write(out, key, depth);
                out.push_str(": ");
                if is_secret(pairs, key) {
                    out.push_str("(not shown)");
                } else {
                    write(out, value, depth);
                }
            }
            out.push('}');
        }
        _ => out.push_str("(unknown)"),
    }
}

/// Whether the value of `key` may be the secret of a key.
fn is_secret(pairs: &[(Cbor, Cbor)], key: &Cbor) -> bool {
    let other = pairs.iter().any(|(label, value)| {
        *label == Cbor::from(KEY_TYPE) && OTHER_KEY_TYPES.iter().any(|kty| *value == Cbor::from(*kty))
    });
    *key == Cbor::from(SECRET_LABEL) || other && key.as_integer().is_some_and(|label| i128::from(label) < 0)
}

fn separate(out: &mut String, number: usize) {
    if number > 0 {
        out.push_str(", ");
    }
}

/// Writes embedded CBOR as `<<...>>`, and cuts long strings.
fn write_bytes(out: &mut String, bytes: &[u8], depth: usize) {
    let nested = bytes.first().is_some_and(|first| matches!(first >> 5, 4..=6))
        && deviations(bytes).iter().all(|finding| {
            finding.what.is_lenient() && finding.what != super::canonical::Deviation::Trailing
        });
    if let Some(value) = nested.then(|| ciborium::from_reader::<Cbor, _>(bytes).ok()).flatten() {
        out.push_str("<<");
        write(out, &value, depth);
        out.push_str(">>");
        return;
    }
    match bytes.get(..BYTES_SHOWN).filter(|_| bytes.len() > BYTES_SHOWN) {
        Some(start) => put(out, format_args!("h'{}...' ({} bytes)", hex::encode(start), bytes.len())),
        None => put(out, format_args!("h'{}'", hex::encode(bytes))),
    }
}

fn put(out: &mut String, text: core::fmt::Arguments<'_>) {
    out.write_fmt(text).expect("writing to a string does not fail");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(hex: &str) -> String {
        let fields = explain(&hex::decode(hex).unwrap()).unwrap();
        fields.value("diagnostic").unwrap().human()
    }

    #[test]
    fn any_cbor_is_shown_in_diagnostic_notation() {
        assert_eq!(shown("a201820203024104"), "{1: [2, 3], 2: h'04'}");
        assert_eq!(shown("d28443a10126a0f640"), "18([<<{1: -7}>>, {}, null, h''])");
        assert_eq!(shown("9f1817fb3ff8000000000000ff"), "[23, 1.5]");
        assert!(shown(&format!("58c8{}", "ab".repeat(200))).ends_with("...' (200 bytes)"));
    }

    #[test]
    fn secrets_of_keys_are_never_shown() {
        // A COSE_Key whose members are in the wrong order, so that the strict reader refuses it.
        let secret = "5e".repeat(32);
        let key = format!("a4235820{secret}010103322006");
        let fields = explain(&hex::decode(&key).unwrap()).unwrap();
        assert!(!fields.json().contains("5e5e"), "{}", fields.json());
        assert!(fields.human().contains("-4: (not shown)"));
        assert!(fields.human().contains("private    yes"), "{}", fields.human());
    }

    #[test]
    fn what_is_no_cbor_is_not_explained() {
        assert_eq!(explain(&[0x42, 1]), None);
        assert_eq!(explain(b""), None);
        assert_eq!(explain(&[0x81; 100]), None);
    }

    /// coset recurses into countersignatures. Input that is nested too deep for it must be stopped before,
    /// although ciborium accepts it.
    #[test]
    fn deep_nesting_is_cut_and_never_overflows() {
        for levels in [10, 25, 60, 300, 5000] {
            let mut bytes = vec![0xd2, 0x84, 0x40, 0xa1, 0x07];
            for _ in 0..levels {
                bytes.extend([0x83, 0x40, 0xa1, 0x07]);
            }
            bytes.extend([0x83, 0x40, 0xa0, 0x40]);
            bytes.extend(vec![0x40; levels]);
            bytes.extend([0xf6, 0x40]);
            drop(explain(&bytes));
        }
    }
}
