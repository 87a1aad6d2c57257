//! x86, 64 bit: calls, jumps and operands with a 32-bit distance. Instructions are not decoded: what looks like a
//! distance and leads into the image, is taken for one.

use super::view::{View, distance, field};
use super::{Reference, ReferenceKind};

/// What the bytes at `at`, which run at `address`, refer to.
///
/// The length of the reference is that of its opcode and its distance: 5 or 6 bytes.
pub(super) fn parse(view: View<'_>, at: u32, address: u64) -> Option<Reference> {
    let first = view.byte(at)?;
    let (opcode, kind) = match first {
        0xe8 | 0xe9 => (1, ReferenceKind::Call),
        0x0f if view.byte(at.checked_add(1)?)? & 0xf0 == 0x80 => (2, ReferenceKind::Branch),
        // An operand relative to the instruction: its mode follows an opcode.
        _ if is_opcode(first) && view.byte(at.checked_add(1)?)? & 0xc7 == 0x05 => (2, ReferenceKind::Near),
        _ => return None,
    };
    let value = view.word(at.checked_add(opcode)?)?;
    let end = address.wrapping_add(u64::from(opcode) + 4);
    let target = end.wrapping_add_signed(value.cast_signed().into());
    Some(Reference::new(target, kind, u8::try_from(opcode).ok()? + 4))
}

/// The distance of a reference of `len` bytes at `address` that is to lead to `target`.
pub(super) fn rewrite(len: u8, target: u64, address: u64) -> Option<u32> {
    field(distance(address.wrapping_add(len.into()), target), 32)
}

/// Opcodes that are often followed by an operand relative to the instruction.
fn is_opcode(byte: u8) -> bool {
    matches!(
        byte,
        0x01 | 0x03 | 0x0b | 0x23 | 0x29 | 0x2b | 0x33 | 0x38..=0x3b | 0x63 | 0x80 | 0x81 | 0x83..=0x8d | 0xc6
            | 0xc7 | 0xf6 | 0xf7 | 0xff | 0x10 | 0x11 | 0x28 | 0x2e | 0x2f | 0x54 | 0x57..=0x59 | 0x5c | 0x5e
            | 0x6f | 0x7f | 0xb6 | 0xb7 | 0xbe | 0xbf | 0x44 | 0x45
    )
}
