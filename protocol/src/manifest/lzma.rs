//! The payload of codec 1: a short header, then an LZMA stream (SPEC section 5.4).
//!
//! | bytes | content |
//! |---|---|
//! | 0 | filter that was run over the image before it was compressed ([`Filter`]) |
//! | 1 | LZMA properties: `(pb * 5 + lp) * 9 + lc`, with lc + lp at most 4 and pb at most 4 |
//! | 2..6 | bytes of the dictionary, u32 little-endian: 4 KiB to 8 MiB |
//! | 6..14 | bytes of the image, u64 little-endian, at least 1 |
//! | 14.. | one LZMA stream (LZMA 1) without end marker; nothing follows it |
//!
//! From byte 1 on this is an ordinary `.lzma` file with a known size, which other tools can decompress. It has no
//! checksum: the signed index proves every byte that arrives, and the signed digest proves the image that comes out.
//!
//! A filter makes the targets of calls and jumps absolute, so that all calls of one function look alike. It works from
//! position 0 of the image, does not change its size, and needs almost no memory. Machine code becomes another 4 to
//! 8 % smaller (measured on firmware of five architectures).

use alloc::vec::Vec;

use super::DecoderMemory;
use crate::codec::DecodeError;
use crate::limits::DICTIONARY_BYTES_MAX;

/// The branch filter that was run over an image before it was compressed. The numbers are those of the `.xz`
/// format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Filter {
    /// Nothing.
    None = 0,
    /// Branches of x86, 32 and 64 bit.
    X86 = 4,
    /// Branches of ARM, 32 bit instructions.
    Arm = 7,
    /// Branches of ARM Thumb.
    ArmThumb = 8,
    /// Branches and page addresses of ARM64.
    Arm64 = 10,
    /// Branches of RISC-V.
    RiscV = 11,
}

impl Filter {
    /// Every filter.
    pub const ALL: [Self; 6] = [Self::None, Self::X86, Self::Arm, Self::ArmThumb, Self::Arm64, Self::RiscV];

    /// The word for it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::X86 => "x86",
            Self::Arm => "arm",
            Self::ArmThumb => "arm-thumb",
            Self::Arm64 => "arm64",
            Self::RiscV => "risc-v",
        }
    }

    /// The filter with this number.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|filter| *filter as u8 == number)
    }
}

/// How literals and positions are modelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LzmaProperties {
    /// Bits of the byte before that select a literal's model.
    pub lc: u8,
    /// Low bits of the position that select a literal's model; lc + lp is at most 4.
    pub lp: u8,
    /// Low bits of the position that select everything else; at most 4.
    pub pb: u8,
}

/// Most of lc + lp. More would cost memory and gain nothing.
const LITERAL_BITS_MAX: u8 = 4;
/// Most of pb.
const POSITION_BITS_MAX: u8 = 4;

impl LzmaProperties {
    /// The properties byte.
    #[must_use]
    pub const fn byte(self) -> u8 {
        (self.pb * 5 + self.lp) * 9 + self.lc
    }

    /// Reads a properties byte; `None` if it goes beyond what is allowed here.
    #[must_use]
    pub const fn from_byte(byte: u8) -> Option<Self> {
        let properties = Self { lc: byte % 9, lp: byte / 9 % 5, pb: byte / 45 };
        if properties.lc + properties.lp <= LITERAL_BITS_MAX && properties.pb <= POSITION_BITS_MAX {
            Some(properties)
        } else {
            None
        }
    }
}

/// The head of a payload of codec 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LzmaHeader {
    /// The filter, which has to be undone after decompression.
    pub filter: Filter,
    /// How the stream is modelled.
    pub properties: LzmaProperties,
    /// Bytes of the dictionary.
    pub dictionary_bytes: u32,
    /// Bytes of the image that comes out.
    pub image_size: u64,
}

/// Smallest dictionary.
const DICTIONARY_BYTES_MIN: u32 = 4096;
/// Bytes of a decoder besides dictionary and literal models: other models, state, buffers, the filter.
const DECODER_FIXED_BYTES: u32 = 80 * 1024;
/// Bytes of the literal models of one context.
const LITERAL_MODEL_BYTES: u32 = 0x300 * 2;

impl LzmaHeader {
    /// Bytes of the header.
    pub const BYTES: usize = 14;

    /// What the transfer descriptor says about this payload's decoder.
    #[must_use]
    pub fn decoder(&self) -> DecoderMemory {
        let contexts = 1 << (self.properties.lc + self.properties.lp);
        let model = LITERAL_MODEL_BYTES * contexts;
        let dictionary_bytes = self.dictionary_bytes;
        DecoderMemory {
            memory_bytes: dictionary_bytes.saturating_add(model + DECODER_FIXED_BYTES),
            dictionary_bytes,
        }
    }

