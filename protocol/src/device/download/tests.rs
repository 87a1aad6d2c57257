//! A download alone: what it asks for next, whatever the link and the medium do.

use alloc::vec;

use super::*;
use crate::chunk::Index;
use crate::device::meter::Sizing;
use crate::limits::REQUEST_CHUNKS_MAX;
use crate::message::Answer;

mod twice;

/// More than two index pages.
const CHUNKS: u32 = 1200;
const CHUNK: usize = 1024;

/// A payload with a download of it.
struct Bench {
    payload: Vec<u8>,
    index: Index,
    download: Download,
    next_op: u32,
}

fn sizing(window_chunks: u32, per_message: u32) -> Sizing {
    Sizing { window_chunks, per_message }
}

impl Bench {
    fn of(chunks: u32) -> Self {
        let payload: Vec<u8> =
            (0..chunks as usize * CHUNK).map(|at| u8::try_from(at * at / 77 % 251).unwrap()).collect();
        let image = Digest::of(&payload);
        let size = payload.len() as u64;
        let layout = Layout::new(10, size).unwrap();
        let index = Index::build(ChunkSalt { image, transfer_size: size }, layout, &payload);
        let found = Found {
            held: ChunkSet::empty(chunks),
            asked: ChunkIndex(0),
            reach: JOURNAL_CHUNKS,
            bytes_received: 0,
            bytes_twice: 0,
        };
        let download = Download::new(image, &TransferDescriptor::raw(layout, index.digest), found);
        Self { payload, index, download, next_op: 0 }
    }

    /// One whose index is here as far as it is needed.
    fn indexed(chunks: u32) -> Self {
        let mut bench = Self::of(chunks);
        bench.download.take_page(PageNumber::List, &bench.index.list);
        for page in 0..chunks.div_ceil(crate::limits::PAGE_CHUNKS) {
            assert!(bench.download.take_page(PageNumber::Page(page), bench.index.page(page)));
        }
        bench
    }

    /// The same payload in another run, which finds nothing of it and that chunks below `asked` were asked for.
    fn restarted(self, asked: ChunkIndex) -> Self {
        let chunks = self.download.layout.chunk_count();
        let found = Found {
            held: ChunkSet::empty(chunks),
            asked,
            reach: JOURNAL_CHUNKS,
            bytes_received: 0,
            bytes_twice: 0,
        };
        let transfer = TransferDescriptor::raw(self.download.layout, self.index.digest);
        let mut download = Download::new(Digest::of(&self.payload), &transfer, found);
        download.take_page(PageNumber::List, &self.index.list);
        for page in 0..chunks.div_ceil(crate::limits::PAGE_CHUNKS) {
            assert!(download.take_page(PageNumber::Page(page), self.index.page(page)));
        }
        Self { download, ..self }
    }

    fn op(&mut self) -> OpId {
        self.next_op += 1;
        OpId(self.next_op)
    }

    /// The chunks that are asked for now, the first and how many; nothing where nothing is.
    fn asks(&mut self, sizing: Sizing) -> Option<(u32, u32)> {
        match self.download.next(sizing, true) {
            Ask::Chunks(request, _) => Some((request.first.0, request.count)),
            Ask::Nothing => None,
            other => panic!("{other:?}"),
        }
    }

    /// `count` chunks from `first` on arrive; returns the writes that are under way for them.
    fn arrive(&mut self, first: u32, count: u32) -> Vec<OpId> {
        let bytes = &self.payload[first as usize * CHUNK..(first + count) as usize * CHUNK];
        let message = ChunkMessage::encode(self.download.tag(), ChunkIndex(first), bytes);
        let Answer::Chunk(message) = Answer::decode(&message).unwrap() else { panic!() };
        let (accepted, wrong) = self.download.chunks_arrived(&message);
        assert_eq!(wrong, None);
        let mut ops = Vec::new();
        for run in accepted {
            let op = self.op();
            self.download.writing(op, run.first, run.bytes.len() as u64);
            ops.push(op);
        }
        ops
    }

    fn arrive_and_write(&mut self, first: u32, count: u32) {
        for op in self.arrive(first, count) {
            assert!(self.download.written(op, true));
        }
    }
}

