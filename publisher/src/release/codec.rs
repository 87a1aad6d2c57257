//! Compresses an image into a payload of codec 1, and decompresses it again (SPEC section 5.4).
//!
//! Branch filter and LZMA properties are found by trying several of them on a sample: all of a small image,
//! pieces of a large one. The tries and their order are fixed, so that the same image always gives the same
//! payload.

use core::cell::Cell;
use std::io::{self, Read, Write};

use lzma_rust2::filter::bcj::{BcjReader, BcjWriter};
use lzma_rust2::{Error, LzmaOptions, LzmaReader, LzmaWriter, Read as LzmaRead, Write as LzmaWrite};
use whimbrel_protocol::limits::DICTIONARY_BYTES_MAX;
use whimbrel_protocol::manifest::{Filter, LzmaHeader, LzmaProperties};

use super::{Progress, ReleaseError};

/// A compressed image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compressed {
    /// The payload's head.
    pub header: LzmaHeader,
    /// The payload, head included.
    pub payload: Vec<u8>,
}

/// Bytes of the sample on which filters and properties are tried.
const SAMPLE_BYTES: usize = 1024 * 1024;
/// Pieces that the sample of a large image is made of.
const SAMPLE_PIECES: usize = 4;
/// A filter is used only if it saves at least this part of the sample: 1 in 200.
const FILTER_GAIN: usize = 200;

/// The first suits most data; the others are better for machine code of some architectures.
const PROPERTIES: [LzmaProperties; 3] = [
    LzmaProperties { lc: 3, lp: 0, pb: 2 },
    LzmaProperties { lc: 2, lp: 2, pb: 2 },
    LzmaProperties { lc: 2, lp: 1, pb: 1 },
];

/// Checks that a payload can have a dictionary of this size, a power of two from 4 KiB to 8 MiB, and returns
/// it.
///
/// # Errors
/// [`ReleaseError::Option`].
pub(crate) fn check_dictionary(bytes: u64) -> Result<u32, ReleaseError> {
    u32::try_from(bytes)
        .ok()
        .filter(|bytes| bytes.is_power_of_two() && (4096..=DICTIONARY_BYTES_MAX).contains(bytes))
        .ok_or_else(|| ReleaseError::Option {
            what: "dictionary",
            got: bytes.to_string(),
            want: "a power of two from 4KiB to 8MiB",
        })
}

/// Compresses `image`, which has at least 1 byte, with a dictionary of at most `dictionary_bytes`: a power of two
/// from 4 KiB to 8 MiB. A smaller image gets a smaller dictionary.
#[must_use]
pub fn compress(image: &[u8], dictionary_bytes: u32, progress: Progress<'_>) -> Compressed {
    let dictionary_bytes = fitting_dictionary(image.len(), dictionary_bytes);
    let sample = sample_of(image);
    let [first, ..] = PROPERTIES;
    let trial = |filter, properties| {
        let header = LzmaHeader { filter, properties, dictionary_bytes, image_size: sample.len() as u64 };
        encode(&sample, &header, Effort::Trial, &mut |_| {}).len()
    };
    let plain = trial(Filter::None, first);
    let filter = Filter::ALL
        .into_iter()
        .map(|filter| (if filter == Filter::None { plain } else { trial(filter, first) }, filter))
        .filter(|(len, filter)| *filter == Filter::None || len + sample.len() / FILTER_GAIN <= plain)
        .min_by_key(|(len, _)| *len)
        .map_or(Filter::None, |(_, filter)| filter);
    let properties =
        PROPERTIES.into_iter().min_by_key(|properties| trial(filter, *properties)).unwrap_or(first);
    let header = LzmaHeader { filter, properties, dictionary_bytes, image_size: image.len() as u64 };
    Compressed { header, payload: encode(image, &header, Effort::Best, progress) }
}

/// The smallest power of two that covers the image, but at most what is allowed. More would cost the decoder
/// memory for nothing.
fn fitting_dictionary(image_len: usize, most: u32) -> u32 {
    u32::try_from(image_len.next_power_of_two()).unwrap_or(u32::MAX).clamp(4096, most.max(4096))
}

