//! Which bytes count as received twice.

use super::*;

#[test]
fn bytes_that_were_asked_for_twice_and_came_once_did_not_come_twice() {
    let mut bench = Bench::indexed(40);
    assert_eq!(bench.asks(sizing(8, 1)), Some((0, 8)));
    // Refused, or a message was lost.
    assert_eq!(bench.download.forget_outstanding(), 8);
    assert_eq!(bench.asks(sizing(8, 1)), Some((0, 8)));
    bench.arrive_and_write(0, 8);
    assert_eq!((bench.download.bytes_received, bench.download.bytes_twice), (8 * 1024, 0));
}

#[test]
fn the_late_answer_to_a_request_that_counted_as_lost_came_twice_and_a_replay_of_it_counts_for_nothing() {
    let mut bench = Bench::indexed(40);
    assert_eq!(bench.asks(sizing(8, 1)), Some((0, 8)));
    assert_eq!(bench.download.forget_outstanding(), 8);
    assert_eq!(bench.asks(sizing(8, 1)), Some((0, 8)));
    bench.arrive_and_write(0, 8);
    for _ in 0..3 {
        let bytes = &bench.payload[..2 * CHUNK];
        let message = ChunkMessage::encode(bench.download.tag(), ChunkIndex(0), bytes);
        let Answer::Chunk(message) = Answer::decode(&message).unwrap() else { panic!() };
        assert_eq!(bench.download.chunks_arrived(&message), (Vec::new(), Some(Reason::Unsolicited)));
        assert_eq!((bench.download.bytes_received, bench.download.bytes_twice), (10 * 1024, 2 * 1024));
    }
}

/// A part of them may have come, and nobody can know.
#[test]
fn what_was_under_way_when_the_connection_broke_counts_as_come_twice() {
    let mut bench = Bench::indexed(40);
    assert_eq!(bench.asks(sizing(8, 1)), Some((0, 8)));
    bench.arrive_and_write(0, 5);
    bench.download.disconnected();
    assert_eq!(bench.asks(sizing(8, 1)), Some((5, 8)));
    bench.arrive_and_write(5, 8);
    assert_eq!((bench.download.bytes_received, bench.download.bytes_twice), (13 * 1024, 3 * 1024));
}

/// What was asked for when the process ended may have come to it.
#[test]
fn what_an_earlier_run_asked_for_and_did_not_leave_counts_as_come_twice() {
    let mut bench = Bench::indexed(40).restarted(ChunkIndex(3));
    assert_eq!(bench.asks(sizing(8, 1)), Some((0, 8)));
    bench.arrive_and_write(0, 8);
    assert_eq!((bench.download.bytes_received, bench.download.bytes_twice), (8 * 1024, 3 * 1024));
}
