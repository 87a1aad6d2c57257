//! Storage that many devices share without knowing: what one wrote can be read back, and costs next to nothing.
//!
//! A thousand devices that each hold the same image of a megabyte would need a gigabyte. So all share one original,
//! and a medium remembers for each block how it differs: zero as it was in the beginning, equal to the original
//! (compared byte for byte when it was written), or other bytes, which it then keeps itself. What is read is always
//! what was written; damage done to it on purpose is kept as well, and is there when the image is checked.

use alloc::collections::BTreeMap;
use core::ops::Range;

use bytes::Bytes;

/// Bytes of a block: what a medium tells apart.
pub const BLOCK_BYTES: usize = 1024;

/// One stretch of one device's storage.
#[derive(Clone, Debug, Default)]
pub struct Medium {
    original: Bytes,
    size: usize,
    blocks: Vec<Block>,
    /// What blocks hold that are neither zero nor original.
    own: BTreeMap<usize, Box<[u8; BLOCK_BYTES]>>,
}

/// What a block holds; its bytes beyond the size are always zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Block {
    Zero,
    Original,
    Own,
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
    /// An empty medium that is expected to hold `original` one day, whose bytes it shares with all others.
    #[must_use]
    pub fn new(original: Bytes) -> Self {
        Self { original, ..Self::default() }
    }

    /// A medium that holds `original`, whose bytes it shares with all others.
    #[must_use]
    pub fn holding(original: Bytes) -> Self {
        let size = original.len();
        let blocks = vec![Block::Original; size.div_ceil(BLOCK_BYTES)];
        Self { original, size, blocks, own: BTreeMap::new() }
    }

    /// Bytes that fit on it.
    #[must_use]
    pub const fn size(&self) -> usize {
        self.size
    }

    /// Bytes that it keeps for itself, because they differ from the original.
    #[must_use]
    pub fn own_bytes(&self) -> usize {
        self.own.len() * BLOCK_BYTES
    }

    /// Makes it longer, by zeros, or shorter.
    pub fn resize(&mut self, size: usize) {
        let blocks = size.div_ceil(BLOCK_BYTES);
        if size < self.size {
            // What is cut off must not come back when it grows again.
            let end = self.size.min(blocks * BLOCK_BYTES);
            let zeros = [0; BLOCK_BYTES];
            let tail = zeros.get(..end.saturating_sub(size)).unwrap_or_default();
            self.write(size, tail).expect("the tail of a block lies within the old size");
            drop(self.own.split_off(&blocks));
        }
        self.blocks.resize(blocks, Block::Zero);
        self.size = size;
    }

    /// Writes `bytes` at `offset`.
    ///
    /// # Errors
    /// [`BeyondMedium`], and nothing is written.
    pub fn write(&mut self, offset: usize, bytes: &[u8]) -> Result<(), BeyondMedium> {
        self.check(offset, bytes.len())?;
        for piece in pieces(offset, bytes.len()) {
            let mut block = self.block(piece.block);
            let part = block.get_mut(piece.of_block).expect("pieces lie within a block");
            part.copy_from_slice(bytes.get(piece.of_request).expect("pieces lie within the request"));
            self.put_block(piece.block, &block);
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
            let part = buffer.get_mut(piece.of_request).expect("pieces lie within the request");
            part.copy_from_slice(
                self.block(piece.block).get(piece.of_block).expect("pieces lie within a block"),
            );
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
        match offset.checked_add(length) {
            Some(end) if end <= self.size => Ok(()),
            _ => Err(BeyondMedium { offset, length, size: self.size }),
        }
    }

    /// What a block holds now.
    fn block(&self, number: usize) -> [u8; BLOCK_BYTES] {
        match self.blocks.get(number) {
            Some(Block::Original) => self.original_block(number),
            Some(Block::Own) => **self.own.get(&number).expect("a block that is its own has bytes"),
            Some(Block::Zero) | None => [0; BLOCK_BYTES],
        }
    }

    fn put_block(&mut self, number: usize, bytes: &[u8; BLOCK_BYTES]) {
        let state = self.blocks.get_mut(number).expect("the request lies within the medium");
        let before = *state;
        *state = if bytes.iter().all(|byte| *byte == 0) {
            Block::Zero
        } else if is_original(&self.original, number, bytes) {
            Block::Original
        } else {
            Block::Own
        };
        match (before, *state) {
            (_, Block::Own) => drop(self.own.insert(number, Box::new(*bytes))),
            (Block::Own, _) => drop(self.own.remove(&number)),
            _ => {}
        }
    }

    fn original_block(&self, number: usize) -> [u8; BLOCK_BYTES] {
        let mut block = [0; BLOCK_BYTES];
        let part = part_of(&self.original, number);
        block.iter_mut().zip(part).for_each(|(to, from)| *to = *from);
        block
    }
}

/// The bytes of the original in this block: all, some or none.
fn part_of(original: &[u8], number: usize) -> &[u8] {
    let from = (number * BLOCK_BYTES).min(original.len());
    original.get(from..original.len().min(from + BLOCK_BYTES)).unwrap_or_default()
}