    /// Whether the payload is as signed: it has the image's size and needs no more memory than the descriptor
    /// says.
    #[must_use]
    pub fn fits(&self, signed: &DecoderMemory, image_size: u64) -> bool {
        let needed = self.decoder();
        self.image_size == image_size
            && needed.memory_bytes <= signed.memory_bytes
            && needed.dictionary_bytes <= signed.dictionary_bytes
    }

    /// The header's bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; Self::BYTES] {
        let mut bytes = Vec::with_capacity(Self::BYTES);
        bytes.extend([self.filter as u8, self.properties.byte()]);
        bytes.extend(self.dictionary_bytes.to_le_bytes());
        bytes.extend(self.image_size.to_le_bytes());
        bytes.try_into().expect("2 + 4 + 8 bytes")
    }

    /// Reads the first bytes of a payload.
    ///
    /// # Errors
    /// [`DecodeError::Value`] for an unknown filter, properties beyond the limits, a dictionary outside its
    /// range, and an empty image.
    pub fn decode(bytes: &[u8; Self::BYTES]) -> Result<Self, DecodeError> {
        let [filter, properties, d0, d1, d2, d3, size @ ..] = *bytes;
        let filter = Filter::from_number(filter).ok_or(DecodeError::value("filter"))?;
        let properties =
            LzmaProperties::from_byte(properties).ok_or(DecodeError::value("LZMA properties"))?;
        let dictionary_bytes = u32::from_le_bytes([d0, d1, d2, d3]);
        if !(DICTIONARY_BYTES_MIN..=DICTIONARY_BYTES_MAX).contains(&dictionary_bytes) {
            return Err(DecodeError::value("dictionary"));
        }
        let image_size = u64::from_le_bytes(size);
        if image_size == 0 {
            return Err(DecodeError::value("image size"));
        }
        Ok(Self { filter, properties, dictionary_bytes, image_size })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> LzmaHeader {
        LzmaHeader {
            filter: Filter::Arm64,
            properties: LzmaProperties { lc: 0, lp: 2, pb: 2 },
            dictionary_bytes: 1 << 20,
            image_size: 0x0123_4567,
        }
    }

    #[test]
    fn a_header_reads_back_and_has_these_bytes() {
        let bytes = header().encode();
        assert_eq!(bytes, [10, 108, 0, 0, 0x10, 0, 0x67, 0x45, 0x23, 0x01, 0, 0, 0, 0]);
        assert_eq!(LzmaHeader::decode(&bytes), Ok(header()));
    }

    #[test]
    fn every_properties_byte_is_refused_or_reads_back() {
        for byte in 0..=u8::MAX {
            if let Some(properties) = LzmaProperties::from_byte(byte) {
                assert_eq!(properties.byte(), byte);
                assert!(properties.lc + properties.lp <= 4 && properties.pb <= 4);
            }
        }
        assert_eq!(LzmaProperties::from_byte(93), Some(LzmaProperties { lc: 3, lp: 0, pb: 2 }));
        assert_eq!(LzmaProperties::from_byte(225), None);
        assert_eq!(LzmaProperties::from_byte(5), None);
    }

    #[test]
    fn each_field_outside_its_range_is_refused_by_name() {
        let refused = |at: usize, byte: u8| {
            let mut bytes = header().encode();
            bytes[at] = byte;
            LzmaHeader::decode(&bytes)
        };
        assert_eq!(refused(0, 5), Err(DecodeError::value("filter")));
        assert_eq!(refused(1, 225), Err(DecodeError::value("LZMA properties")));
        assert_eq!(refused(4, 0), Err(DecodeError::value("dictionary")));
        assert_eq!(refused(4, 0x81), Err(DecodeError::value("dictionary")));
        let empty = LzmaHeader { image_size: 0, ..header() }.encode();
        assert_eq!(LzmaHeader::decode(&empty), Err(DecodeError::value("image size")));
    }

    #[test]
    fn a_payload_may_need_no_more_than_was_signed() {
        let signed = header().decoder();
        assert_eq!(signed.memory_bytes, (1 << 20) + 6144 + 81_920);
        assert!(header().fits(&signed, 0x0123_4567));
        assert!(!header().fits(&signed, 0x0123_4568));
        assert!(!LzmaHeader { dictionary_bytes: (1 << 20) + 1, ..header() }.fits(&signed, 0x0123_4567));
        let other = LzmaProperties { lc: 3, lp: 0, pb: 2 };
        assert!(!LzmaHeader { properties: other, ..header() }.fits(&signed, 0x0123_4567));
    }
}
