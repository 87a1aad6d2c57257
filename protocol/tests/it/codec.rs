//! The strict reader against hostile bytes, and against another CBOR library.

use ciborium::Value;
use proptest::prelude::*;
use whimbrel_protocol::codec::{DecodeError, Reader, Writer};

fn read_item(bytes: &[u8]) -> Result<(), DecodeError> {
    let mut reader = Reader::new("test", bytes, usize::MAX)?;
    reader.item()?;
    reader.finish()
}

fn read_hex(text: &str) -> Result<(), DecodeError> {
    read_item(&hex::decode(text.replace(' ', "")).unwrap())
}

#[test]
fn every_form_that_is_not_canonical_has_one_named_error() {
    let table = [
        // Longer heads than needed, for every major type and width.
        ("18 17", DecodeError::NotShortest { at: 0 }),
        ("19 00ff", DecodeError::NotShortest { at: 0 }),
        ("1a 0000ffff", DecodeError::NotShortest { at: 0 }),
        ("1b 00000000ffffffff", DecodeError::NotShortest { at: 0 }),
        ("38 17", DecodeError::NotShortest { at: 0 }),
        ("39 00ff", DecodeError::NotShortest { at: 0 }),
        ("58 00", DecodeError::NotShortest { at: 0 }),
        ("78 01 61", DecodeError::NotShortest { at: 0 }),
        ("98 01 00", DecodeError::NotShortest { at: 0 }),
        ("b8 01 00 00", DecodeError::NotShortest { at: 0 }),
        ("d8 01 00", DecodeError::NotShortest { at: 0 }),
        ("82 00 18 01", DecodeError::NotShortest { at: 2 }),
        // Indefinite lengths, and their end where none began.
        ("5f 4100 ff", DecodeError::Indefinite { at: 0 }),
        ("7f 6161 ff", DecodeError::Indefinite { at: 0 }),
        ("9f ff", DecodeError::Indefinite { at: 0 }),
        ("bf ff", DecodeError::Indefinite { at: 0 }),
        ("ff", DecodeError::Indefinite { at: 0 }),
        // Keys.
        ("a2 0100 0100", DecodeError::Duplicate { at: 3 }),
        ("a2 0200 0100", DecodeError::Unsorted { at: 3 }),
        ("a2 20 00 01 00", DecodeError::Unsorted { at: 3 }),
        ("a2 6161 00 01 00", DecodeError::Unsorted { at: 4 }),
        // What follows.
        ("00 00", DecodeError::Trailing { count: 1 }),
        // Types that nothing of ours has.
        ("f9 0000", DecodeError::Type { what: "item", at: 0 }),
        ("f9 7e00", DecodeError::Type { what: "item", at: 0 }),
        ("fa 00000000", DecodeError::Type { what: "item", at: 0 }),
        ("fb 0000000000000000", DecodeError::Type { what: "item", at: 0 }),
        ("f7", DecodeError::Type { what: "item", at: 0 }),
        ("e0", DecodeError::Type { what: "item", at: 0 }),
        ("f8 20", DecodeError::Type { what: "item", at: 0 }),
        ("f8 15", DecodeError::Type { what: "item", at: 0 }),
        ("1c", DecodeError::Type { what: "item", at: 0 }),
        ("5e", DecodeError::Type { what: "item", at: 0 }),
        ("c2 41 02", DecodeError::Value { what: "tag" }),
        ("c3 41 02", DecodeError::Value { what: "tag" }),
        ("3b ffffffffffffffff", DecodeError::Value { what: "item" }),
        // Text.
        ("61 ff", DecodeError::Utf8 { at: 0 }),
        ("62 c328", DecodeError::Utf8 { at: 0 }),
        ("63 eda080", DecodeError::Utf8 { at: 0 }),
    ];
    for (bytes, error) in table {
        assert_eq!(read_hex(bytes), Err(error), "{bytes}");
    }
    for good in
        ["00", "1b ffffffffffffffff", "3b 7fffffffffffffff", "a2 01 00 20 00", "c1 00", "f6", "80", "a0"]
    {
        assert_eq!(read_hex(good), Ok(()), "{good}");
    }
}