#[test]
fn more_is_asked_for_when_half_of_the_window_has_come_and_not_a_chunk_before() {
    let mut bench = Bench::indexed(CHUNKS);
    assert_eq!(bench.asks(sizing(20, 1)), Some((0, 20)));
    for chunk in 0..9 {
        assert_eq!(bench.asks(sizing(20, 1)), None, "{chunk}");
        bench.arrive_and_write(chunk, 1);
    }
    assert_eq!(bench.asks(sizing(20, 1)), None);
    bench.arrive_and_write(9, 1);
    assert_eq!(bench.asks(sizing(20, 1)), Some((20, 10)));
}

#[test]
fn a_smaller_window_waits_until_as_much_of_the_larger_has_come() {
    let mut bench = Bench::indexed(CHUNKS);
    assert_eq!(bench.asks(sizing(20, 1)), Some((0, 20)));
    for chunk in 0..17 {
        assert_eq!(bench.asks(sizing(4, 1)), None, "{chunk}");
        bench.arrive_and_write(chunk, 1);
    }
    bench.arrive_and_write(17, 1);
    assert_eq!(bench.asks(sizing(4, 1)), Some((20, 2)));
}

#[test]
fn no_request_is_for_more_than_its_most() {
    let mut bench = Bench::indexed(CHUNKS);
    assert_eq!(bench.asks(sizing(1000, 1)), Some((0, REQUEST_CHUNKS_MAX)));
    assert_eq!(bench.asks(sizing(1000, 1)), Some((REQUEST_CHUNKS_MAX, REQUEST_CHUNKS_MAX)));
}

#[test]
fn a_request_ends_with_a_whole_message_where_the_window_ends_it() {
    let mut bench = Bench::indexed(CHUNKS);
    assert_eq!(bench.asks(sizing(10, 4)), Some((0, 8)));
    bench.arrive_and_write(0, 8);
    // Where no message would be whole, what is left of the window is asked for all the same.
    assert_eq!(bench.asks(sizing(10, 64)), Some((8, 10)));
    // Where the payload ends it, the last message is what it is.
    let mut bench = Bench::indexed(6);
    assert_eq!(bench.asks(sizing(10, 4)), Some((0, 6)));
}

#[test]
fn asking_stops_while_more_than_256_kib_are_being_written() {
    let mut bench = Bench::indexed(CHUNKS);
    let mut ops = Vec::new();
    for first in [0, 64, 128, 192] {
        assert_eq!(bench.asks(sizing(64, 64)), Some((first, 64)));
        ops.extend(bench.arrive(first, 64));
    }
    assert_eq!(bench.asks(sizing(64, 64)), Some((256, 64)), "256 KiB are not too many");
    ops.extend(bench.arrive(256, 1));
    bench.download.forget_outstanding();
    assert_eq!(bench.asks(sizing(64, 64)), None);
    assert!(bench.download.written(ops[0], true));
    assert_eq!(bench.asks(sizing(64, 64)), Some((257, 63)));
}

#[test]
fn a_write_that_failed_makes_its_chunks_missing_again() {
    let mut bench = Bench::indexed(8);
    assert_eq!(bench.asks(sizing(8, 1)), Some((0, 8)));
    bench.arrive_and_write(0, 2);
    let ops = bench.arrive(2, 6);
    assert!(!bench.download.is_complete(), "a write is under way");
    assert!(bench.download.written(ops[0], false));
    assert!(!bench.download.written(ops[0], true), "it was told once");
    assert_eq!((bench.download.held().len(), bench.download.is_complete()), (2, false));
    // The index page was let go when the last of its chunks had come.
    let page = PageNumber::Page(0);
    assert_eq!(bench.download.next(sizing(8, 1), true), Ask::Load(page));
    let op = bench.op();
    bench.download.loading(op, page);
    bench.download.loaded(op, Some(bench.index.page(0)));
    assert_eq!(bench.asks(sizing(8, 1)), Some((2, 6)));
    bench.arrive_and_write(2, 6);
    assert!(bench.download.is_complete());
    assert_eq!((bench.download.bytes_received, bench.download.bytes_twice), (14 * 1024, 6 * 1024));
}

