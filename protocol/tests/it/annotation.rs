//! Messages in hexadecimal digits, one item a line, each with what it means: the form of the vector files.

use std::fmt::Write as _;

use whimbrel_protocol::codec::{Item, Reader};

/// A part of a message for the comments: raw bytes or CBOR.
pub(crate) enum Part {
    Raw(usize, &'static str),
    Cbor,
    Rest(&'static str),
}

/// Writes bytes as commented hex: one line an item, nested by two spaces.
pub(crate) fn annotate(name: &str, bytes: &[u8], parts: &[Part]) -> String {
    let mut text = format!("# {name}: {} bytes\n", bytes.len());
    let mut reader = Reader::new("vector", bytes, usize::MAX).unwrap();
    for part in parts {
        match part {
            Part::Raw(count, comment) => {
                let raw = reader.raw(*count).unwrap();
                line(&mut text, 0, raw, comment);
            }
            Part::Rest(comment) => {
                let rest = reader.rest();
                for (at, piece) in rest.chunks(32).enumerate() {
                    line(&mut text, 0, piece, if at == 0 { comment } else { "" });
                }
                reader.raw(rest.len()).unwrap();
            }
            // Before a rest that is not CBOR there is one item; otherwise all that is left is CBOR.
            Part::Cbor if parts.iter().any(|part| matches!(part, Part::Rest(_))) => {
                item(&mut text, 0, &mut reader)
            }
            Part::Cbor => {
                while !reader.is_at_end() {
                    item(&mut text, 0, &mut reader);
                }
            }
        }
    }
    text
}

fn line(text: &mut String, depth: usize, bytes: &[u8], comment: &str) {
    let indent = "  ".repeat(depth);
    let hex = hex::encode(bytes);
    if comment.is_empty() {
        writeln!(text, "{indent}{hex}").unwrap();
    } else {
        writeln!(text, "{indent}{hex}  # {comment}").unwrap();
    }
}

fn item(text: &mut String, depth: usize, reader: &mut Reader<'_>) {
    let from = reader.position();
    let input = reader.input();
    let so_far = |reader: &Reader<'_>| input[from..reader.position()].to_vec();
    match reader.peek().unwrap() {
        Item::Array => {
            let count = reader.array("array", usize::MAX).unwrap();
            line(text, depth, &so_far(reader), &format!("array of {count}"));
            for _ in 0..count {
                item(text, depth + 1, reader);
            }
        }
        Item::Map => {
            let count = head(reader);
            line(text, depth, &so_far(reader), &format!("map of {count}"));
            for _ in 0..count {
                item(text, depth + 1, reader);
                item(text, depth + 2, reader);
            }
        }
        Item::Tag => {
            let number = head(reader);
            line(text, depth, &so_far(reader), &format!("tag {number}"));
            item(text, depth + 1, reader);
        }
        Item::Bytes => {
            let bytes = reader.bytes("bytes", usize::MAX).unwrap();
            let all = so_far(reader);
            let (head, _) = all.split_at(all.len() - bytes.len());
            line(text, depth, head, &format!("byte string of {}", bytes.len()));
            let nested = bytes.len() > 2
                && Reader::new("nested", bytes, usize::MAX)
                    .unwrap()
                    .item()
                    .is_ok_and(|item| item.len() == bytes.len())
                && matches!(bytes[0] >> 5, 4..=6);
            if nested {
                item(text, depth + 1, &mut Reader::new("nested", bytes, usize::MAX).unwrap());
            } else {
                for piece in bytes.chunks(32) {
                    line(text, depth + 1, piece, "");
                }
            }
        }
        Item::Text => {
            let value = reader.text("text", usize::MAX).unwrap().to_owned();
            line(text, depth, &so_far(reader), &format!("{value:?}"));
        }
        Item::Uint | Item::Negative => {
            let value = reader.int("int").unwrap();
            line(text, depth, &so_far(reader), &value.to_string());
        }
        Item::Bool | Item::Null => {
            reader.item().unwrap();
            line(text, depth, &so_far(reader), "simple");
        }
    }
}

/// Reads the head of a map or tag and nothing behind it.
fn head(reader: &mut Reader<'_>) -> u64 {
    let first = reader.raw(1).unwrap()[0] & 0x1f;
    match first {
        0..=23 => u64::from(first),
        24 => u64::from(reader.raw(1).unwrap()[0]),
        _ => panic!("no vector has more"),
    }
}

pub(crate) fn parse_hex(text: &str) -> Vec<u8> {
    let hex: String = text
        .lines()
        .map(|line| line.split('#').next().unwrap_or_default())
        .flat_map(str::chars)
        .filter(|c| !c.is_whitespace())
        .collect();
    hex::decode(hex).unwrap()
}
