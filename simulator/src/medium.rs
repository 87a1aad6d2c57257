//! The medium of a virtual device: what it wrote can be read back, byte for byte, and costs next to nothing.
//!
//! A thousand devices that each hold the same image of a megabyte would need a gigabyte. So all share one original,
//! and a medium remembers for each block how it differs: still blank, equal to the original (compared byte for byte
//! when it was written), or other bytes, which it then keeps itself. What is read is always what was written; damage
//! done to it on purpose is kept as well, and is there when the image is checked.

use core::ops::Range;

use bytes::Bytes;

/// Bytes of a block: what a medium tells apart.
pub const BLOCK_BYTES: usize = 1024;

/// What a blank medium reads as.
pub const BLANK: u8 = 0xff;

/// One device's storage, as long as the original that it is expected to hold in the end.
#[derive(Clone, Debug)]
pub struct Medium {
    original: Bytes,
    blocks: Vec<Block>,
}

/// How a block differs from the original.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Block {
    /// Never written.
    Blank,
    /// Equal to the original.
    Same,
    /// Something else, as long as the block.
    Own(Box<[u8]>),
}

/// A place that is not on the medium.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{length} bytes at {offset} reach beyond the {size} bytes of the medium")]
pub struct BeyondMedium {
    /// Where it begins.
    pub offset: usize,
    /// How long it is.
    pub length: usize,
    /// How long the medium is.
    pub size: usize,
}

impl Medium {
    /// A blank medium with room for `original`, whose bytes it shares with all others.
    #[must_use]
    pub fn blank(original: Bytes) -> Self {
        let blocks = vec![Block::Blank; original.len().div_ceil(BLOCK_BYTES)];
        Self { original, blocks }
    }

    /// Bytes that fit on it.
    #[must_use]
    pub fn size(&self) -> usize {
        self.original.len()
    }

    /// Bytes that it keeps for itself, because they differ from the original.
    #[must_use]
    pub fn own_bytes(&self) -> usize {
        let own = |block: &Block| if let Block::Own(bytes) = block { bytes.len() } else { 0 };
        self.blocks.iter().map(own).sum()
    }

    /// Writes `bytes` at `offset`.
    ///
    /// # Errors
    /// [`BeyondMedium`], and nothing is written.
    pub fn write(&mut self, offset: usize, bytes: &[u8]) -> Result<(), BeyondMedium> {
        self.check(offset, bytes.len())?;
        for piece in pieces(offset, bytes.len()) {
            let new = bytes.get(piece.of_request.clone()).expect("pieces lie within the request");
            self.write_piece(&piece, new);
        }
        Ok(())
    }

    /// Reads into all of `buffer` from `offset` on.
    ///
    /// # Errors
    /// [`BeyondMedium`], and nothing is read.
    pub fn read(&self, offset: usize, buffer: &mut [u8]) -> Result<(), BeyondMedium> {
        self.check(offset, buffer.len())?;
        for piece in pieces(offset, buffer.len()) {
            let part = buffer.get_mut(piece.of_request.clone()).expect("pieces lie within the request");
            match self.blocks.get(piece.block).expect("the request lies within the medium") {
                Block::Blank => part.fill(BLANK),
                Block::Same => part.copy_from_slice(self.original_of(&piece)),
                Block::Own(own) => part.copy_from_slice(own.get(piece.of_block).expect("a block is whole")),
            }
        }
        Ok(())
    }

    /// Flips one bit, as a worn-out flash cell would: nobody wrote it.
    ///
    /// # Errors
    /// [`BeyondMedium`].
    pub fn damage(&mut self, offset: usize, bit: u8) -> Result<(), BeyondMedium> {
        let mut byte = [0];
        self.read(offset, &mut byte)?;
        self.write(offset, &byte.map(|byte| byte ^ (1 << (bit % 8))))
    }

    fn check(&self, offset: usize, length: usize) -> Result<(), BeyondMedium> {
        let size = self.size();
        match offset.checked_add(length) {
            Some(end) if end <= size => Ok(()),
            _ => Err(BeyondMedium { offset, length, size }),
        }
    }

    fn write_piece(&mut self, piece: &Piece, new: &[u8]) {
        let same = new == self.original_of(piece);
        let whole = self.original_block(piece.block);
        let covers_block = new.len() == whole.len();
        let block = self.blocks.get(piece.block).expect("the request lies within the medium");
        let block = match block {
            _ if covers_block && same => Block::Same,
            Block::Same if same => Block::Same,
            before => {
                let mut own: Box<[u8]> = match before {
                    Block::Blank => vec![BLANK; whole.len()].into(),
                    Block::Same => whole.into(),
                    Block::Own(own) => own.clone(),
                };
                own.get_mut(piece.of_block.clone()).expect("a block is whole").copy_from_slice(new);
                if *own == *whole { Block::Same } else { Block::Own(own) }
            }
        };
        *self.blocks.get_mut(piece.block).expect("the request lies within the medium") = block;
    }