#[test]
fn claimed_lengths_are_never_believed() {
    for head in ["5b", "7b", "9b", "bb"] {
        for claimed in [1 << 32, 1 << 40, 1 << 63, u64::MAX] {
            let bytes = hex::decode(format!("{head}{claimed:016x}")).unwrap();
            assert!(matches!(read_item(&bytes), Err(DecodeError::Truncated { .. })), "{head} {claimed}");
            // With a schema the limit is checked on the claim.
            let mut reader = Reader::new("test", &bytes, 64).unwrap();
            let result = match head {
                "5b" => reader.bytes("field", 16).map(drop),
                "7b" => reader.text("field", 16).map(drop),
                "9b" => reader.array("field", 16).map(drop),
                _ => reader.map("field", 16).map(drop),
            };
            assert_eq!(result, Err(DecodeError::TooLong { what: "field", got: claimed, limit: 16 }));
        }
    }
}

#[test]
fn every_maximum_is_exact() {
    for limit in [0, 1, 16] {
        for got in [limit, limit + 1] {
            let written = |write: &dyn Fn(&mut Writer)| {
                let mut writer = Writer::new();
                write(&mut writer);
                for _ in 0..2 * got {
                    writer.null();
                }
                writer.into_bytes()
            };
            let [bytes, text, array, map] = [
                written(&|writer| {
                    writer.bytes(&vec![7; got]);
                }),
                written(&|writer| {
                    writer.text(&"x".repeat(got));
                }),
                written(&|writer| {
                    writer.array(got);
                }),
                written(&|writer| {
                    writer.map(got);
                }),
            ];
            let too_long = DecodeError::TooLong { what: "field", got: got as u64, limit: limit as u64 };
            let want = if got == limit { Ok(()) } else { Err(too_long) };
            let reader = |bytes| Reader::new("test", bytes, usize::MAX).unwrap();
            assert_eq!(reader(&bytes).bytes("field", limit).map(drop), want);
            assert_eq!(reader(&text).text("field", limit).map(drop), want);
            assert_eq!(reader(&array).array("field", limit).map(drop), want);
            assert_eq!(reader(&map).map("field", limit).map(drop), want);
            assert_eq!(Reader::new("field", &vec![0; got], limit).map(drop), want);
        }
    }
}

#[test]
fn nesting_ends_at_the_limit_however_deep_it_goes() {
    for opener in [0x81, 0xa1, 0xc1] {
        let nested = |depth: usize| {
            let mut bytes = Vec::new();
            for _ in 0..depth {
                bytes.push(opener);
                if opener == 0xa1 {
                    bytes.push(0);
                }
            }
            bytes.push(0);
            bytes
        };
        assert_eq!(read_item(&nested(8)), Ok(()));
        for depth in [9, 1_000, 10_000_000] {
            let error = read_item(&nested(depth));
            // It stopped at the ninth level, whatever follows.
            assert!(matches!(error, Err(DecodeError::Depth { at: 8..=16, limit: 8 })), "{depth}: {error:?}");
        }
    }
    // Deep keys are no way around it.
    let mut bytes = vec![0xa1; 9];
    bytes.extend([0; 10]);
    assert!(matches!(read_item(&bytes), Err(DecodeError::Depth { .. })));
}

#[test]
fn what_is_larger_than_the_limit_is_refused_before_it_is_parsed() {
    // Not CBOR at all: the size comes first.
    let error = Reader::new("message", &[0xff; 65], 64).map(drop);
    assert_eq!(error, Err(DecodeError::TooLong { what: "message", got: 65, limit: 64 }));
}

#[test]
fn every_cut_is_a_truncation() {
    let mut writer = Writer::new();
    writer.array(9).uint(0).uint(300).uint(u64::MAX).int(-1).int(-70_000).int(i64::MIN);
    writer.bytes(&[7; 30]).text("sixteen letters.");
    writer.map(2).int(1).bool(true).int(-1).tag(18).null();
    let bytes = writer.into_bytes();
    assert_eq!(read_item(&bytes), Ok(()));
    for end in 0..bytes.len() {
        let error = read_item(&bytes[..end]);
        assert!(matches!(error, Err(DecodeError::Truncated { .. })), "{end}: {error:?}");
    }
}

