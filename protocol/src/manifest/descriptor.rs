//! The transfer descriptor, which says how a payload is transferred. It is our content of parameter 25, fetch
//! arguments.
//!
//! The drafts leave the content of parameter 25 to the implementation, so that the description of a payload needs no
//! private numbers (SPEC section 5.3).
//!
//! ```cddl
//! transfer-descriptor = {
//!   1: codec,                     ; 0 raw, 1 lzma, 2 patch
//!   ? 2: uint,                    ; with codec 2: index of the component that the patch starts from
//!   3: 10..16,                    ; log2 of the chunk size
//!   4: uint .ge 1,                ; bytes transferred; at most 65,535 chunks
//!   5: bstr .size 32,             ; index digest
//!   ? 6: [memory: uint, dictionary: uint]   ; with codec 1 and 2: bytes that the decoder needs
//! }
//! ```

use alloc::format;
use alloc::string::String;

use crate::chunk::Layout;
use crate::codec::{DecodeError, Reader, Writer};
use crate::ids::{Digest, PayloadTag};
use crate::limits::{COMPONENTS_MAX, DECODER_MEMORY_BYTES_MAX, DICTIONARY_BYTES_MAX};

/// The coding of an image before it is cut into chunks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Codec {
    /// Nothing: the payload is the image.
    Raw = 0,
    /// Compressed with LZMA; the payload begins with a [`LzmaHeader`](super::LzmaHeader).
    Lzma = 1,
    /// Made into a patch to an earlier image.
    Patch = 2,
}

impl Codec {
    /// The word for it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Lzma => "lzma",
            Self::Patch => "patch",
        }
    }
}

/// Codecs that a device can undo.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Codecs(u8);

impl Codecs {
    /// Images as they are, and nothing else.
    pub const RAW: Self = Self(1 << Codec::Raw as u8);
    /// Every codec.
    pub const ALL: Self = Self::RAW.with(Codec::Lzma).with(Codec::Patch);

    /// These and `codec`.
    #[must_use]
    pub const fn with(self, codec: Codec) -> Self {
        Self(self.0 | 1 << codec as u8)
    }

    /// Those that `other` has too.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Whether `codec` is one of them.
    #[must_use]
    pub const fn contains(self, codec: Codec) -> bool {
        self.0 & 1 << codec as u8 != 0
    }
}

/// The memory that a payload's decoder needs. It is signed, so that a device can refuse before it fetches the
/// first chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecoderMemory {
    /// Bytes in all, the dictionary included; at most [`DECODER_MEMORY_BYTES_MAX`].
    pub memory_bytes: u32,
    /// Bytes of the dictionary; at most [`DICTIONARY_BYTES_MAX`].
    pub dictionary_bytes: u32,
}

/// How a payload is transferred and what it is decoded with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TransferDescriptor {
    /// What was done to the image.
    pub codec: Codec,
    /// For a patch the component that it starts from, otherwise none.
    pub base: Option<u8>,
    /// How the transferred bytes are cut.
    pub layout: Layout,
    /// The digest that proves the index of chunk digests.
    pub index_digest: Digest,
    /// What the decoder needs; none for raw payloads.
    pub decoder: Option<DecoderMemory>,
}

const CODEC: i64 = 1;
const BASE: i64 = 2;
const CHUNK_SIZE_LOG2: i64 = 3;
const TRANSFER_SIZE: i64 = 4;
const INDEX_DIGEST: i64 = 5;
const DECODER: i64 = 6;

/// Most bytes of an encoded descriptor.
const DESCRIPTOR_BYTES_MAX: usize = 96;

impl TransferDescriptor {
    /// A payload that is the image itself.
    #[must_use]
    pub const fn raw(layout: Layout, index_digest: Digest) -> Self {
        Self { codec: Codec::Raw, base: None, layout, index_digest, decoder: None }
    }

    /// A payload compressed with LZMA; [`LzmaHeader::decoder`](super::LzmaHeader::decoder) is what it needs.
    #[must_use]
    pub const fn lzma(layout: Layout, index_digest: Digest, decoder: DecoderMemory) -> Self {
        Self { codec: Codec::Lzma, base: None, layout, index_digest, decoder: Some(decoder) }
    }

