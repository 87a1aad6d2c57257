//! Whole conversations as they were: every message, write and wait of a device, with its time, in `tests/conversations`.
//!
//! Other tests say what has to be true; these say what is, so that nothing changes by accident where code moves.
//! `WHIMBREL_BLESS=1 cargo nextest run -p whimbrel-protocol conversations` writes the files anew; read the difference.

use std::fmt::Write;
use std::path::PathBuf;

use whimbrel_protocol::device::{Event, InstallFailure, InstallOp, Output, Record, StoreFailure, StoreOp};
use whimbrel_protocol::message::{Answer, CampaignState, Request, State};
use whimbrel_protocol::testing::{
    Faults, OrderOptions, Pair, PairOptions, RamMedium, Recorded, Recorder, Verdict,
};

use crate::patches::Update;
use crate::session::{DAY, MINUTE, image};

fn faults(delay_ms: (u64, u64), rate: u64) -> Faults {
    Faults { delay_ms, rate, ..Faults::default() }
}

fn on(seed: u64, faults: Faults) -> PairOptions {
    PairOptions { seed, faults, ..PairOptions::default() }
}

/// Starts to note what `pair` does.
fn noting(mut pair: Pair) -> Pair {
    pair.recorder = Some(Recorder::default());
    pair.wanted = Some(Vec::new());
    pair
}

fn hex_of(bytes: &[u8]) -> String {
    if bytes.len() > 64 { format!("{} bytes", bytes.len()) } else { hex::encode(bytes) }
}

fn request(payload: &[u8]) -> String {
    match Request::decode(payload) {
        Ok(Request::Hello(hello)) => {
            let versions: Vec<_> = hello.groups.iter().map(|known| known.version).collect();
            let (assignment, report) = (hello.assignment, hello.report.is_some());
            format!("hello, assignment {assignment}, groups {versions:?}, a report waits: {report}")
        }
        Ok(Request::Chunks(ask)) => {
            let wanted = ask.wanted.map_or_else(String::new, |bits| format!(" of them {}", hex_of(&bits)));
            format!("chunks {} + {}{wanted}, {} a message", ask.first.0, ask.count, ask.per_message)
        }
        Ok(Request::Page(ask)) => format!("page {:?}", ask.page),
        Ok(Request::Document(_)) => "document".to_owned(),
        Ok(Request::Status(status)) => format!(
            "status {:?} {:?} {:?}, {} of {} chunks, {} bytes, {} twice",
            status.state,
            status.deferred,
            status.failure,
            status.chunks_held,
            status.chunks,
            status.bytes_received,
            status.bytes_twice
        ),
        Err(error) => format!("{error}"),
    }
}

fn output(output: &Output) -> Option<String> {
    Some(match output {
        Output::Subscribe(channels) => format!("subscribe {channels:?}"),
        Output::Publish(publish) => {
            let at_least_once = if publish.at_least_once { ", at least once" } else { "" };
            let what = match publish.channel {
                whimbrel_protocol::topic::Channel::Requests => request(&publish.payload),
                _ => format!("{:?}, {} bytes", publish.channel, publish.payload.len()),
            };
            format!("-> {what}{at_least_once}")
        }
        Output::Store(_, StoreOp::SaveRecord(bytes)) => {
            let record = Record::decode(bytes).unwrap();
            let stage = record.deployment.as_ref().map(|deployment| (deployment.stage, deployment.arms));
            let (outcomes, reports) = (record.outcomes.len(), record.reports.len());
            format!("save record: {stage:?}, {outcomes} outcomes, {reports} reports")
        }
        Output::Store(_, StoreOp::Open(opening)) => {
            let patch = if opening.base.is_some() { " of a patch" } else { "" };
            format!("open {} bytes{patch}", opening.transfer.layout.transfer_size())
        }
        Output::Store(_, StoreOp::WritePage { page, bytes }) => {
            format!("write {page:?}, {} bytes", bytes.len())
        }
        Output::Store(_, StoreOp::WriteChunks { first, bytes }) => {
            format!("write chunk {}, {} bytes", first.0, bytes.len())
        }
        Output::Store(_, StoreOp::SaveCheckpoint(checkpoint)) => format!(
            "save checkpoint: {} asked, {} bytes, {} twice",
            checkpoint.asked.0, checkpoint.bytes_received, checkpoint.bytes_twice
        ),
        Output::Store(_, op) => format!("{op:?}"),
        Output::Install(_, InstallOp::Match { place, size, .. }) => format!("match {place:?}, {size} bytes"),
        Output::Install(_, op) => format!("{op:?}"),
        Output::Host(_, op) => format!("{op:?}"),
        Output::Disconnect => "disconnect".to_owned(),
        // What names a digest is long, and is said by what comes before.
        Output::Event(Event::ReportAcknowledged { .. }) => "! report acknowledged".to_owned(),
        Output::Event(Event::PatchFailed { why, .. }) => format!("! patch failed: {why:?}"),
        Output::Event(Event::Ended { attempt, outcome, failure, .. }) => {
            format!("! attempt {attempt} ended: {outcome:?} {failure:?}")
        }
        Output::Event(event) => format!("! {event:?}"),
    })
}

