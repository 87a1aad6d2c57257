//! Applies a patch with the decoder that devices have.
//!
//! The patch is read from start to end, piece by piece. The old image is read in any order, through a few pages in
//! memory. The new image goes to a file that gets its name only if its digest is right.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use whimbrel_protocol::limits::DECODER_MEMORY_BYTES_MAX;
use whimbrel_protocol::patch::{Base, DecodeFailure, Decoder, Header, INPUT_MARGIN, PatchError};

use super::sink::{Counting, Hashing};
use super::{IMAGE_BYTES_MAX, Progress, ReleaseError, StoredImage};
use crate::files::{Existing, FileError, NewFile, Secrecy};

/// Bytes of the patch, and of the new image, that are in memory at once.
const BUFFER_BYTES: usize = 64 * 1024;
const _: () = assert!(BUFFER_BYTES > INPUT_MARGIN);

/// A patch in a file, read up to the end of its header.
#[derive(Debug)]
pub struct PatchFile {
    path: PathBuf,
    header: Header,
    file: File,
    input: Vec<u8>,
}

impl PatchFile {
    /// Reads the header of the patch in the file `path`. A pipe will do.
    ///
    /// # Errors
    /// [`ReleaseError::File`]; [`ReleaseError::Patch`] if it is no patch, or needs more memory than any
    /// decoder may have; [`ReleaseError::PatchedSize`].
    pub fn open(path: &Path) -> Result<Self, ReleaseError> {
        let refused = |source| FileError::io("read", path, source);
        let mut file = File::open(path).map_err(refused)?;
        let mut input = Vec::with_capacity(BUFFER_BYTES);
        (&mut file).take(Header::BYTES_MAX as u64).read_to_end(&mut input).map_err(refused)?;
        let wrong = |source| ReleaseError::Patch { path: path.into(), source };
        let (header, header_bytes) = Header::decode(&input).map_err(wrong)?;
        let (memory, limit) = (header.memory_bytes(), DECODER_MEMORY_BYTES_MAX);
        if memory > limit {
            return Err(wrong(PatchError::Memory { got: memory.into(), limit: limit.into() }));
        }
        let size = header.image.size;
        if size == 0 || size > IMAGE_BYTES_MAX {
            return Err(ReleaseError::PatchedSize { path: path.into(), got: size, limit: IMAGE_BYTES_MAX });
        }
        input.drain(..header_bytes.min(input.len()));
        Ok(Self { path: path.into(), header, file, input })
    }

    /// The header of the patch.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Writes the image that the patch makes of `old` to the file `output`, which must not exist yet.
    ///
    /// `progress` counts every byte of the new image.
    ///
    /// # Errors
    /// [`ReleaseError::NotTheBase`], [`ReleaseError::Patch`], [`ReleaseError::Image`], [`ReleaseError::File`]; nothing
    /// is left behind then.
    pub fn apply(self, old: &StoredImage, output: &Path, progress: Progress<'_>) -> Result<(), ReleaseError> {
        let Self { path, header, file, input } = self;
        if old.id() != header.base {
            return Err(ReleaseError::NotTheBase {
                name: old.name().into(),
                got: old.id().digest,
                want: header.base.digest,
            });
        }
        let mut base = Pages::new(old.file()?);
        let new = NewFile::create(output, Secrecy::Public, Existing::Refuse)?;
        let mut sink = Hashing::new(Counting { sink: new, progress });
        decode(header, input, file, &mut base, &mut sink).map_err(|trouble| match trouble {
            Trouble::Patch(source) => ReleaseError::Patch { path: path.clone(), source },
            Trouble::Base(source) => ReleaseError::Base { name: old.name().into(), source },
            Trouble::Read(source) => FileError::io("read", &path, source).into(),
            Trouble::Write(source) => FileError::io("write", output, source).into(),
        })?;
        let (Counting { sink: new, .. }, got) = sink.into_parts();
        if got != header.image.digest {
            return Err(ReleaseError::Image { path, got, want: header.image.digest });
        }
        Ok(new.commit()?)
    }
}

/// Why a patch was not applied to the end.
pub(super) enum Trouble<B> {
    Patch(PatchError),
    Base(B),
    Read(io::Error),
    Write(io::Error),
}