/// The ledger stays right if power goes: what an earlier run may have got is noted as asked for again before it is.
#[test]
fn holes_of_an_earlier_run_are_noted_once_when_they_are_asked_for_again() {
    let notes = |bench: &mut Bench| match bench.download.next(sizing(4, 1), true) {
        Ask::Chunks(request, notes) => (request.first.0, notes.again, notes.fresh),
        other => panic!("{other:?}"),
    };
    let mut bench = Bench::indexed(40);
    assert_eq!(notes(&mut bench), (0, None, Some(ChunkIndex(4))));
    bench.arrive_and_write(0, 3);
    assert_eq!(notes(&mut bench), (4, None, Some(ChunkIndex(7))));
    // What is lost in this run did not come, so that it does not come twice.
    assert_eq!(bench.download.forget_outstanding(), 4);
    assert!(!bench.download.is_waiting());
    assert_eq!(notes(&mut bench), (3, None, None));
    bench.arrive_and_write(3, 4);
    assert_eq!(bench.download.forget_outstanding(), 0);
    assert_eq!(notes(&mut bench), (7, None, Some(ChunkIndex(11))));
    let ops = bench.arrive(7, 4);
    assert!(bench.download.written(ops[0], false));
    assert_eq!(bench.download.forget_outstanding(), 0);
    assert_eq!(notes(&mut bench), (7, None, None));
    let mut bench = bench.restarted(ChunkIndex(11));
    assert_eq!(notes(&mut bench), (0, Some(ChunkIndex(11)), None));
    bench.arrive_and_write(0, 4);
    assert_eq!(notes(&mut bench), (4, None, None));
}

#[test]
fn a_download_waits_for_what_it_asked_for_and_for_nothing_else() {
    let mut bench = Bench::of(CHUNKS);
    assert_eq!((bench.download.is_waiting(), bench.download.outstanding_bytes()), (false, 0));
    assert_eq!(bench.download.next(sizing(4, 1), true), Ask::Load(PageNumber::List));
    let op = bench.op();
    bench.download.loading(op, PageNumber::List);
    assert_eq!(bench.download.next(sizing(4, 1), true), Ask::Nothing);
    bench.download.loaded(OpId(77), None);
    assert_eq!(bench.download.next(sizing(4, 1), true), Ask::Nothing, "another answer of the medium");
    bench.download.loaded(op, None);
    assert_eq!(bench.download.next(sizing(4, 1), false), Ask::Nothing, "it may not ask");
    assert_eq!(bench.download.next(sizing(4, 1), true), Ask::Page(PageNumber::List));
    assert_eq!((bench.download.is_waiting(), bench.download.outstanding_bytes()), (true, 4096));
    assert_eq!(bench.download.next(sizing(4, 1), true), Ask::Nothing);
    bench.download.forget_outstanding();
    assert!(!bench.download.is_waiting());
    let mut bench = Bench::indexed(CHUNKS);
    assert_eq!(bench.asks(sizing(4, 1)), Some((0, 4)));
    assert_eq!((bench.download.is_waiting(), bench.download.outstanding_bytes()), (true, 4096));
    bench.arrive_and_write(0, 4);
    assert!(!bench.download.is_waiting());
}