fn input(recorded: &Recorded) -> String {
    match recorded {
        Recorded::Message(channel, payload) => match Answer::decode(payload) {
            Ok(Answer::Chunk(chunks)) => {
                format!("<- chunks from {}, {} bytes", chunks.first.0, chunks.bytes.len())
            }
            Ok(Answer::Page(page)) => format!("<- page {:?}, {} bytes", page.page, page.bytes.len()),
            Ok(Answer::Refusal(refusal)) => format!("<- {:?}, {:?} s", refusal.code, refusal.retry_after_s),
            Ok(Answer::Signed(bytes)) => format!("<- {channel:?}, {} bytes", bytes.len()),
            Err(error) => format!("<- {channel:?}: {error}"),
        },
        other => format!("{other:?}"),
    }
}

/// What happened, a line each.
fn told(pair: &mut Pair) -> String {
    let inputs = pair.recorder.take().unwrap().finish().inputs;
    let outputs = pair.wanted.take().unwrap();
    let mut lines: Vec<(u64, String)> =
        inputs.iter().map(|(at, what)| (at.as_millis(), input(what))).collect();
    lines.extend(outputs.iter().filter_map(|(at, what)| Some((at.as_millis(), output(what)?))));
    lines.sort_by_key(|(at, _)| *at);
    let mut text = String::new();
    for (at, line) in lines {
        writeln!(text, "{at:>10} {line}").unwrap();
    }
    let (wakes, rate) = (pair.wakes, pair.device.rate());
    let status = pair.device.status().map(|status| (status.attempt, status.state, status.failure));
    writeln!(text, "woken {wakes} times, {rate:?} bytes/s, {status:?}").unwrap();
    text
}

/// Compares what happened with the file, or writes it.
fn is_as_recorded(name: &str, mut pair: Pair) {
    let text = told(&mut pair);
    let path =
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/conversations").join(format!("{name}.txt"));
    if std::env::var_os("WHIMBREL_BLESS").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, &text).unwrap();
    }
    let want = std::fs::read_to_string(&path).unwrap_or_default();
    let difference = want.lines().zip(text.lines()).enumerate().find(|(_, (was, is))| was != is);
    if let Some((line, (was, is))) = difference {
        panic!("{}:{}: was\n{was}\nand is\n{is}", path.display(), line + 1);
    }
    assert_eq!(want.lines().count(), text.lines().count(), "{} is longer or shorter now", path.display());
}

fn until_confirmed(pair: &mut Pair) {
    let verdict = pair.run_until(State::Confirmed, 10 * DAY);
    assert_eq!(verdict, Verdict::Done, "{pair:?}");
}

#[test]
fn on_a_slow_link_the_conversation_is_as_recorded() {
    let options = on(1, faults((600, 900), 300));
    let mut pair = noting(Pair::with_release(options, image(60_000, 1), 10));
    until_confirmed(&mut pair);
    is_as_recorded("slow-link", pair);
}

#[test]
fn on_a_fast_link_the_conversation_is_as_recorded() {
    let options = on(2, faults((10, 30), 400_000));
    let mut pair = noting(Pair::with_release(options, image(700_000, 2), 10));
    until_confirmed(&mut pair);
    is_as_recorded("fast-link", pair);
}

#[test]
fn on_a_link_with_every_fault_the_conversation_is_as_recorded() {
    let bad = Faults { duplicate: 20, corrupt: 20, lose: 20, reorder: true, ..faults((100, 1500), 8_000) };
    let options = PairOptions { cut_every_ms: 60_000, busy_one_in: 12, ..on(3, bad) };
    let mut pair = noting(Pair::with_release(options, image(150_000, 3), 10));
    until_confirmed(&mut pair);
    is_as_recorded("every-fault", pair);
}

#[test]
fn with_power_cuts_the_conversation_is_as_recorded() {
    let options =
        PairOptions { power_cut_every_ms: 15_000, cut_every_ms: 40_000, ..on(4, faults((20, 300), 10_000)) };
    let mut pair = noting(Pair::with_release(options, image(120_000, 4), 12));
    until_confirmed(&mut pair);
    is_as_recorded("power-cuts", pair);
}

#[test]
fn a_conversation_with_a_service_that_is_busy_is_as_recorded() {
    let options = PairOptions { busy_one_in: 2, ..on(5, faults((50, 80), 20_000)) };
    let mut pair = noting(Pair::with_release(options, image(100_000, 5), 10));
    until_confirmed(&mut pair);
    is_as_recorded("busy-service", pair);
}