/// Takes the whole of a small image, or pieces spread over a large one. Each begins at a boundary that keeps
/// instructions aligned.
fn sample_of(image: &[u8]) -> Vec<u8> {
    if image.len() <= SAMPLE_BYTES {
        return image.to_vec();
    }
    let piece = SAMPLE_BYTES / SAMPLE_PIECES;
    let step = (image.len() - piece) / (SAMPLE_PIECES - 1) / 16 * 16;
    (0..SAMPLE_PIECES).flat_map(|n| image.iter().skip(n * step).take(piece)).copied().collect()
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Effort {
    /// Compresses fast, to compare.
    Trial,
    /// Compresses as well as possible.
    Best,
}

impl Effort {
    fn options(self, header: &LzmaHeader) -> LzmaOptions {
        let mut options = LzmaOptions::with_preset(if self == Self::Best { 9 } else { 1 });
        if self == Self::Best {
            options.nice_len = LzmaOptions::NICE_LEN_MAX;
        }
        options.dict_size = header.dictionary_bytes;
        options.lc = header.properties.lc.into();
        options.lp = header.properties.lp.into();
        options.pb = header.properties.pb.into();
        options
    }
}

/// Bytes that are taken from the decompressor at once.
const COPY_BYTES: usize = 8 * 1024;
/// Bytes that are handed to the compressor at once.
const STEP_BYTES: usize = 64 * 1024;

fn encode(image: &[u8], header: &LzmaHeader, effort: Effort, progress: Progress<'_>) -> Vec<u8> {
    let memory = "writing to memory does not fail";
    let mut writer = LzmaWriter::new_no_header(header.encode().to_vec(), &effort.options(header), false)
        .expect("the header's ranges are the compressor's");
    let filtered = filtered(image, header.filter);
    for step in filtered.as_deref().unwrap_or(image).chunks(STEP_BYTES) {
        writer.write_all(step).expect(memory);
        progress(step.len() as u64);
    }
    writer.finish().expect(memory)
}

fn filtered(image: &[u8], filter: Filter) -> Option<Vec<u8>> {
    let out = Vec::with_capacity(image.len());
    let mut writer = match filter {
        Filter::None => return None,
        Filter::X86 => BcjWriter::new_x86(out, 0),
        Filter::Arm => BcjWriter::new_arm(out, 0),
        Filter::ArmThumb => BcjWriter::new_arm_thumb(out, 0),
        Filter::Arm64 => BcjWriter::new_arm64(out, 0),
        Filter::RiscV => BcjWriter::new_riscv(out, 0),
    };
    let memory = "writing to memory does not fail";
    writer.write_all(image).expect(memory);
    Some(writer.finish().expect(memory))
}

/// Decompresses `payload`, whose head is `header`, into `sink`, and checks that nothing is left over.
///
/// `payload` stands after the head. Memory stays within [`LzmaHeader::decoder`].
///
/// # Errors
/// Those of `payload` and `sink`; [`io::ErrorKind::InvalidData`] if the stream is no LZMA stream, ends early,
/// or is followed by more bytes.
pub fn decompress(payload: impl Read, header: &LzmaHeader, mut sink: impl Write) -> io::Result<()> {
    let failure = Cell::new(None);
    let source = Source { reader: payload, failure: &failure };
    unpack(source, header, &mut sink).map_err(|error| match (failure.take(), error) {
        (Some(failed), _) | (None, Unpacking::Sink(failed)) => failed,
        (None, Unpacking::Stream(Error::Eof)) => io::ErrorKind::UnexpectedEof.into(),
        (
            None,
            Unpacking::Stream(
                Error::InvalidData(what)
                | Error::InvalidInput(what)
                | Error::Unsupported(what)
                | Error::Other(what),
            ),
        ) => invalid(what),
        (None, Unpacking::Stream(_)) => invalid("stream cannot be read"),
    })
}

/// Why the image did not come out.
enum Unpacking {
    Stream(Error),
    Sink(io::Error),
}

impl From<Error> for Unpacking {
    fn from(error: Error) -> Self {
        Self::Stream(error)
    }
}

/// A payload as the decompressor reads it; what its reader says of an error is kept apart.
struct Source<'f, R> {
    reader: R,
    failure: &'f Cell<Option<io::Error>>,
}

impl<R: Read> LzmaRead for Source<'_, R> {
    fn read(&mut self, into: &mut [u8]) -> Result<usize, Error> {
        self.reader.read(into).map_err(|error| match error.kind() {
            io::ErrorKind::Interrupted => Error::Interrupted,
            _ => {
                self.failure.set(Some(error));
                Error::Other("the payload cannot be read")
            }
        })
    }
}

fn unpack(source: impl LzmaRead, header: &LzmaHeader, sink: &mut impl Write) -> Result<(), Unpacking> {
    let LzmaProperties { lc, lp, pb } = header.properties;
    let (lc, lp, pb) = (lc.into(), lp.into(), pb.into());
    let mut reader = LzmaReader::new(source, header.image_size, lc, lp, pb, header.dictionary_bytes, None)?;
    reader.set_relaxed_end_condition(false);
    let mut reader = match header.filter {
        Filter::None => {
            copy(&mut reader, header, sink)?;
            return check_end(reader);
        }
        Filter::X86 => BcjReader::new_x86(reader, 0),
        Filter::Arm => BcjReader::new_arm(reader, 0),
        Filter::ArmThumb => BcjReader::new_arm_thumb(reader, 0),
        Filter::Arm64 => BcjReader::new_arm64(reader, 0),
        Filter::RiscV => BcjReader::new_riscv(reader, 0),
    };
    copy(&mut reader, header, sink)?;
    check_end(reader.into_inner())
}