/// Decodes a patch with `header`, of which `input` has been read and `source` has the rest, into `sink`.
pub(super) fn decode<B: Base>(
    header: Header,
    mut input: Vec<u8>,
    mut source: impl Read,
    base: &mut B,
    sink: &mut impl Write,
) -> Result<(), Trouble<B::Error>> {
    let mut decoder = Decoder::new(header);
    let mut out = vec![0; BUFFER_BYTES];
    let mut last = false;
    while !decoder.is_complete() {
        last = last || refill(&mut source, &mut input).map_err(Trouble::Read)?;
        let (used, filled) =
            decoder.decode(&input, last, base, &mut out).map_err(|failure| match failure {
                DecodeFailure::Patch(error) => Trouble::Patch(error),
                DecodeFailure::Base(error) => Trouble::Base(error),
            })?;
        input.drain(..used.min(input.len()));
        sink.write_all(out.get(..filled).unwrap_or_default()).map_err(Trouble::Write)?;
        if last && used == 0 && filled == 0 && !decoder.is_complete() {
            return Err(Trouble::Patch(PatchError::Truncated { produced: decoder.produced() }));
        }
    }
    if !last {
        // One byte that was not used is enough to know that there are too many.
        refill(&mut source, &mut input).map_err(Trouble::Read)?;
    }
    decoder.finish(input.len() as u64).map_err(Trouble::Patch)
}

/// Fills `input` up; returns whether the file has ended.
fn refill(file: &mut impl Read, input: &mut Vec<u8>) -> io::Result<bool> {
    let room = BUFFER_BYTES.saturating_sub(input.len()) as u64;
    let read = file.take(room).read_to_end(input)?;
    Ok((read as u64) < room)
}

/// Bytes of a page.
const PAGE_BYTES: usize = 16 * 1024;
/// Pages in memory.
const PAGES: usize = 16;

/// A file that is read at random, often close to where it was read before.
pub(super) struct Pages {
    file: File,
    /// The pages with their numbers. A page lies at the place that is its number modulo [`PAGES`].
    pages: Vec<Option<(u64, Vec<u8>)>>,
}

impl Pages {
    pub(super) fn new(file: File) -> Self {
        Self { file, pages: vec![None; PAGES] }
    }

    fn page(&mut self, number: u64) -> io::Result<&[u8]> {
        let place = usize::try_from(number % PAGES as u64).unwrap_or(0);
        let slot = self.pages.get_mut(place).ok_or(io::ErrorKind::InvalidInput)?;
        match slot {
            Some((held, _)) if *held == number => {}
            _ => *slot = Some((number, read_page(&self.file, number)?)),
        }
        Ok(slot.as_ref().map_or(&[], |(_, bytes)| bytes))
    }
}

fn read_page(file: &File, number: u64) -> io::Result<Vec<u8>> {
    let at = number.saturating_mul(PAGE_BYTES as u64);
    let mut bytes = vec![0; PAGE_BYTES];
    let mut filled = 0;
    while let Some(room) = bytes.get_mut(filled..).filter(|room| !room.is_empty()) {
        match file.read_at(room, at + filled as u64) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    bytes.truncate(filled);
    Ok(bytes)
}

impl Base for Pages {
    type Error = io::Error;

    fn read(&mut self, mut at: u64, mut into: &mut [u8]) -> io::Result<()> {
        while !into.is_empty() {
            let (number, start) = (at / PAGE_BYTES as u64, at % PAGE_BYTES as u64);
            let start = usize::try_from(start).unwrap_or(usize::MAX);
            let bytes = self.page(number)?.get(start..).unwrap_or_default();
            let count = bytes.len().min(into.len());
            let (Some(from), Some((to, rest))) = (bytes.get(..count), into.split_at_mut_checked(count))
            else {
                return Err(io::ErrorKind::UnexpectedEof.into());
            };
            if count == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            to.copy_from_slice(from);
            at += count as u64;
            into = rest;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_give_every_range_of_the_file() {
        let bytes: Vec<u8> =
            (0..PAGE_BYTES * 40 + 7).map(|i| u8::try_from(i * 31 / 7 % 251).unwrap()).collect();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&bytes).unwrap();
        let mut pages = Pages::new(file);
        let ranges = (0..5000_usize).map(|n| (n * 7919 % bytes.len(), n * 13 % (3 * PAGE_BYTES)));
        for (start, len) in ranges {
            let mut into = vec![0; len];
            let read = pages.read(start as u64, &mut into);
            match bytes.get(start..start + len) {
                Some(want) => assert!(read.is_ok() && into == want, "{start} {len}"),
                None => assert_eq!(read.unwrap_err().kind(), io::ErrorKind::UnexpectedEof),
            }
        }
    }
}