#[test]
fn the_conversation_of_a_device_that_nobody_knows_yet_is_as_recorded() {
    let options = PairOptions { accepted: false, ..on(6, faults((50, 80), 20_000)) };
    let mut pair = noting(Pair::with_release(options, image(20_000, 6), 10));
    pair.run(40 * MINUTE, |_| false);
    pair.accept();
    until_confirmed(&mut pair);
    is_as_recorded("unknown-device", pair);
}

#[test]
fn the_conversation_about_an_order_that_is_replaced_and_one_that_is_aborted_is_as_recorded() {
    let options = on(7, faults((200, 300), 3_000));
    let mut pair = noting(Pair::with_release(options, image(100_000, 7), 10));
    pair.run(20_000, |_| false);
    let second = pair.fixture.release(image(90_000, 8), 2, 10);
    let ordered = OrderOptions { version: 2, campaign: 2, spread_s: 120, ..OrderOptions::default() };
    pair.roll_out(second.clone(), ordered);
    pair.feed(whimbrel_protocol::device::Input::Check);
    pair.run(100_000, |_| false);
    let aborted = OrderOptions { version: 3, campaign: 2, state: CampaignState::Aborted, ..ordered };
    let document = pair.fixture.campaign(&second, aborted);
    pair.put_campaign(3, document);
    pair.feed(whimbrel_protocol::device::Input::Check);
    pair.run(5 * MINUTE, |_| false);
    pair.roll_out(second, OrderOptions { version: 4, campaign: 3, ..OrderOptions::default() });
    until_confirmed(&mut pair);
    is_as_recorded("other-orders", pair);
}

#[test]
fn the_conversation_about_an_image_that_is_not_healthy_is_as_recorded() {
    for (name, failure) in
        [("unhealthy", InstallFailure::Unhealthy), ("health-unknown", InstallFailure::Retry)]
    {
        let options = on(8, faults((50, 80), 20_000));
        let mut pair = noting(Pair::with_release(options, image(30_000, 9), 10));
        pair.medium.health = Some(failure);
        let verdict = pair.run_until(State::Reverted, DAY);
        assert_eq!(verdict, Verdict::Done, "{pair:?}");
        is_as_recorded(name, pair);
    }
}

#[test]
fn the_conversation_of_a_device_whose_medium_fails_is_as_recorded() {
    let options = on(9, faults((50, 80), 20_000));
    let mut pair = noting(Pair::with_release(options, image(200_000, 10), 12));
    pair.run(6_000, |_| false);
    pair.medium.fault = Some(StoreFailure::Failed);
    pair.run(5 * MINUTE, |_| false);
    pair.medium.fault = Some(StoreFailure::NoRoom);
    pair.run(25 * MINUTE, |_| false);
    pair.medium.fault = None;
    until_confirmed(&mut pair);
    is_as_recorded("failing-medium", pair);
}

#[test]
fn the_conversation_about_a_patch_and_one_that_does_not_fit_is_as_recorded() {
    let update = Update::medium();
    for (name, patch) in [("patch", update.patch.clone()), ("bad-patch", update.broken())] {
        let options = on(10, faults((100, 200), 5_000));
        let mut pair = Pair::on(options, RamMedium::running(&update.old));
        let release = pair.fixture.release_with_patches(update.new.clone(), 1, 10, &[patch]);
        pair.roll_out(release, OrderOptions::default());
        let mut pair = noting(pair);
        until_confirmed(&mut pair);
        is_as_recorded(name, pair);
    }
}

#[test]
fn answers_to_operations_that_a_device_never_asked_for_change_nothing() {
    let update = Update::medium();
    let run = |stray_answers, patch, health| {
        let mut pair = Pair::on(on(11, faults((50, 80), 20_000)), RamMedium::running(&update.old));
        let release = pair.fixture.release_with_patches(update.new.clone(), 1, 10, &[patch]);
        pair.roll_out(release, OrderOptions::default());
        let mut pair = noting(pair);
        pair.medium.health = health;
        pair.stray_answers = stray_answers;
        let end = if health.is_some() { State::Reverted } else { State::Confirmed };
        assert_eq!(pair.run_until(end, DAY), Verdict::Done, "{pair:?}");
        told(&mut pair)
    };
    for (patch, health) in [
        (update.patch.clone(), None),
        (update.broken(), None),
        (update.patch.clone(), Some(InstallFailure::Unhealthy)),
        (update.patch.clone(), Some(InstallFailure::Retry)),
    ] {
        let plain = run(false, patch.clone(), health);
        assert_eq!(run(true, patch, health), plain);
    }
}