    fn original_block(&self, block: usize) -> &[u8] {
        let start = block * BLOCK_BYTES;
        let end = self.size().min(start + BLOCK_BYTES);
        self.original.get(start..end).expect("there is a block for each part of the original")
    }

    fn original_of(&self, piece: &Piece) -> &[u8] {
        self.original_block(piece.block)
            .get(piece.of_block.clone())
            .expect("the request lies within the medium")
    }
}

/// The part of a request that lies in one block.
struct Piece {
    block: usize,
    of_block: Range<usize>,
    of_request: Range<usize>,
}

/// A request that lies within the medium, block by block.
fn pieces(offset: usize, length: usize) -> impl Iterator<Item = Piece> {
    let mut done = 0;
    core::iter::from_fn(move || {
        let at = offset + done;
        let within = at % BLOCK_BYTES;
        let bytes = (length - done).min(BLOCK_BYTES - within);
        let of_request = done..done + bytes;
        done += bytes;
        (bytes > 0).then_some(Piece { block: at / BLOCK_BYTES, of_block: within..within + bytes, of_request })
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn original(bytes: usize) -> Bytes {
        (0..bytes).map(|at| u8::try_from(at * 7 % 251).unwrap()).collect::<Vec<_>>().into()
    }

    fn content(medium: &Medium) -> Vec<u8> {
        let mut all = vec![0; medium.size()];
        medium.read(0, &mut all).unwrap();
        all
    }

    proptest! {
        #[test]
        fn what_is_read_is_what_was_written(
            size in 1usize..5000,
            writes in prop::collection::vec((0usize..5000, 0usize..3000, any::<u8>(), any::<bool>()), 0..20),
        ) {
            let original = original(size);
            let mut medium = Medium::blank(original.clone());
            let mut plain = vec![BLANK; size];
            for (offset, length, byte, of_original) in writes {
                let offset = offset % size;
                let end = size.min(offset + length);
                let bytes = if of_original { original[offset..end].to_vec() } else { vec![byte; end - offset] };
                medium.write(offset, &bytes).unwrap();
                plain[offset..end].copy_from_slice(&bytes);
                prop_assert_eq!(&content(&medium), &plain);
                let mut part = vec![0; end - offset];
                medium.read(offset, &mut part).unwrap();
                prop_assert_eq!(&part, &bytes);
            }
        }
    }

    #[test]
    fn a_medium_that_holds_the_original_keeps_nothing_for_itself() {
        let original = original(10_000);
        let mut medium = Medium::blank(original.clone());
        for (number, chunk) in original.chunks(700).enumerate() {
            medium.write(number * 700, chunk).unwrap();
        }
        assert_eq!(content(&medium), original);
        assert_eq!(medium.own_bytes(), 0);
    }

    #[test]
    fn a_damaged_bit_is_there_when_the_image_is_read_and_costs_one_block() {
        let original = original(10_000);
        let mut medium = Medium::blank(original.clone());
        medium.write(0, &original).unwrap();
        medium.damage(9_999, 3).unwrap();
        let read = content(&medium);
        let differences: Vec<usize> = (0..10_000).filter(|at| read[*at] != original[*at]).collect();
        assert_eq!((differences, read[9_999] ^ original[9_999]), (vec![9_999], 8));
        assert_eq!(medium.own_bytes(), 10_000 % BLOCK_BYTES);
        medium.damage(9_999, 3).unwrap();
        assert_eq!((content(&medium), medium.own_bytes()), (original.to_vec(), 0), "and it can be put right");
    }

    #[test]
    fn nothing_is_read_or_written_beyond_the_end() {
        let mut medium = Medium::blank(original(100));
        for (offset, length) in [(0, 101), (100, 1), (usize::MAX, 2)] {
            let error = BeyondMedium { offset, length, size: 100 };
            assert_eq!(medium.write(offset, &vec![1; length]), Err(error));
            assert_eq!(medium.read(offset, &mut vec![1; length]), Err(error));
        }
        assert_eq!(medium.write(100, b""), Ok(()));
        assert_eq!(content(&medium), [BLANK; 100], "nothing was written on the way to the error");
    }
}
