//! Finds the cheapest operations (literals, matches, copies) for the gaps between the entries of the map.
//!
//! The cost of a literal is known from another run, a little ahead, in which every byte of the gaps is coded as a
//! literal; other costs are estimates. For each place in a gap, the cheapest way to reach it is kept (Viterbi). A long
//! gap is searched in parts, so that the memory for this does not grow with the images.

#![expect(
    clippy::indexing_slicing,
    reason = "indices of the search itself, on images that a person gave: a wrong one is a bug"
)]
#![expect(clippy::cast_possible_truncation, reason = "images are smaller than 4 GiB")]

use core::ops::Range;

use whimbrel_protocol::patch::{Entry, MATCH_BYTES_MAX, Op};

use super::suffix::{Suffixes, common};

/// The input of the search.
#[derive(Clone, Copy, Debug)]
pub(super) struct Images<'i> {
    pub(super) old: &'i [u8],
    pub(super) new: &'i [u8],
    pub(super) suffixes: &'i Suffixes<'i>,
    /// Bytes of the dictionary.
    pub(super) dictionary: usize,
    /// The ends of the regions. No operation goes beyond one.
    pub(super) ends: &'i [usize],
}

/// Says how many bits a literal takes at each place of a part of a gap. The parts are asked for in order.
pub(super) type LiteralBits<'b> = &'b mut dyn FnMut(Range<usize>, &mut Vec<f32>);

/// Most bytes of a gap that are searched at once.
const PART_BYTES: usize = 1 << 18;
/// A match of at least this length is taken whole; shorter lengths of it are not tried.
const LONG_MATCH: usize = 200;
/// Most earlier places with the same first bytes that are looked at.
const CHAIN: usize = 64;
/// Number of first bytes that the places in one chain have in common.
const CHAIN_BYTES: usize = 3;
/// For shorter pieces of the old image, coding their place costs more than it saves.
const COPY_BYTES_MIN: usize = 5;
/// An operation longer than this is taken whole.
const STEP_BYTES: usize = 64;

// Estimated bits of the decisions of operations other than literals.
const LITERAL_FLAG: f32 = 0.35;
const MATCH_FLAG: f32 = 3.0;
const REPEAT_FLAG: f32 = 3.5;
const COPY_FLAG: f32 = 3.5;
/// Estimated bits of a byte that a copy gets wrong, and of one that it gets right.
const WRONG: f32 = 16.0;
/// Estimated bits of a byte that differs in a longer piece. They are fewer, because prediction often helps
/// there.
const PREDICTED_WRONG: f32 = 8.0;
const RIGHT: f32 = 0.03;

/// Finds the operations of all gaps but for literals, with their places, in order.
pub(super) fn parse(
    images: &Images<'_>,
    entries: &[Entry],
    pieces: &[Entry],
    literal_bits: LiteralBits<'_>,
) -> Vec<(u32, Op)> {
    let len = images.new.len();
    let chains = Chains::new(images.dictionary, len);
    let (literals, nodes) = (Vec::new(), Vec::new());
    let mut search = Search { images, pieces, literal_bits, chains, literals, nodes };
    let mut ops = Vec::new();
    let (mut at, mut shift) = (0, 0);
    let mut ends = images.ends.iter().copied().peekable();
    let whole = Entry { old: 0, new: u32::try_from(len).unwrap_or(u32::MAX), len: 0 };
    for entry in entries.iter().chain([&whole]) {
        let next = entry.new as usize;
        while let Some(end) = ends.next_if(|end| *end <= next) {
            if end > at {
                search.gap(at..end, shift, &mut ops);
                at = end;
            }
        }
        search.gap(at..next, shift, &mut ops);
        at = next + entry.len as usize;
        shift = i64::from(entry.old) - i64::from(entry.new);
    }
    ops
}

/// Earlier places in the dictionary, found by the bytes that stand there.
struct Chains {
    heads: Vec<u32>,
    /// For each place in the dictionary the one before it with the same head; a ring.
    before: Vec<u32>,
    known: usize,
}

const NOWHERE: u32 = u32::MAX;
const HEADS_LOG2: u32 = 16;

impl Chains {
    fn new(dictionary: usize, len: usize) -> Self {
        let room = dictionary.min(len).next_power_of_two();
        Self { heads: vec![NOWHERE; 1 << HEADS_LOG2], before: vec![NOWHERE; room], known: 0 }
    }

    fn place(&self, at: usize) -> usize {
        at & (self.before.len() - 1)
    }

