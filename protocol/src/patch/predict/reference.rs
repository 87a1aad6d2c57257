//! References: addresses as instructions and words of data have them.

/// The kind of reference that an instruction or a word has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::patch) enum ReferenceKind {
    // 0 is what refers to nothing.
    Call = 1,
    Branch,
    ShortBranch,
    LongBranch,
    ZeroBranch,
    ShortJump,
    Literal,
    LongLiteral,
    /// An address that is not far away.
    Near,
    /// The page of an address, relative to the instruction, and what is added to it.
    Page,
    PageLow,
    /// The two parts of an absolute address.
    Low,
    High,
    Pointer,
    /// An address outside the image.
    Memory,
    Distance,
    Word,
    /// A number in an instruction, with its register.
    Constant,
}

/// The reference of an instruction or a word.
#[derive(Clone, Copy, Debug)]
pub(in crate::patch) struct Reference {
    /// The address that it refers to.
    pub(in crate::patch) target: u64,
    pub(in crate::patch) kind: ReferenceKind,
    /// Bytes of the instruction.
    pub(in crate::patch) len: u8,
    /// Bytes from the instruction with the other part of the address to this one.
    pub(in crate::patch) behind: u32,
}

impl Reference {
    pub(in crate::patch) const fn new(target: u64, kind: ReferenceKind, len: u8) -> Self {
        Self { target, kind, len, behind: 0 }
    }
}

/// A number of 16 bits in a register, as the target of a reference. Similar numbers in the same register are
/// near each other.
pub(super) const fn constant(register: u32, value: u32) -> u64 {
    CONSTANTS | (register as u64) << 17 | value as u64
}

/// The start of numbers in instructions, so that they are not taken for addresses.
const CONSTANTS: u64 = 0xc700_0000;
