//! The header of a patch.

use alloc::vec::Vec;

use super::PatchError;
use super::engine::Engine;
use super::map::Map;
use super::table::Table;
use crate::codec::{DecodeError, Reader, Writer};
use crate::ids::Digest;
use crate::limits::{PATCH_DICTIONARY_LOG2, PATCH_IMAGE_BYTES_MAX, PATCH_MODELS_LOG2};
use crate::manifest::{DecoderMemory, ImageId};

/// The architecture of most machine code in an image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Architecture {
    /// An unknown architecture, or no code.
    #[default]
    None = 0,
    /// ARM, 64 bit.
    Arm64 = 1,
    /// ARM Thumb-2.
    Thumb = 2,
    /// ARM, 32 bit instructions.
    Arm = 3,
    /// RISC-V, 32 and 64 bit, compressed instructions included.
    RiscV = 4,
    /// x86, 64 bit.
    X86 = 5,
}

impl Architecture {
    /// Every one.
    pub const ALL: [Self; 6] = [Self::None, Self::Arm64, Self::Thumb, Self::Arm, Self::RiscV, Self::X86];

    /// The word for it, as `--arch` takes it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Arm64 => "arm64",
            Self::Thumb => "thumb",
            Self::Arm => "arm",
            Self::RiscV => "riscv",
            Self::X86 => "x86",
        }
    }

    /// The architecture with this number.
    #[must_use]
    pub fn from_number(number: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|architecture| *architecture as u32 == number)
    }
}

/// The sizes that a decoder's memory depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tuning {
    /// log2 of the bytes of the dictionary: recent output.
    pub dictionary_log2: u8,
    /// log2 of the models of literals.
    pub literals_log2: u8,
    /// log2 of the number of models that decide whether a prediction is right.
    pub flags_log2: u8,
    /// log2 of the number of models for the right bytes of wrong predictions.
    pub bytes_log2: u8,
    /// Most entries of a match map, at most 65,535.
    pub map_entries: u32,
    /// Entries of the table of changed words, at most 65,535.
    pub table_entries: u32,
}

/// The header, which stands before the first coded byte of a patch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The old image.
    pub base: ImageId,
    /// The image that comes out.
    pub image: ImageId,
    /// Sizes of the decoder.
    pub tuning: Tuning,
}

impl Header {
    /// Bytes of memory that each entry of the match map takes.
    pub const MAP_ENTRY_BYTES: usize = Map::ENTRY_BYTES;
    /// Most bytes of an encoded header.
    pub const BYTES_MAX: usize = 128;

    /// Bytes of memory that a [`Decoder`](super::Decoder) of this patch allocates, at most.
    #[must_use]
    pub fn memory_bytes(&self) -> u32 {
        let tuning = &self.tuning;
        let models = (size_of::<u16>() << tuning.literals_log2)
            + (size_of::<u32>() << tuning.flags_log2)
            + (size_of::<u16>() << tuning.bytes_log2);
        let lists = tuning.map_entries as usize * Map::ENTRY_BYTES
            + tuning.table_entries as usize * Table::ENTRY_BYTES;
        let bytes = (1 << tuning.dictionary_log2) + models + lists + Engine::FIXED_BYTES;
        u32::try_from(bytes).unwrap_or(u32::MAX)
    }

    /// What the transfer descriptor says about this patch's decoder.
    #[must_use]
    pub fn decoder(&self) -> DecoderMemory {
        DecoderMemory {
            memory_bytes: self.memory_bytes(),
            dictionary_bytes: 1 << self.tuning.dictionary_log2,
        }
    }

    /// Writes the header.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.array(10);
        writer.bytes(&self.base.digest.0).uint(self.base.size);
        writer.bytes(&self.image.digest.0).uint(self.image.size);
        let tuning = &self.tuning;
        for log2 in [tuning.dictionary_log2, tuning.literals_log2, tuning.flags_log2, tuning.bytes_log2] {
            writer.uint(log2.into());
        }
        writer.uint(tuning.map_entries.into()).uint(tuning.table_entries.into());
        writer.into_bytes()
    }

    /// Reads the header from the first bytes of a patch; also how many bytes it has.
    ///
    /// `bytes` has the first [`BYTES_MAX`](Self::BYTES_MAX) bytes of the patch, or all of it.
    ///
    /// # Errors
    /// [`PatchError::Header`].
    pub fn decode(bytes: &[u8]) -> Result<(Self, usize), PatchError> {
        let bytes = bytes.get(..Self::BYTES_MAX).unwrap_or(bytes);
        let mut reader = Reader::new("patch header", bytes, Self::BYTES_MAX)?;
        let header = Self::read(&mut reader)?;
        Ok((header, reader.position()))
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        reader.array_of("patch header", 10)?;
        let mut image_id = || -> Result<ImageId, DecodeError> {
            let digest = Digest(reader.byte_array("image digest")?);
            let size = reader.uint_max("image size", PATCH_IMAGE_BYTES_MAX)?;
            if size == 0 {
                return Err(DecodeError::value("image size"));
            }
            Ok(ImageId { digest, size })
        };
        let (base, image) = (image_id()?, image_id()?);
        let mut log2 = |what, range: core::ops::RangeInclusive<u8>| {
            let value = u8::try_from(reader.uint(what)?).ok().filter(|value| range.contains(value));
            value.ok_or(DecodeError::value(what))
        };
        let most = u64::from(u16::MAX);
        let tuning = Tuning {
            dictionary_log2: log2("dictionary", PATCH_DICTIONARY_LOG2)?,
            literals_log2: log2("models of literals", PATCH_MODELS_LOG2)?,
            flags_log2: log2("models of flags", PATCH_MODELS_LOG2)?,
            bytes_log2: log2("models of bytes", PATCH_MODELS_LOG2)?,
            map_entries: u32::try_from(reader.uint_max("match map", most)?).unwrap_or(0),
            table_entries: u32::try_from(reader.uint_max("table of words", most)?).unwrap_or(0),
        };
        Ok(Self { base, image, tuning })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The sum that SPEC 5.5 gives has this fixed part, as built for 64 bits.
    #[test]
    #[cfg(target_pointer_width = "64")]
    fn the_fixed_part_of_the_memory_is_that_of_the_specification() {
        assert!(include_str!("../../SPEC.md").contains("21,592 in the reference on 64 bits"));
        assert_eq!(Engine::FIXED_BYTES, 21_592);
    }
}