/// Copies until the reader says that it has ended, which is after exactly the image's size.
fn copy(reader: &mut impl LzmaRead, header: &LzmaHeader, sink: &mut impl Write) -> Result<(), Unpacking> {
    let (mut buffer, mut copied) = (vec![0; COPY_BYTES], 0);
    loop {
        let len = reader.read(&mut buffer)?;
        let part = buffer.get(..len).filter(|part| !part.is_empty());
        let Some(part) = part else {
            let ended = copied == header.image_size;
            return if ended { Ok(()) } else { Err(Error::InvalidData("stream ends early").into()) };
        };
        sink.write_all(part).map_err(Unpacking::Sink)?;
        copied += len as u64;
    }
}

/// Checks that the stream and its source end together.
fn check_end(reader: LzmaReader<impl LzmaRead>) -> Result<(), Unpacking> {
    let (mut source, unused) = reader.into_parts();
    if unused.is_empty() && source.read(&mut [0])? == 0 {
        Ok(())
    } else {
        Err(Error::InvalidData("bytes follow the stream").into())
    }
}

fn invalid(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn roundtrip(image: &[u8]) -> Compressed {
        let mut seen = 0;
        let compressed = compress(image, 1 << 20, &mut |bytes| seen += bytes);
        assert_eq!(seen, image.len() as u64);
        let (head, rest) = compressed.payload.split_first_chunk::<{ LzmaHeader::BYTES }>().unwrap();
        assert_eq!(LzmaHeader::decode(head), Ok(compressed.header));
        let mut out = Vec::new();
        decompress(rest, &compressed.header, &mut out).unwrap();
        assert!(out == image);
        compressed
    }

    /// Calls to a few places from everywhere, as machine code of ARM64 has them.
    fn arm64_calls(count: u32) -> Vec<u8> {
        (0..count)
            .flat_map(|at| {
                let target = [100, 5000, 70_000, 12_345][at as usize * 7 / 3 % 4];
                let call = 0x9400_0000 | ((target - 2 * at.cast_signed()) & 0x03ff_ffff).cast_unsigned();
                let other = at.wrapping_mul(2_654_435_761) | 0x8000_0000;
                [call.to_le_bytes(), (other & 0xff00_00ff).to_le_bytes()]
            })
            .flatten()
            .collect()
    }

    #[test]
    fn images_of_all_sizes_come_back() {
        let noise: Vec<u8> =
            (0..70_000_u64).map(|i| i.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes()[0]).collect();
        for len in [1, 2, 3, 4, 5, 13, 4095, 4096, 4097, 65_537, 70_000] {
            roundtrip(&noise[..len]);
            roundtrip(&vec![0; len]);
        }
    }

    #[test]
    fn the_filter_that_suits_the_code_is_found_and_undone() {
        let compressed = roundtrip(&arm64_calls(20_000));
        assert_eq!(compressed.header.filter, Filter::Arm64);
        assert_eq!(roundtrip(&vec![7; 50_000]).header.filter, Filter::None);
    }

    #[test]
    fn every_filter_comes_back() {
        let image = arm64_calls(5_003);
        for filter in Filter::ALL {
            for properties in PROPERTIES {
                let header =
                    LzmaHeader { filter, properties, dictionary_bytes: 4096, image_size: image.len() as u64 };
                let payload = encode(&image, &header, Effort::Trial, &mut |_| {});
                let mut out = Vec::new();
                decompress(&payload[LzmaHeader::BYTES..], &header, &mut out).unwrap();
                assert!(out == image, "{filter:?} {properties:?}");
            }
        }
    }

    #[test]
    fn a_small_image_asks_for_a_small_dictionary() {
        assert_eq!(fitting_dictionary(1, 1 << 20), 4096);
        assert_eq!(fitting_dictionary(5000, 1 << 20), 8192);
        assert_eq!(fitting_dictionary(1 << 20, 1 << 20), 1 << 20);
        assert_eq!(fitting_dictionary((1 << 20) + 1, 1 << 20), 1 << 20);
        assert_eq!(fitting_dictionary(usize::MAX / 4, 8 << 20), 8 << 20);
    }

    #[test]
    fn the_sample_of_a_large_image_is_spread_over_it() {
        let image: Vec<u8> = (0..5 * SAMPLE_BYTES).map(|i| u8::try_from(i / 4096 % 251).unwrap()).collect();
        let sample = sample_of(&image);
        assert_eq!(sample.len(), SAMPLE_BYTES);
        let last = image.len() - 4096;
        assert_eq!(sample.last(), image.get(last));
    }

    #[test]
    fn a_stream_that_goes_on_or_ends_early_is_refused() {
        let image = arm64_calls(1_000);
        let Compressed { header, payload } = roundtrip(&image);
        let stream = &payload[LzmaHeader::BYTES..];
        let mut longer = stream.to_vec();
        longer.push(0);
        assert!(decompress(&longer[..], &header, io::sink()).is_err());
        for len in [0, 4, 5, stream.len() / 2, stream.len() - 1] {
            assert!(decompress(&stream[..len], &header, io::sink()).is_err(), "{len}");
        }
        let shorter = LzmaHeader { image_size: header.image_size - 8, ..header };
        assert!(decompress(stream, &shorter, io::sink()).is_err());
    }
}