    /// A patch on what the component with index `base` holds;
    /// [`Header::decoder`](crate::patch::Header::decoder) is what it needs.
    #[must_use]
    pub const fn patch(layout: Layout, index_digest: Digest, base: u8, decoder: DecoderMemory) -> Self {
        Self { codec: Codec::Patch, base: Some(base), layout, index_digest, decoder: Some(decoder) }
    }

    /// The payload's short name in requests.
    #[must_use]
    pub fn tag(&self) -> PayloadTag {
        let [a, b, c, d, ..] = self.index_digest.0;
        PayloadTag([a, b, c, d])
    }

    /// The payload's relative content address: `mq:` and the first 8 bytes of the index digest.
    #[must_use]
    pub fn uri(&self) -> String {
        format!("mq:{}", self.index_digest.short())
    }

    /// Checks what the codec demands of an image of `image_size` bytes: a raw payload is exactly as long.
    #[must_use]
    pub fn fits(&self, image_size: u64) -> bool {
        self.codec != Codec::Raw || self.layout.transfer_size() == image_size
    }

    /// Reads a descriptor that fills `bytes`.
    ///
    /// # Errors
    /// Any [`DecodeError`]; [`DecodeError::Value`] for unknown codecs, a chunk size outside its range, an empty
    /// transfer, too many chunks, too much memory, and fields that the codec does not have.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new("transfer descriptor", bytes, DESCRIPTOR_BYTES_MAX)?;
        let mut map = reader.map("transfer descriptor", 6)?;
        map.expect(&mut reader, CODEC)?;
        let codec = match reader.uint("codec")? {
            0 => Codec::Raw,
            1 => Codec::Lzma,
            2 => Codec::Patch,
            _ => return Err(DecodeError::value("codec")),
        };
        let base = match map.optional(&mut reader, BASE)? {
            true => u8::try_from(reader.uint_max("base component", COMPONENTS_MAX as u64 - 1)?).ok(),
            false => None,
        };
        map.expect(&mut reader, CHUNK_SIZE_LOG2)?;
        let chunk_size_log2 = reader.uint("chunk size")?;
        map.expect(&mut reader, TRANSFER_SIZE)?;
        let layout = Layout::new(chunk_size_log2, reader.uint("transfer size")?)
            .map_err(|_| DecodeError::value("chunk size or transfer size"))?;
        map.expect(&mut reader, INDEX_DIGEST)?;
        let index_digest = Digest(reader.byte_array("index digest")?);
        let decoder = match map.optional(&mut reader, DECODER)? {
            true => Some(DecoderMemory::decode(&mut reader)?),
            false => None,
        };
        map.finish(&mut reader)?;
        reader.finish()?;
        if base.is_some() != (codec == Codec::Patch) {
            return Err(DecodeError::value("base component"));
        }
        if decoder.is_some() && codec == Codec::Raw {
            return Err(DecodeError::value("decoder memory"));
        }
        Ok(Self { codec, base, layout, index_digest, decoder })
    }

    /// Writes the descriptor.
    pub fn encode(&self, writer: &mut Writer) {
        let fields = 4 + usize::from(self.base.is_some()) + usize::from(self.decoder.is_some());
        writer.map(fields).int(CODEC).uint(self.codec as u64);
        if let Some(base) = self.base {
            writer.int(BASE).uint(u64::from(base));
        }
        writer.int(CHUNK_SIZE_LOG2).uint(u64::from(self.layout.chunk_size_log2()));
        writer.int(TRANSFER_SIZE).uint(self.layout.transfer_size());
        writer.int(INDEX_DIGEST).bytes(&self.index_digest.0);
        if let Some(decoder) = self.decoder {
            writer.int(DECODER).array(2).uint(u64::from(decoder.memory_bytes));
            writer.uint(u64::from(decoder.dictionary_bytes));
        }
    }
}

impl DecoderMemory {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        reader.array_of("decoder memory", 2)?;
        let memory_bytes = reader.u32("decoder memory")?;
        let dictionary_bytes = reader.u32("dictionary")?;
        if memory_bytes > DECODER_MEMORY_BYTES_MAX {
            return Err(DecodeError::value("decoder memory"));
        }
        if dictionary_bytes > DICTIONARY_BYTES_MAX || dictionary_bytes > memory_bytes {
            return Err(DecodeError::value("dictionary"));
        }
        Ok(Self { memory_bytes, dictionary_bytes })
    }
}
