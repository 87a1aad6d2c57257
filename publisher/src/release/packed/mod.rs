//! Finds packed images, which hold compressed data. If one byte of the content changes, compressed data changes
//! everywhere, so that a patch saves next to nothing; and the transfer compresses anyway.
//!
//! Containers are recognised by their headers, other compressed data by its entropy. What is found here leads to a
//! warning and to nothing else.

mod container;
mod fit;
mod kernel;

use core::fmt;

/// Why a patch of an image cannot be small, and what helps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packed {
    /// What the image is or has in it: `squashfs compressed with xz`.
    pub what: String,
    /// The consequence for patches.
    pub effect: &'static str,
    /// How to get an image that is not compressed: `release the ... itself`.
    pub instead: &'static str,
}

impl fmt::Display for Packed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, effect, instead } = self;
        write!(f, "image is {what}: {effect}; {instead}")
    }
}

impl Packed {
    fn new(what: impl Into<String>, instead: &'static str) -> Self {
        Self { what: what.into(), effect: "a patch will be nearly as large as the image", instead }
    }

    /// Looks for compressed data that is a large part of `image`; `None` if none is found.
    #[must_use]
    pub fn find(image: &[u8]) -> Option<Self> {
        Self::by_header(image).or_else(|| by_entropy(image))
    }

    /// Looks only at headers.
    #[must_use]
    pub fn by_header(image: &[u8]) -> Option<Self> {
        kernel::find(image).or_else(|| fit::find(image)).or_else(|| container::find(image))
    }
}

/// The compression method of the stream that begins with these bytes, by its magic number.
fn method(bytes: &[u8]) -> Option<&'static str> {
    let magics: [(&[u8], &str); 8] = [
        (&[0x1f, 0x8b, 8], "gzip"),
        (&[0xfd, b'7', b'z', b'X', b'Z', 0], "xz"),
        (&[0x28, 0xb5, 0x2f, 0xfd], "zstd"),
        (&[0x04, 0x22, 0x4d, 0x18], "lz4"),
        (&[0x02, 0x21, 0x4c, 0x18], "lz4"),
        (b"BZh", "bzip2"),
        (&[0x89, b'L', b'Z', b'O', 0, 0x0d, 0x0a, 0x1a, 0x0a], "lzop"),
        (b"PK\x03\x04", "zip"),
    ];
    let by_magic = magics.into_iter().find(|(magic, _)| bytes.starts_with(magic)).map(|(_, name)| name);
    by_magic.or_else(|| is_lzma_alone(bytes).then_some("lzma"))
}

/// Recognises `.lzma`, which has no magic number, by its properties, a dictionary size that encoders choose,
/// a plausible size, and the zero that every LZMA stream begins with.
fn is_lzma_alone(bytes: &[u8]) -> bool {
    let (Some([properties]), Some(dictionary), Some(size), Some([0])) =
        (array::<1>(bytes, 0), u32_le(bytes, 1), array::<8>(bytes, 5), array::<1>(bytes, 13))
    else {
        return false;
    };
    let size = u64::from_le_bytes(size);
    let usual_dictionary = dictionary >= 4096
        && (dictionary.is_power_of_two() || (dictionary / 3 * 2).is_power_of_two() && dictionary % 3 == 0);
    let usual_size = size == u64::MAX || (1..1 << 40).contains(&size);
    properties < 225
        && usual_dictionary
        && usual_size
        && entropy_bits(bytes.get(13..4109).unwrap_or_default()) > HIGH
}

/// Bytes of a block. The entropy of each block is computed alone.
const BLOCK_BYTES: usize = 4096;
/// Entropy in bits a byte. Code and text stay below it; random bytes have 7.95.
const HIGH: f64 = 7.8;
/// Percentage of such blocks from which on the whole image counts as compressed.
const MANY_PERCENT: usize = 60;

fn by_entropy(image: &[u8]) -> Option<Packed> {
    let blocks = image.len() / BLOCK_BYTES;
    let high = image.chunks_exact(BLOCK_BYTES).filter(|block| entropy_bits(block) > HIGH).count();
    let percent = high * 100 / blocks.max(1);
    (percent >= MANY_PERCENT).then(|| {
        Packed::new(
            format!("compressed or encrypted in {percent} % of its bytes"),
            "release what it was made of, because the transfer compresses",
        )
    })
}

