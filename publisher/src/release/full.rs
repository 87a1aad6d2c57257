//! The full payload of an image, and how payloads are cut into chunks.

use whimbrel_protocol::chunk::{ChunkSalt, Index, Layout};
use whimbrel_protocol::ids::Digest;
use whimbrel_protocol::limits::CHUNKS_MAX;
use whimbrel_protocol::manifest::LzmaHeader;

use super::codec::{Compressed, compress, decompress};
use super::sink::Expected;
use super::{CodecChoice, Progress, ReleaseError};

/// The payload for devices that run none of the bases.
pub(super) struct FullPayload {
    /// The compressed image with its head; `None` if the image goes raw.
    pub(super) compressed: Option<Compressed>,
    /// Bytes that LZMA would have taken, if the image goes raw because that was no gain.
    pub(super) lzma_bytes: Option<u64>,
}

impl FullPayload {
    /// Compresses `image` as `codec` says, and checks what came out.
    ///
    /// # Errors
    /// [`ReleaseError::Unsound`].
    pub(super) fn make(
        image: &[u8],
        codec: CodecChoice,
        dictionary_bytes: u32,
        cutting: Cutting,
        progress: Progress<'_>,
    ) -> Result<Self, ReleaseError> {
        let size = image.len() as u64;
        if codec == CodecChoice::Raw {
            progress(size);
            return Ok(Self { compressed: None, lzma_bytes: None });
        }
        let compressed = compress(image, dictionary_bytes, progress);
        check_sound(image, &compressed)?;
        let bytes = compressed.payload.len() as u64;
        if codec == CodecChoice::Auto && bytes + (1 << cutting.chunk_size_log2(size)) > size {
            return Ok(Self { compressed: None, lzma_bytes: Some(bytes) });
        }
        Ok(Self { compressed: Some(compressed), lzma_bytes: None })
    }

    /// Bytes to transfer, of an image of `image_size` bytes.
    pub(super) fn size(&self, image_size: u64) -> u64 {
        self.compressed.as_ref().map_or(image_size, |compressed| compressed.payload.len() as u64)
    }
}

/// Pieces of an image that stand for the whole of it, and their bytes.
const SAMPLES: usize = 32;
const SAMPLE_BYTES: usize = 256 * 1024;
/// Bytes that are compressed for an estimate.
pub(super) const ESTIMATE_BYTES: u64 = (SAMPLES * SAMPLE_BYTES) as u64;

/// About how many bytes the full payload of a large image has, from pieces that are spread over it.
///
/// `progress` counts every byte of `image`.
pub(super) fn estimate(image: &[u8], dictionary_bytes: u32, progress: Progress<'_>) -> u64 {
    let bytes = from_sample(image, SAMPLE_BYTES, dictionary_bytes);
    progress(image.len() as u64);
    bytes
}

fn from_sample(image: &[u8], piece_bytes: usize, dictionary_bytes: u32) -> u64 {
    let (size, step) = (image.len() as u64, (image.len() / SAMPLES).max(1));
    let pieces = image.chunks(step).take(SAMPLES);
    let sample: Vec<u8> = pieces.flat_map(|part| part.iter().take(piece_bytes)).copied().collect();
    let compressed = compress(&sample, dictionary_bytes, &mut |_| {}).payload.len() as u64;
    (compressed * size / (sample.len() as u64).max(1)).min(size)
}

/// Decompresses the payload again, because a payload that does not give the image back must never be signed.
fn check_sound(image: &[u8], Compressed { header, payload }: &Compressed) -> Result<(), ReleaseError> {
    let stream = payload.get(LzmaHeader::BYTES..).unwrap_or_default();
    let mut left = Expected(image);
    match decompress(stream, header, &mut left) {
        Ok(()) if left.0.is_empty() => Ok(()),
        _ => Err(ReleaseError::Unsound),
    }
}

/// The size of chunks.
#[derive(Clone, Copy)]
pub(super) struct Cutting {
    /// log2 of the size. If it is `None`, the payload's size decides.
    pub(super) fixed_log2: Option<u8>,
}

