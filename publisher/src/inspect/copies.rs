//! Explains what a device keeps in two copies: its record, the envelopes of its slots, the boot environment
//! and the boot default (SPEC section 8.7).
//!
//! | bytes of a copy | content |
//! |---|---|
//! | 0..2 | `WR` record, `WM` envelope, `WB` boot environment, `WD` boot default |
//! | 2..4 | format, two decimal digits |
//! | 4..8 | bytes of the content, u32 |
//! | 8..16 | sequence number, u64 |
//! | 16..48 | SHA-256 of 0..16 and the content |
//! | 48.. | content |
//!
//! Numbers are little-endian; copies begin on sector boundaries.

use sha2::{Digest as _, Sha256};
use whimbrel_protocol::trust::Root;

use super::{Explained, envelope, stored};
use crate::output::{Fields, Value};

const SECTOR_BYTES: usize = 512;
const HEADER_BYTES: usize = 48;
/// Bytes that the check covers besides the content.
const CHECKED_BYTES: usize = 16;
const FORMAT: &[u8] = b"01";
const NO_SLOT: u8 = 255;

/// What a copy holds.
#[derive(Clone, Copy)]
enum Kept {
    Record,
    Envelope,
    BootEnvironment,
    BootDefault,
}

impl Kept {
    fn of(bytes: &[u8]) -> Option<Self> {
        match bytes {
            [b'W', b'R', ..] => Some(Self::Record),
            [b'W', b'M', ..] => Some(Self::Envelope),
            [b'W', b'B', ..] => Some(Self::BootEnvironment),
            [b'W', b'D', ..] => Some(Self::BootDefault),
            _ => None,
        }
        .filter(|_| bytes.get(2..4).is_some_and(|format| format.iter().all(u8::is_ascii_digit)))
    }

    const fn kind(self) -> &'static str {
        match self {
            Self::Record => "device record",
            Self::Envelope => "envelopes of a device's slots",
            Self::BootEnvironment => "boot environment",
            Self::BootDefault => "boot default",
        }
    }
}

/// Explains every copy in `bytes`; `None` if they have no copy.
pub(super) fn explain(bytes: &[u8], root: Option<&Root>) -> Option<Fields> {
    let mut kind = None;
    let mut copies = Vec::new();
    for at in (0..bytes.len()).step_by(SECTOR_BYTES) {
        let rest = bytes.get(at..).unwrap_or_default();
        let Some(kept) = Kept::of(rest) else {
            continue;
        };
        kind = kind.or(Some(kept.kind()));
        let mut fields = Fields::new().with("at_byte", at);
        match read(rest) {
            Ok((sequence, content)) => {
                fields.add("sequence", Value::Count(sequence)).extend(describe(kept, content, root));
            }
            Err(reason) => {
                fields.add("refused", reason);
            }
        }
        copies.push(Value::Fields(fields));
    }
    Some(Fields::new().with("kind", kind?).with("copies", copies))
}

/// Reads the sequence number and the content of the copy that `bytes` begin with.
fn read(bytes: &[u8]) -> Result<(u64, &[u8]), &'static str> {
    let torn = "torn: its check is wrong";
    let (header, rest) = bytes.split_first_chunk::<HEADER_BYTES>().ok_or(torn)?;
    let [_, _, f0, f1, l0, l1, l2, l3, s0, s1, s2, s3, s4, s5, s6, s7, ..] = *header;
    if [f0, f1] != FORMAT {
        return Err("of a format that this version does not know");
    }
    let len = u32::from_le_bytes([l0, l1, l2, l3]);
    let content = usize::try_from(len).ok().and_then(|len| rest.get(..len)).ok_or(torn)?;
    let (checked, check) = header.split_at(CHECKED_BYTES);
    let found = Sha256::new().chain_update(checked).chain_update(content).finalize();
    if check != found.as_slice() {
        return Err(torn);
    }
    Ok((u64::from_le_bytes([s0, s1, s2, s3, s4, s5, s6, s7]), content))
}

fn describe(kept: Kept, content: &[u8], root: Option<&Root>) -> Fields {
    let explained = match kept {
        Kept::Record => stored::explain_record(content).unwrap_or(Explained::Unknown),
        Kept::Envelope => envelope::explain(content, root),
        Kept::BootEnvironment => environment(content),
        Kept::BootDefault => match content {
            [slot] => Explained::Accepted(Fields::new().with("starts_slot", slot_name(*slot))),
            _ => Explained::Unknown,
        },
    };
    match explained {
        Explained::Accepted(fields) => fields,
        Explained::Refused { reason, .. } => Fields::new().with("refused", reason),
        Explained::Unknown => Fields::new().with("refused", "its content has another form"),
    }
}

/// Confirmed slot, trial slot, tries left and given, bootable bits, given up, two zeros, digest of the trial.
fn environment(content: &[u8]) -> Explained {
    let Some(([confirmed, trial, left, tries, bootable, failed, ..], image)) =
        content.split_first_chunk::<8>()
    else {
        return Explained::Unknown;
    };
    let bootable = [0_u8, 1].into_iter().filter(|slot| bootable >> slot & 1 == 1);
    let mut fields = Fields::new()
        .with("confirmed_slot", slot_name(*confirmed))
        .with("bootable_slots", bootable.map(|slot| slot_name(slot).into()).collect::<Vec<Value>>())
        .with("last_trial_given_up", *failed != 0);
    if *trial == NO_SLOT {
        fields.add("trial", Value::None);
    } else {
        let trial = Fields::new()
            .with("slot", slot_name(*trial))
            .with("starts_left", u32::from(*left))
            .with("starts_given", u32::from(*tries))
            .with("image_digest", hex::encode(image));
        fields.add("trial", trial);
    }
    Explained::Accepted(fields)
}

fn slot_name(slot: u8) -> String {
    match slot {
        0 => "A".into(),
        1 => "B".into(),
        other => format!("{other}, which is none"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn copy(magic: &[u8], sequence: u64, content: &[u8]) -> Vec<u8> {
        let len = u32::try_from(content.len()).unwrap();
        let head = [magic, &len.to_le_bytes(), &sequence.to_le_bytes()].concat();
        let check = Sha256::new().chain_update(&head).chain_update(content).finalize();
        let mut bytes = [&head, check.as_slice(), content].concat();
        bytes.resize(4096, 0);
        bytes
    }

    #[test]
    fn both_copies_of_a_boot_environment_are_explained() {
        let mut content = vec![0, 1, 2, 3, 1, 0, 0, 0];
        content.extend([0xab; 32]);
        let mut torn = copy(b"WB01", 8, &content);
        torn[50] ^= 1;
        let bytes = [copy(b"WB01", 7, &content), torn].concat();
        let human = explain(&bytes, None).unwrap().human();
        assert!(human.contains("sequence             7\n  confirmed slot       A\n"), "{human}");
        assert!(human.contains("starts left   2\n"), "{human}");
        assert!(human.contains("refused  torn"), "{human}");
    }

    #[test]
    fn other_formats_and_other_bytes_are_told_apart() {
        let human = explain(&copy(b"WD02", 1, &[1]), None).unwrap().human();
        assert!(human.contains("format that this version does not know"), "{human}");
        let human = explain(&copy(b"WD01", 1, &[1]), None).unwrap().human();
        assert!(human.contains("starts slot  B"), "{human}");
        assert_eq!(explain(b"WAND", None), None);
        assert_eq!(explain(&[0; 4096], None), None);
    }
}