/// The Shannon entropy in bits a byte, 0 to 8.
fn entropy_bits(bytes: &[u8]) -> f64 {
    let mut counts = [0_u32; 256];
    for byte in bytes {
        if let Some(count) = counts.get_mut(usize::from(*byte)) {
            *count += 1;
        }
    }
    let whole: f64 = counts.iter().copied().map(f64::from).sum();
    let parts = counts.into_iter().filter(|count| *count > 0).map(|count| f64::from(count) / whole);
    -parts.map(|part| part * part.log2()).sum::<f64>()
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

fn u16_le(bytes: &[u8], at: usize) -> Option<u16> {
    array(bytes, at).map(u16::from_le_bytes)
}

fn u32_le(bytes: &[u8], at: usize) -> Option<u32> {
    array(bytes, at).map(u32::from_le_bytes)
}

fn u32_be(bytes: &[u8], at: usize) -> Option<u32> {
    array(bytes, at).map(u32::from_be_bytes)
}

fn holds(bytes: &[u8], needle: &[u8]) -> bool {
    bytes.windows(needle.len()).any(|window| window == needle)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(crate) fn noise(len: usize) -> Vec<u8> {
        let mut state = 0x9e37_79b9_u32;
        (0..len)
            .map(|_| {
                state ^= state << 13;
                state ^= state >> 17;
                state ^= state << 5;
                state.to_le_bytes()[2]
            })
            .collect()
    }

    /// Bytes that look like code: many values, some of them more frequent than others.
    pub(crate) fn code(len: usize) -> Vec<u8> {
        noise(len)
            .into_iter()
            .enumerate()
            .map(|(at, byte)| if at % 2 == 0 { byte & 0x1f } else { byte })
            .collect()
    }

    #[track_caller]
    pub(crate) fn finds(image: &[u8], words: &str) {
        let found = Packed::find(image).unwrap_or_else(|| panic!("nothing found, `{words}` is there"));
        assert!(found.to_string().contains(words), "{found}");
    }

    #[test]
    fn code_and_text_and_nothing_are_not_compressed() {
        for image in
            [code(100_000), b"Plain text is fine. ".repeat(5000), vec![0; 50_000], vec![1], Vec::new()]
        {
            assert_eq!(Packed::find(&image), None);
        }
    }

    #[test]
    fn streams_are_known_by_their_first_bytes() {
        for (magic, name) in [
            (&[0x1f, 0x8b, 8, 0][..], "gzip"),
            (b"\xfd7zXZ\0", "xz"),
            (&[0x28, 0xb5, 0x2f, 0xfd], "zstd"),
            (&[0x04, 0x22, 0x4d, 0x18], "lz4"),
            (b"BZh91AY&SY", "bzip2"),
            (b"PK\x03\x04", "zip"),
        ] {
            finds(&[magic, &noise(20_000)].concat(), &format!("compressed with {name}: a patch"));
        }
    }

    #[test]
    fn lzma_alone_is_known_without_a_magic_number() {
        let head = |properties: u8, dictionary: u32, size: u64| {
            [&[properties][..], &dictionary.to_le_bytes(), &size.to_le_bytes(), &[0]].concat()
        };
        for head in [head(0x5d, 1 << 23, u64::MAX), head(0x5d, 3 << 20, 5_000_000), head(0, 4096, 1)] {
            finds(&[head, noise(20_000)].concat(), "compressed with lzma: a patch");
        }
        // A vector table, followed by zeros, numbers and code, is not taken for one.
        for head in [head(0x5d, 1 << 23, u64::MAX), head(0, 0x2000_0000, 0x0800_0000)] {
            assert_eq!(Packed::find(&[head, code(20_000)].concat()), None);
        }
    }

    #[test]
    fn what_no_header_explains_is_known_by_its_entropy() {
        finds(&noise(100_000), "compressed or encrypted in 100 % of its bytes");
        finds(&[code(30_000), noise(70_000)].concat(), "compressed or encrypted in ");
        assert_eq!(Packed::find(&[code(70_000), noise(30_000)].concat()), None);
    }
}