/// Pages hold 512 digests: the second is loaded when chunk 512 is two windows ahead.
#[test]
fn an_index_page_is_loaded_two_windows_ahead_of_need() {
    let mut bench = Bench::of(CHUNKS);
    bench.download.take_page(PageNumber::List, &bench.index.list);
    bench.download.take_page(PageNumber::Page(0), bench.index.page(0));
    let mut asked = 0;
    loop {
        match bench.download.next(sizing(20, 1), true) {
            Ask::Chunks(request, _) => {
                assert_eq!(request.first.0, asked);
                asked += request.count;
                bench.arrive_and_write(request.first.0, request.count);
            }
            Ask::Load(page) => {
                assert_eq!(page, PageNumber::Page(1));
                break;
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(asked, 480, "and chunk 480 + 2 * 20 is on the next page, 460 + 2 * 20 is not");
    // What is on the page that is here does not wait for the other.
    bench.download.not_stored.insert(PageNumber::Page(1));
    assert_eq!(bench.download.next(sizing(20, 1), true), Ask::Page(PageNumber::Page(1)));
    assert_eq!(bench.asks(sizing(20, 1)), Some((480, 20)));
    bench.arrive_and_write(480, 20);
    assert_eq!(bench.asks(sizing(20, 1)), Some((500, 12)), "as far as the page goes");
    bench.arrive_and_write(500, 12);
    assert_eq!(bench.asks(sizing(20, 1)), None);
}

#[test]
fn an_index_page_is_kept_for_as_long_as_one_of_its_chunks_is_missing() {
    let mut bench = Bench::indexed(CHUNKS);
    for first in (0..512).step_by(64) {
        assert_eq!(bench.asks(sizing(64, 64)), Some((first, 64)));
        assert!(bench.download.pages.contains(0), "{first}");
        bench.arrive_and_write(first, 64);
    }
    assert!(!bench.download.pages.contains(0), "memory is for what is needed");
    assert_eq!(bench.asks(sizing(64, 64)), Some((512, 64)), "and nobody asks for it again");
}

#[test]
fn nothing_is_asked_for_beyond_what_the_journal_can_note() {
    let mut bench = Bench::indexed(CHUNKS);
    bench.download.reach = 30;
    assert_eq!(bench.asks(sizing(100, 1)), Some((0, 30)));
    // The first chunk stays away.
    bench.arrive_and_write(1, 29);
    assert_eq!(bench.asks(sizing(100, 1)), None);
    bench.arrive_and_write(0, 1);
    assert_eq!(bench.asks(sizing(100, 1)), Some((30, 30)));
}

#[test]
fn a_request_with_holes_names_the_chunks_that_it_wants() {
    let mut bench = Bench::indexed(CHUNKS);
    assert_eq!(bench.asks(sizing(20, 1)), Some((0, 20)));
    for chunk in [1, 4, 5, 8, 17] {
        bench.arrive_and_write(chunk, 1);
    }
    bench.download.forget_outstanding();
    let Ask::Chunks(request, _) = bench.download.next(sizing(20, 1), true) else { panic!() };
    assert_eq!((request.first.0, request.count), (0, 25));
    assert_eq!(request.wanted, Some(vec![0b1100_1101, 0b1111_1110, 0b1111_1101, 0b0000_0001]));
}

#[test]
fn a_checkpoint_is_due_after_ten_seconds_of_bytes_within_bounds_and_at_the_end() {
    let mut bench = Bench::indexed(CHUNKS);
    for (bytes_in_10_s, wants) in
        [(0, FLUSH_BYTES_MIN), (100 * 1024, 100 * 1024), (1 << 30, CHUNKS as u64 * 128)]
    {
        bench.download.unflushed = wants - 1;
        assert!(!bench.download.wants_checkpoint(bytes_in_10_s), "{bytes_in_10_s}");
        bench.download.unflushed = wants;
        assert!(bench.download.wants_checkpoint(bytes_in_10_s), "{bytes_in_10_s}");
    }
    assert!(bench.download.has_unflushed());
    bench.download.checkpoint();
    assert!(!bench.download.has_unflushed() && !bench.download.wants_checkpoint(0));
    let mut bench = Bench::indexed(2);
    assert_eq!(bench.asks(sizing(4, 1)), Some((0, 2)));
    bench.arrive_and_write(0, 1);
    assert!(!bench.download.wants_checkpoint(1 << 30));
    bench.arrive_and_write(1, 1);
    assert!(bench.download.wants_checkpoint(1 << 30), "everything is here");
    bench.download.checkpoint();
    assert!(!bench.download.wants_checkpoint(0), "and is saved once");
}

#[test]
fn a_checkpoint_says_what_is_held_what_was_asked_for_and_what_it_cost() {
    let mut bench = Bench::indexed(40);
    assert_eq!(bench.asks(sizing(8, 1)), Some((0, 8)));
    bench.download.forget_outstanding();
    assert_eq!(bench.asks(sizing(8, 1)), Some((0, 8)));
    bench.arrive_and_write(0, 3);
    let checkpoint = bench.download.checkpoint();
    assert_eq!(checkpoint.asked, ChunkIndex(8));
    assert_eq!((checkpoint.bytes_received, checkpoint.bytes_twice), (3 * 1024, 0));
    assert_eq!(Checkpoint { asked: ChunkIndex(0), bytes_received: 0, bytes_twice: 0, ..checkpoint }, {
        let mut held = ChunkSet::empty(40);
        (0..3).for_each(|chunk| {
            held.insert(ChunkIndex(chunk));
        });
        Checkpoint::of(&held)
    });
}

#[test]
fn chunks_that_follow_each_other_in_a_message_are_written_at_once() {
    let mut bench = Bench::indexed(CHUNKS);
    assert_eq!(bench.asks(sizing(20, 1)), Some((0, 20)));
    bench.arrive_and_write(7, 1);
    let tag = bench.download.tag();
    let message = ChunkMessage::encode(tag, ChunkIndex(5), &bench.payload[5 * CHUNK..11 * CHUNK]);
    let Answer::Chunk(message) = Answer::decode(&message).unwrap() else { panic!() };
    let (accepted, wrong) = bench.download.chunks_arrived(&message);
    assert_eq!(wrong, Some(Reason::Unsolicited), "chunk 7 is here already");
    let runs: Vec<_> = accepted.iter().map(|run| (run.first.0, run.bytes.len() / CHUNK)).collect();
    assert_eq!(runs, [(5, 2), (8, 3)]);
    for run in &accepted {
        let at = run.first.0 as usize * CHUNK;
        assert_eq!(run.bytes, bench.payload[at..at + run.bytes.len()]);
    }
    // A write of several chunks that fails takes all of them back, and no other.
    let op = bench.op();
    bench.download.writing(op, accepted[1].first, accepted[1].bytes.len() as u64);
    bench.download.written(op, false);
    let held: Vec<u32> = (0..20).filter(|chunk| bench.download.held().contains(ChunkIndex(*chunk))).collect();
    assert_eq!(held, [5, 6, 7]);
}

#[test]
fn bytes_behind_the_last_chunk_or_of_a_part_of_one_are_refused() {
    for (extra, chunks) in [(0, 4), (1, 4), (1024, 4), (-1, 3)] {
        let mut bench = Bench::indexed(4);
        assert_eq!(bench.asks(sizing(8, 1)), Some((0, 4)));
        let mut bytes = bench.payload.clone();
        bytes.resize(bytes.len().checked_add_signed(extra).unwrap(), 0);
        let message = ChunkMessage::encode(bench.download.tag(), ChunkIndex(0), &bytes);
        let Answer::Chunk(message) = Answer::decode(&message).unwrap() else { panic!() };
        let (accepted, wrong) = bench.download.chunks_arrived(&message);
        assert_eq!(accepted[0].bytes.len(), chunks as usize * CHUNK, "{extra}");
        assert_eq!(wrong, (extra != 0).then_some(Reason::WrongChunk(ChunkIndex(chunks))), "{extra}");
    }
}

#[test]
fn an_index_page_counts_only_for_its_payload_and_where_it_was_asked_for() {
    let mut bench = Bench::of(CHUNKS);
    let tag = bench.download.tag();
    let other = PayloadTag::of(&Digest([7; 32]));
    let arrives = |bench: &mut Bench, tag, page| {
        let bytes = match page {
            PageNumber::List => bench.index.list.clone(),
            PageNumber::Page(number) => bench.index.page(number).to_vec(),
        };
        let message = PageMessage::encode(tag, page, &bytes);
        let Answer::Page(message) = Answer::decode(&message).unwrap() else { panic!() };
        bench.download.page_arrived(&message)
    };
    assert_eq!(arrives(&mut bench, tag, PageNumber::List), Err(Reason::Unsolicited));
    bench.download.not_stored.insert(PageNumber::List);
    assert_eq!(bench.download.next(sizing(4, 1), true), Ask::Page(PageNumber::List));
    assert_eq!(arrives(&mut bench, other, PageNumber::List), Err(Reason::Unsolicited));
    assert_eq!(arrives(&mut bench, tag, PageNumber::Page(0)), Err(Reason::Unsolicited));
    assert!(bench.download.is_waiting());
    assert_eq!(arrives(&mut bench, tag, PageNumber::List), Ok(()));
    assert!(!bench.download.is_waiting());
    assert_eq!(arrives(&mut bench, tag, PageNumber::List), Err(Reason::Unsolicited), "it comes once");
}