/// Whether a block is what the original has there, followed by zeros where that ends.
fn is_original(original: &[u8], number: usize, block: &[u8; BLOCK_BYTES]) -> bool {
    let part = part_of(original, number);
    block.strip_prefix(part).is_some_and(|rest| rest.iter().all(|byte| *byte == 0))
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

    fn sized(original: Bytes, size: usize) -> Medium {
        let mut medium = Medium::new(original);
        medium.resize(size);
        medium
    }

    #[derive(Clone, Debug)]
    enum Step {
        Write { offset: usize, length: usize, byte: u8 },
        WriteOriginal { offset: usize, length: usize },
        Resize(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        let place = || (0usize..5000, 0usize..3000);
        prop_oneof![
            (place(), prop::sample::select(vec![0, 1, 0xff]))
                .prop_map(|((offset, length), byte)| Step::Write { offset, length, byte }),
            place().prop_map(|(offset, length)| Step::WriteOriginal { offset, length }),
            (0usize..6000).prop_map(Step::Resize),
        ]
    }

    proptest! {
        #[test]
        fn what_is_read_is_what_was_written(
            original_bytes in 0usize..5000,
            steps in prop::collection::vec(step(), 0..20),
        ) {
            let original = original(original_bytes);
            let mut medium = sized(original.clone(), 3000);
            let mut plain = vec![0; 3000];
            for step in steps {
                let (offset, bytes) = match step {
                    Step::Resize(size) => {
                        medium.resize(size);
                        plain.resize(size, 0);
                        (0, Vec::new())
                    }
                    Step::Write { offset, length, byte } => (offset, vec![byte; length]),
                    Step::WriteOriginal { offset, length } => {
                        let end = original_bytes.min(offset + length);
                        (offset, original.get(offset..end).unwrap_or_default().to_vec())
                    }
                };
                let fits = offset + bytes.len() <= plain.len();
                prop_assert_eq!(medium.write(offset, &bytes).is_ok(), fits);
                if fits {
                    plain[offset..offset + bytes.len()].copy_from_slice(&bytes);
                    let mut part = vec![1; bytes.len()];
                    medium.read(offset, &mut part).unwrap();
                    prop_assert_eq!(&part, &bytes);
                }
                prop_assert_eq!(&content(&medium), &plain);
            }
        }
    }

    #[test]
    fn a_medium_that_holds_the_original_keeps_nothing_for_itself() {
        let original = original(10_000);
        let mut medium = sized(original.clone(), 12_000);
        for (number, chunk) in original.chunks(700).enumerate() {
            medium.write(number * 700, chunk).unwrap();
        }
        assert_eq!(content(&medium)[..10_000], original);
        assert_eq!(content(&medium)[10_000..], [0; 2000]);
        assert_eq!(medium.own_bytes(), 0);
        medium.write(9_000, &[1; 3000]).unwrap();
        assert_eq!(medium.own_bytes(), 4 * BLOCK_BYTES);
        medium.resize(0);
        assert_eq!(medium.own_bytes(), 0, "what is cut off takes no memory");
    }

    #[test]
    fn a_medium_can_begin_with_the_original_and_shares_it() {
        let original = original(10_000);
        let mut medium = Medium::holding(original.clone());
        assert_eq!((content(&medium), medium.own_bytes()), (original.to_vec(), 0));
        medium.damage(5_000, 0).unwrap();
        assert_eq!((content(&medium)[5_000] ^ original[5_000], medium.own_bytes()), (1, BLOCK_BYTES));
        medium.resize(20_000);
        medium.write(15_000, &[7; 10]).unwrap();
        assert_eq!(content(&medium)[15_000..15_010], [7; 10]);
    }

    #[test]
    fn a_damaged_bit_is_there_when_the_image_is_read_and_costs_one_block() {
        let original = original(10_000);
        let mut medium = sized(original.clone(), 10_000);
        medium.write(0, &original).unwrap();
        medium.damage(9_999, 3).unwrap();
        let read = content(&medium);
        let differences: Vec<usize> = (0..10_000).filter(|at| read[*at] != original[*at]).collect();
        assert_eq!((differences, read[9_999] ^ original[9_999]), (vec![9_999], 8));
        assert_eq!(medium.own_bytes(), BLOCK_BYTES);
        medium.damage(9_999, 3).unwrap();
        assert_eq!((content(&medium), medium.own_bytes()), (original.to_vec(), 0), "and it can be put right");
    }

    #[test]
    fn nothing_is_read_or_written_beyond_the_end() {
        let mut medium = sized(original(500), 100);
        for (offset, length) in [(0, 101), (100, 1), (usize::MAX, 2)] {
            let error = BeyondMedium { offset, length, size: 100 };
            assert_eq!(medium.write(offset, &vec![1; length]), Err(error));
            assert_eq!(medium.read(offset, &mut vec![1; length]), Err(error));
        }
        assert_eq!(medium.write(100, b""), Ok(()));
        assert_eq!(content(&medium), [0; 100], "nothing was written on the way to the error");
    }
}