    fn head(bytes: &[u8]) -> Option<usize> {
        let [a, b, c] = *bytes.first_chunk()?;
        let value = u32::from_le_bytes([a, b, c, 0]).wrapping_mul(0x9e37_79b1);
        Some((value >> (32 - HEADS_LOG2)) as usize)
    }

    /// Adds every place before `at` that the dictionary still holds.
    fn learn(&mut self, new: &[u8], at: usize) {
        self.known = self.known.max(at.saturating_sub(self.before.len()));
        while self.known < at {
            if let Some(head) = Self::head(&new[self.known..]) {
                let place = self.place(self.known);
                self.before[place] = self.heads[head];
                self.heads[head] = self.known as u32;
            }
            self.known += 1;
        }
    }

    /// Finds matches at `at` as distance and length. Each is longer and farther away than the one before.
    fn matches(&self, images: &Images<'_>, at: usize, room: usize, into: &mut Vec<(u32, usize)>) {
        into.clear();
        let Some(head) = Self::head(&images.new[at..]) else {
            return;
        };
        let wanted = &images.new[at..at + room];
        let (mut place, mut best) = (self.heads[head], CHAIN_BYTES - 1);
        for _ in 0..CHAIN {
            let Some(from) = usize::try_from(place).ok().filter(|_| place != NOWHERE) else {
                return;
            };
            if at - from > images.dictionary {
                return;
            }
            let len = common(&images.new[from..], wanted);
            if len > best {
                best = len;
                into.push(((at - from) as u32, len));
            }
            place = self.before[self.place(from)];
        }
    }
}

/// The cheapest known way to a place.
#[derive(Clone, Copy, Debug)]
struct Node {
    bits: f32,
    /// The operation that leads here, and its bytes.
    op: Op,
    len: u32,
    distance: u32,
    shift: i64,
}

/// The state of the search.
struct Search<'s> {
    images: &'s Images<'s>,
    /// Pieces from here on that were found and have no entry in the map.
    pieces: &'s [Entry],
    literal_bits: LiteralBits<'s>,
    chains: Chains,
    /// Bits of literals, and ways, in the part that is searched; kept for their memory.
    literals: Vec<f32>,
    nodes: Vec<Node>,
}

