//! The first bytes of a patch.

use alloc::vec::Vec;

use super::PatchError;
use crate::codec::{DecodeError, Reader, Writer};
use crate::ids::Digest;
use crate::manifest::{DecoderMemory, ImageId};

/// Whose machine code an image holds mostly.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Architecture {
    /// None that is known, or no code.
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
    pub fn from_number(number: u64) -> Option<Self> {
        Self::ALL.into_iter().find(|architecture| *architecture as u64 == number)
    }
}

/// The sizes that a decoder's memory depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tuning {
    /// Bytes of the dictionary: recent output.
    pub dictionary_bytes: u32,
    /// Most entries of the match map.
    pub map_entries: u32,
    /// Entries of the table of changed words.
    pub table_entries: u32,
    /// log2 of the number of hashed models.
    pub models_log2: u8,
}

/// What a patch says before its first coded byte.
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
    /// Most bytes of an encoded header.
    pub const BYTES_MAX: usize = 128;

    /// Bytes of memory that a [`Decoder`](super::Decoder) of this patch allocates, at most.
    #[must_use]
    pub fn memory_bytes(&self) -> u32 {
        self.tuning.dictionary_bytes.saturating_add(16 * 1024)
    }

    /// What the transfer descriptor says about this patch's decoder.
    #[must_use]
    pub fn decoder(&self) -> DecoderMemory {
        DecoderMemory { memory_bytes: self.memory_bytes(), dictionary_bytes: self.tuning.dictionary_bytes }
    }

    /// Writes the header.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.array(8);
        writer.bytes(&self.base.digest.0).uint(self.base.size);
        writer.bytes(&self.image.digest.0).uint(self.image.size);
        let tuning = &self.tuning;
        writer.uint(u64::from(tuning.dictionary_bytes)).uint(u64::from(tuning.map_entries));
        writer.uint(u64::from(tuning.table_entries)).uint(u64::from(tuning.models_log2));
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
        reader.array_of("patch header", 8)?;
        let mut image_id = || -> Result<ImageId, DecodeError> {
            Ok(ImageId {
                digest: Digest(reader.byte_array("image digest")?),
                size: reader.uint("image size")?,
            })
        };
        let (base, image) = (image_id()?, image_id()?);
        let tuning = Tuning {
            dictionary_bytes: reader.u32("dictionary")?,
            map_entries: reader.u32("match map")?,
            table_entries: reader.u32("table of words")?,
            models_log2: u8::try_from(reader.uint_max("models", 24)?).unwrap_or(24),
        };
        Ok(Self { base, image, tuning })
    }
}
