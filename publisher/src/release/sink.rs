//! Writers for images that are only checked: they compare, hash or count what is written to them.

use std::io::{self, Write};

use sha2::{Digest as _, Sha256};
use whimbrel_protocol::ids::Digest;

use super::Progress;

/// Accepts only the bytes that it expects, and fails at the first other one.
pub(super) struct Expected<'i>(pub(super) &'i [u8]);

impl Write for Expected<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 = self.0.strip_prefix(bytes).ok_or(io::ErrorKind::InvalidData)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Hashes the bytes that go through it.
pub(super) struct Hashing<W> {
    sink: W,
    hash: Sha256,
}

impl<W> Hashing<W> {
    pub(super) fn new(sink: W) -> Self {
        Self { sink, hash: Sha256::new() }
    }

    pub(super) fn digest(self) -> Digest {
        self.into_parts().1
    }

    /// The writer behind it, and the digest of the bytes that went through.
    pub(super) fn into_parts(self) -> (W, Digest) {
        (self.sink, Digest(self.hash.finalize().into()))
    }
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.sink.write(bytes)?;
        self.hash.update(bytes.get(..written).unwrap_or(bytes));
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.sink.flush()
    }
}

/// Reports to `progress` how many bytes go through it.
pub(super) struct Counting<'p, W> {
    pub(super) sink: W,
    pub(super) progress: Progress<'p>,
}

impl<W: Write> Write for Counting<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.sink.write(bytes)?;
        (self.progress)(written as u64);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.sink.flush()
    }
}