impl Search<'_> {
    fn gap(&mut self, range: Range<usize>, shift: i64, ops: &mut Vec<(u32, Op)>) {
        let (mut start, mut state) = (range.start, (0, shift));
        while start < range.end {
            let end = range.end.min(start + PART_BYTES);
            state = self.part(start..end, state, ops);
            start = end;
        }
    }

    /// Finds the operations of a part of a gap. `state` is the last match's distance, and the last copy's place in
    /// the old image minus that in the new one; gives what they are behind the part.
    fn part(&mut self, range: Range<usize>, state: (u32, i64), ops: &mut Vec<(u32, Op)>) -> (u32, i64) {
        let Self { images, chains, literals, nodes, .. } = self;
        let (start, count) = (range.start, range.len());
        (self.literal_bits)(range, literals);
        let (distance, shift) = state;
        let unknown = Node { bits: f32::INFINITY, op: Op::Literal, len: 0, distance, shift };
        nodes.clear();
        nodes.resize(count + 1, unknown);
        nodes[0].bits = 0.0;
        let mut matches = Vec::new();
        let mut covered = (0_usize, 0_i64);
        // Inside such a long match there is nothing better to find.
        let mut skip = 0;
        for at in 0..count {
            let place = start + at;
            chains.learn(images.new, place);
            if at < skip {
                continue;
            }
            let here = nodes[at];
            let room = count - at;
            let mut offer = |len: usize, bits: f32, op: Op, distance: u32, shift: i64| {
                let node = &mut nodes[at + len];
                let bits = here.bits + bits;
                if bits < node.bits {
                    *node = Node { bits, op, len: len as u32, distance, shift };
                }
            };
            let literal = literals.get(at).copied().unwrap_or(8.0);
            offer(1, literal + LITERAL_FLAG, Op::Literal, here.distance, here.shift);
            let most = room.min(MATCH_BYTES_MAX as usize);
            if here.distance > 0 {
                let from = place - here.distance as usize;
                let len = common(&images.new[from..], &images.new[place..place + most]);
                for len in steps(1, len) {
                    let op = Op::Repeat { len: len as u32 };
                    offer(len, REPEAT_FLAG + len_bits(len), op, here.distance, here.shift);
                }
                if len >= LONG_MATCH {
                    skip = at + len;
                    continue;
                }
            }
            chains.matches(images, place, most, &mut matches);
            if matches.last().is_some_and(|(_, len)| *len >= LONG_MATCH) {
                skip = at + matches.last().map_or(0, |(_, len)| *len);
            }
            let mut from = CHAIN_BYTES;
            for &(distance, longest) in &matches {
                for len in steps(from, longest) {
                    let op = Op::Match { distance, len: len as u32 };
                    offer(len, MATCH_FLAG + len_bits(len) + number_bits(distance), op, distance, here.shift);
                }
                from = longest + 1;
            }
            // This is a piece that was found, but for which the map had no room.
            while self.pieces.first().is_some_and(|piece| (piece.new as usize) < place) {
                self.pieces = &self.pieces[1..];
            }
            if let Some(piece) = self.pieces.first().filter(|piece| piece.new as usize == place) {
                let len = (piece.len as usize).min(room);
                let shift = i64::from(piece.old) - i64::from(piece.new);
                let old = &images.old[piece.old as usize..];
                let wrong = old.iter().zip(&images.new[place..place + len]).filter(|(a, b)| a != b).count();
                let head = COPY_FLAG + 6.0 + signed_bits((shift - here.shift).unsigned_abs());
                let op = Op::Copy { old: piece.old, len: len as u32 };
                offer(
                    len,
                    head + wrong as f32 * PREDICTED_WRONG + len as f32 * RIGHT,
                    op,
                    here.distance,
                    shift,
                );
            }
            // In the old image two places are tried: where the last copy would go on, and where the longest
            // piece is.
            let mut copy = |old: usize, exact: usize| {
                let shift = old as i64 - place as i64;
                let skip = (shift - here.shift).unsigned_abs();
                let head = COPY_FLAG + 6.0 + signed_bits(skip);
                for len in steps(COPY_BYTES_MIN, exact) {
                    let op = Op::Copy { old: old as u32, len: len as u32 };
                    offer(len, head + len as f32 * RIGHT, op, here.distance, shift);
                }
                // The copy goes on beyond the piece as long as more bytes are right than wrong.
                let (mut len, mut wrong, mut since) = (exact, 0.0, 0);
                while len < room && old + len < images.old.len() && since < 8 {
                    if images.old[old + len] == images.new[place + len] {
                        since = 0;
                    } else {
                        wrong += WRONG;
                        since += 1;
                    }
                    len += 1;
                    if since == 0 && len >= exact + 4 {
                        let op = Op::Copy { old: old as u32, len: len as u32 };
                        offer(len, head + wrong + len as f32 * RIGHT, op, here.distance, shift);
                    }
                    if len > exact + 256 {
                        break;
                    }
                }
            };
            if let Ok(old) = usize::try_from(place as i64 + here.shift)
                && old < images.old.len()
            {
                let exact = common(&images.old[old..], &images.new[place..place + room]);
                if exact >= COPY_BYTES_MIN {
                    copy(old, exact);
                }
            }
            // Places that a longer piece covers, which began earlier, are not searched again.
            let (until, known_shift) = covered;
            let (old, exact) = if place + COPY_BYTES_MIN < until {
                ((place as i64 + known_shift) as usize, until - place)
            } else {
                images.suffixes.longest(&images.new[place..place + room])
            };
            if exact >= COPY_BYTES_MIN {
                if exact >= 2 * STEP_BYTES {
                    covered = (place + exact, old as i64 - place as i64);
                }
                copy(old, exact);
            }
        }
        let mut way = Vec::new();
        let mut at = count;
        while at > 0 {
            let node = nodes[at];
            at -= node.len as usize;
            if node.op != Op::Literal {
                way.push(((start + at) as u32, node.op));
            }
        }
        ops.extend(way.into_iter().rev());
        let last = nodes[count];
        (last.distance, last.shift)
    }
}

/// The lengths that are tried: every short one, and the longest.
fn steps(from: usize, to: usize) -> impl Iterator<Item = usize> {
    let last = (to >= from && to > STEP_BYTES.max(from)).then_some(to);
    (from..=to.min(STEP_BYTES)).chain(last)
}

fn number_bits(value: u32) -> f32 {
    2.5 + (value as f32 + 1.0).log2()
}

fn signed_bits(value: u64) -> f32 {
    if value == 0 { 1.5 } else { 4.0 + (value as f32 + 1.0).log2() }
}

fn len_bits(len: usize) -> f32 {
    2.0 + (len as f32).log2()
}