/// Values as another library has them; floats are left out because nothing of ours has any.
fn values() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        (-30i64..30).prop_map(Value::from),
        prop::collection::vec(any::<u8>(), 0..40).prop_map(Value::Bytes),
        "\\PC{0,12}".prop_map(Value::Text),
        any::<bool>().prop_map(Value::Bool),
        Just(Value::Null),
    ];
    leaf.prop_recursive(5, 40, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::Array),
            prop::collection::vec((inner.clone(), inner.clone()), 0..6).prop_map(Value::Map),
            (4u64..200, inner).prop_map(|(tag, value)| Value::Tag(tag, Box::new(value))),
        ]
    })
}

fn encode(value: &Value) -> Vec<u8> {
    let mut bytes = Vec::new();
    ciborium::into_writer(value, &mut bytes).unwrap();
    bytes
}

/// RFC 8949 section 4.2.1: keys in the order of their encodings, each once.
fn canonical(value: &Value) -> Value {
    match value {
        Value::Array(items) => Value::Array(items.iter().map(canonical).collect()),
        Value::Tag(tag, inner) => Value::Tag(*tag, Box::new(canonical(inner))),
        Value::Map(pairs) => {
            let mut pairs: Vec<_> = pairs.iter().map(|(k, v)| (canonical(k), canonical(v))).collect();
            pairs.sort_by_cached_key(|(key, _)| encode(key));
            pairs.dedup_by_key(|(key, _)| encode(key));
            Value::Map(pairs)
        }
        other => other.clone(),
    }
}

fn is_canonical(bytes: &[u8]) -> bool {
    let value: Result<Value, _> = ciborium::from_reader(bytes);
    value.is_ok_and(|value| encode(&canonical(&value)) == bytes)
}

proptest! {
    #[test]
    fn canonical_values_of_another_library_are_accepted(value in values()) {
        let bytes = encode(&canonical(&value));
        prop_assert_eq!(read_item(&bytes), Ok(()));
    }

    #[test]
    fn what_is_accepted_is_encoded_the_same_by_another_library(value in values()) {
        let bytes = encode(&value);
        prop_assert_eq!(read_item(&bytes).is_ok(), is_canonical(&bytes));
    }

    #[test]
    fn what_is_accepted_after_damage_is_still_canonical(
        value in values(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut bytes = encode(&canonical(&value));
        for (index, byte) in damage {
            let at = index.index(bytes.len());
            bytes[at] = byte;
        }
        if read_item(&bytes).is_ok() {
            prop_assert!(is_canonical(&bytes), "{}", hex::encode(&bytes));
        }
    }

    #[test]
    fn random_bytes_that_are_accepted_are_canonical(bytes in prop::collection::vec(any::<u8>(), 0..12)) {
        if read_item(&bytes).is_ok() {
            prop_assert!(is_canonical(&bytes), "{}", hex::encode(&bytes));
        }
    }

    #[test]
    fn integers_are_read_as_written(value in any::<i64>(), unsigned in any::<u64>()) {
        let mut writer = Writer::new();
        writer.int(value).uint(unsigned);
        let mut reader = Reader::new("test", writer.as_bytes(), 64).unwrap();
        prop_assert_eq!(reader.int("int"), Ok(value));
        prop_assert_eq!(reader.uint("uint"), Ok(unsigned));
        prop_assert!(reader.is_at_end());
    }

    #[test]
    fn strings_are_read_as_written(bytes in prop::collection::vec(any::<u8>(), 0..300), text in "\\PC{0,300}") {
        let mut writer = Writer::new();
        writer.wrapped(|inner| { inner.bytes(&bytes); }).text(&text);
        let mut reader = Reader::new("test", writer.as_bytes(), 4096).unwrap();
        let inner = reader.bytes("wrapped", 4096).unwrap();
        prop_assert_eq!(Reader::new("inner", inner, 4096).unwrap().bytes("bytes", 300), Ok(bytes.as_slice()));
        prop_assert_eq!(reader.text("text", 1200), Ok(text.as_str()));
    }
}