impl Cutting {
    /// Chunks have 4 KiB. They are smaller if their digests still fit on one page, and larger if there would
    /// be too many.
    fn chunk_size_log2(self, transfer_size: u64) -> u8 {
        let most = u64::from(CHUNKS_MAX);
        self.fixed_log2.unwrap_or(match transfer_size {
            ..=0x1_0000 => 10,
            size if size <= most << 12 => 12,
            _ => 14,
        })
    }

    /// The chunks of `payload`, which becomes the image with digest `image`, and the digest of their index.
    ///
    /// # Errors
    /// [`ReleaseError::Layout`].
    pub(super) fn cut(self, image: Digest, payload: &[u8]) -> Result<(Layout, Digest), ReleaseError> {
        let transfer_size = payload.len() as u64;
        let layout = Layout::new(self.chunk_size_log2(transfer_size).into(), transfer_size)
            .map_err(|source| ReleaseError::Layout { transfer_size, source })?;
        let index = Index::build(ChunkSalt { image, transfer_size }, layout, payload);
        Ok((layout, index.digest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes that nothing compresses.
    fn noise(len: usize) -> Vec<u8> {
        let mut state = 1_u64;
        let next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            state.to_be_bytes()[0]
        };
        core::iter::repeat_with(next).take(len).collect()
    }

    #[test]
    fn a_payload_that_gives_something_else_is_unsound() {
        let image = noise(3000);
        let compressed = compress(&image, 4096, &mut |_| {});
        assert!(check_sound(&image, &compressed).is_ok());
        let mut other = image.clone();
        other[2999] ^= 1;
        for wrong in [&other[..], &image[..2999], &[&image[..], b"x"].concat()] {
            assert!(matches!(check_sound(wrong, &compressed), Err(ReleaseError::Unsound)));
        }
        let mut spoilt = compressed.clone();
        spoilt.payload.pop();
        assert!(matches!(check_sound(&image, &spoilt), Err(ReleaseError::Unsound)));
    }

    #[test]
    fn an_image_goes_as_it_is_where_compression_saves_less_than_a_chunk() {
        let cutting = Cutting { fixed_log2: Some(10) };
        // What LZMA adds to noise is far less than what it saves of zeros.
        for (zeros, compresses) in [(600, false), (2000, true)] {
            let image = [noise(4000), vec![0; zeros]].concat();
            let make = |codec| FullPayload::make(&image, codec, 4096, cutting, &mut |_| {}).unwrap();
            let full = make(CodecChoice::Auto);
            assert_eq!(full.compressed.is_some(), compresses, "{zeros} zeros");
            let lzma = make(CodecChoice::Lzma).size(image.len() as u64);
            assert!(lzma < image.len() as u64, "it saves something: {lzma} bytes");
            assert_eq!(full.size(image.len() as u64), if compresses { lzma } else { image.len() as u64 });
            assert_eq!(full.lzma_bytes, (!compresses).then_some(lzma));
        }
        let raw = FullPayload::make(&[0; 9000], CodecChoice::Raw, 4096, cutting, &mut |_| {}).unwrap();
        assert!(raw.compressed.is_none() && raw.size(9000) == 9000);
    }

    #[test]
    fn the_size_of_a_large_payload_is_estimated_from_pieces_of_the_whole_image() {
        // The second half compresses to nothing, the first not at all.
        let image = [noise(320_000), vec![0; 320_000]].concat();
        let exact = compress(&image, 4096, &mut |_| {}).payload.len() as u64;
        let estimated = from_sample(&image, 2000, 4096);
        assert!(estimated.abs_diff(exact) < exact / 20, "{estimated} for {exact}");
        let mut seen = 0;
        assert!(estimate(&image, 4096, &mut |bytes| seen += bytes) <= 640_000);
        assert_eq!(seen, 640_000);
    }

    #[test]
    fn chunks_grow_with_what_is_transferred() {
        let cutting = Cutting { fixed_log2: None };
        let most = u64::from(CHUNKS_MAX) << 12;
        for (bytes, log2) in [(1, 10), (0x1_0000, 10), (0x1_0001, 12), (most, 12), (most + 1, 14)] {
            assert_eq!(cutting.chunk_size_log2(bytes), log2, "{bytes} bytes");
        }
        assert_eq!(Cutting { fixed_log2: Some(16) }.chunk_size_log2(1), 16);
    }
}
