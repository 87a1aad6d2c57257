//! Decodes a staged payload of codec 1 into a slot (SPEC section 5.4), with bounded memory.
//!
//! The payload is what the signed index says, every byte of it; still nothing of it is trusted: memory is
//! bounded by what the manifest announced, output by the image's size, and what follows the stream is an error.

use alloc::boxed::Box;
use alloc::vec;
use core::cell::{Cell, RefCell};

use lzma_rust2::filter::bcj::BcjReader;
use lzma_rust2::{Error, LzmaReader, Read};
use sha2::{Digest as _, Sha256};
use whimbrel_protocol::disk::{Area, Disk, DiskError};
use whimbrel_protocol::ids::Digest;
use whimbrel_protocol::manifest::{Filter, LzmaHeader};

use super::{Decoding, PayloadFailure};

/// Bytes decoded and compared at once.
const BLOCK_BYTES: usize = 16 * 1024;
/// Bytes written between two flushes, so that a cut costs no more than this to do again.
const FLUSH_BYTES: u64 = 1024 * 1024;

/// Decodes, writes what is not there yet, and returns the digest of what was decoded. The last part is not
/// flushed: reading it back begins with that.
pub(crate) fn decode(disk: &mut impl Disk, what: &Decoding) -> Result<Digest, PayloadFailure> {
    let mut head = [0; LzmaHeader::BYTES];
    if what.transfer_size < head.len() as u64 {
        return Err(PayloadFailure::Malformed);
    }
    disk.read(Area::Staging, 0, &mut head)?;
    let header = LzmaHeader::decode(&head).map_err(|_| PayloadFailure::Malformed)?;
    if !header.fits(&what.memory, what.image_size) {
        return Err(PayloadFailure::Malformed);
    }
    let disk = RefCell::new(disk);
    let failure = Cell::new(None);
    let staged = Staged { disk: &disk, failure: &failure, at: head.len() as u64, end: what.transfer_size };
    let result = Decoder::new(&header, staged).and_then(|mut decoder| {
        let digest = write_out(&disk, what, &mut decoder)?;
        decoder.finish()?;
        Ok(digest)
    });
    match (failure.take(), result) {
        (Some(error), _) => Err(PayloadFailure::Disk(error)),
        (None, result) => result,
    }
}

fn write_out<D: Disk>(
    disk: &RefCell<&mut D>,
    what: &Decoding,
    decoder: &mut Decoder<'_, '_, D>,
) -> Result<Digest, PayloadFailure> {
    let mut hash = Sha256::new();
    let (mut block, mut present) = (vec![0; BLOCK_BYTES], vec![0; BLOCK_BYTES]);
    let (mut at, mut unflushed) = (0, 0);
    while at < what.image_size {
        let len = usize::try_from(what.image_size - at).unwrap_or(BLOCK_BYTES).min(BLOCK_BYTES);
        let (Some(block), Some(present)) = (block.get_mut(..len), present.get_mut(..len)) else {
            break;
        };
        decoder.read_exact(block)?;
        hash.update(&*block);
        let mut disk = disk.borrow_mut();
        disk.read(what.slot, at, present)?;
        if block != present {
            disk.write(what.slot, at, block)?;
            unflushed += len as u64;
        }
        if unflushed >= FLUSH_BYTES {
            disk.flush(what.slot)?;
            unflushed = 0;
        }
        at += len as u64;
    }
    Ok(Digest(hash.finalize().into()))
}

/// The staged payload as a stream. What the medium does wrong is kept apart from what the decoder finds.
struct Staged<'a, 'd, D> {
    disk: &'a RefCell<&'d mut D>,
    failure: &'a Cell<Option<DiskError>>,
    at: u64,
    end: u64,
}

impl<D: Disk> Read for Staged<'_, '_, D> {
    fn read(&mut self, into: &mut [u8]) -> Result<usize, Error> {
        let left = usize::try_from(self.end - self.at).unwrap_or(usize::MAX);
        let len = left.min(into.len());
        let Some(into) = into.get_mut(..len) else {
            return Ok(0);
        };
        if let Err(error) = self.disk.borrow_mut().read(Area::Staging, self.at, into) {
            self.failure.set(Some(error));
            return Err(Error::Other("the medium failed"));
        }
        self.at += len as u64;
        Ok(len)
    }
}

/// The decompressor, with its filter.
enum Decoder<'a, 'd, D: Disk> {
    Plain(Box<LzmaReader<Staged<'a, 'd, D>>>),
    Filtered(Box<BcjReader<LzmaReader<Staged<'a, 'd, D>>>>),
}

impl<'a, 'd, D: Disk> Decoder<'a, 'd, D> {
    fn new(header: &LzmaHeader, staged: Staged<'a, 'd, D>) -> Result<Self, PayloadFailure> {
        let (size, properties) = (header.image_size, header.properties.byte());
        let reader = LzmaReader::new_with_props(staged, size, properties, header.dictionary_bytes, None);
        let mut reader = reader.map_err(|_| PayloadFailure::Malformed)?;
        reader.set_relaxed_end_condition(false);
        Ok(match header.filter {
            Filter::None => Self::Plain(Box::new(reader)),
            Filter::X86 => Self::Filtered(Box::new(BcjReader::new_x86(reader, 0))),
            Filter::Arm => Self::Filtered(Box::new(BcjReader::new_arm(reader, 0))),
            Filter::ArmThumb => Self::Filtered(Box::new(BcjReader::new_arm_thumb(reader, 0))),
            Filter::Arm64 => Self::Filtered(Box::new(BcjReader::new_arm64(reader, 0))),
            Filter::RiscV => Self::Filtered(Box::new(BcjReader::new_riscv(reader, 0))),
        })
    }

    fn read_exact(&mut self, into: &mut [u8]) -> Result<(), PayloadFailure> {
        let result = match self {
            Self::Plain(reader) => reader.read_exact(into),
            Self::Filtered(reader) => reader.read_exact(into),
        };
        result.map_err(|_| PayloadFailure::Malformed)
    }

    /// Nothing may follow: neither in the stream nor behind it.
    fn finish(mut self) -> Result<(), PayloadFailure> {
        let mut more = [0];
        let ended = match &mut self {
            Self::Plain(reader) => reader.read(&mut more),
            Self::Filtered(reader) => reader.read(&mut more),
        };
        let reader = match self {
            Self::Plain(reader) => *reader,
            Self::Filtered(reader) => reader.into_inner(),
        };
        let (staged, unused) = reader.into_parts();
        match ended {
            Ok(0) if unused.is_empty() && staged.at == staged.end => Ok(()),
            _ => Err(PayloadFailure::Malformed),
        }
    }
}
