//! What `status` shows of a download, and in which words.

use super::*;

/// So many chunks of 1,000 bytes.
fn chunks(held: u32, all: u32) -> Option<Chunks> {
    Some(Chunks { held, all, bytes: 1000 })
}

/// Percent and seconds that are shown of a download.
fn downloading(chunks: Option<Chunks>, rate: Option<u64>) -> (Option<u64>, Option<u64>) {
    let mut view = StatusView::default();
    view.advance(State::Downloading, chunks, rate);
    (view.percent, view.eta_s)
}

#[test]
fn percent_and_eta_of_a_download_follow_from_its_chunks_and_the_rate() {
    for (held, all, rate, percent, eta) in [
        (0, 200, 1000, 0, 200),
        (1, 200, 1000, 0, 199),
        (2, 200, 1000, 1, 198),
        (50, 200, 1000, 25, 150),
        (50, 200, 500, 25, 300),
        (150, 200, 4000, 75, 13),
        (199, 200, 1000, 99, 1),
        (199, 200, 1_000_000, 99, 1),
        (200, 200, 1000, 100, 0),
        (u32::MAX - 1, u32::MAX, 1, 99, 1000),
    ] {
        let shown = downloading(chunks(held, all), Some(rate));
        assert_eq!(shown, (Some(percent), Some(eta)), "{held} of {all} at {rate} B/s");
    }
}

#[test]
fn what_is_not_known_of_a_download_is_not_shown() {
    assert_eq!(downloading(None, None), (None, None));
    assert_eq!(downloading(None, Some(1000)), (None, None));
    assert_eq!(downloading(chunks(50, 200), None), (Some(25), None));
}

#[test]
fn no_chunks_and_no_rate_to_speak_of_are_no_division_by_zero() {
    assert_eq!(downloading(chunks(0, 0), Some(1000)), (Some(0), Some(0)));
    assert_eq!(downloading(chunks(199, 200), Some(0)), (Some(99), Some(1000)));
}

/// What is over is neither shown as half done nor as on its way.
#[test]
fn percent_says_what_the_state_says_and_only_a_download_has_an_eta() {
    let shown = |state| {
        let mut view = StatusView { percent: Some(7), eta_s: Some(7), ..StatusView::default() };
        view.advance(state, chunks(50, 200), Some(1000));
        (view.percent, view.eta_s)
    };
    for state in [State::Idle, State::Offered, State::Deferred] {
        assert_eq!(shown(state), (Some(25), None), "{}", state.name());
    }
    for state in [State::Downloaded, State::Installing, State::Rebooting, State::Testing, State::Confirmed] {
        assert_eq!(shown(state), (Some(100), None), "{}", state.name());
    }
    for state in [State::Reverted, State::Failed, State::Cancelled] {
        assert_eq!(shown(state), (None, None), "{}", state.name());
    }
}

#[test]
fn progress_is_put_in_words_as_far_as_it_is_known() {
    let words = |percent, eta_s| StatusView { percent, eta_s, ..StatusView::default() }.in_words();
    assert!(words(Some(25), Some(150)).contains("progress  25 %, 150 s to go\n"));
    assert!(words(Some(25), None).contains("progress  25 %\n"));
    assert!(!words(None, None).contains("progress"));
}

#[test]
fn the_status_in_words_has_a_line_for_all_that_is_known() {
    let link =
        LinkView { up: false, for_s: 9, last_error: Some("timed out".to_owned()), ..LinkView::default() };
    let view = StatusView {
        device: "d1".to_owned(),
        fingerprint: Some("ab12".to_owned()),
        state: "deferred".to_owned(),
        reason: Some("hook".to_owned()),
        percent: Some(25),
        codec: Some("patch".to_owned()),
        payload_bytes: Some(4000),
        bytes_received: 1000,
        bytes_twice: 200,
        rate_bytes_per_s: Some(500),
        command_latency_ms: Some(80),
        deferred_s: Some(42),
        campaign: Some(campaign_name("00")),
        attempt: Some(2),
        running: RunningView {
            version: Some("1.0.1".to_owned()),
            sequence: 7,
            slot: "b".to_owned(),
            trial: "running".to_owned(),
            ..RunningView::default()
        },
        link: Some(link.clone()),
        hooks: vec!["/h/x has mode 0644".to_owned()],
        reports_waiting: 3,
        rejected: [("rollback".to_owned(), 4), ("malformed".to_owned(), 1)].into(),
        ..StatusView::default()
    };
    let lines = [
        "device    d1",
        "key       ab12",
        "state     deferred: hook, looked at again in 42 s",
        "campaign  local, attempt 2",
        "progress  25 %",
        "payload   patch, 4000 bytes",
        "bytes     1000 received, 200 of them twice",
        "link rate 500 B/s; the window delays other messages by up to 80 ms",
        "running   1.0.1, sequence 7, slot b",
        "trial     running",
        "broker    not connected for 9 s: timed out",
        "hooks     /h/x has mode 0644: no installation begins",
        "reports   3 not acknowledged yet",
        "rejected  1 malformed, 4 rollback",
    ];
    assert_eq!(view.in_words().lines().collect::<Vec<_>>(), lines);
    let up = StatusView { link: Some(LinkView { up: true, ..link }), ..view.clone() };
    assert!(up.in_words().contains("\nbroker    connected for 9 s\n"));
    let quiet = StatusView {
        link: None,
        hooks: Vec::new(),
        reports_waiting: 0,
        rejected: BTreeMap::new(),
        campaign: Some(campaign_name("0a")),
        running: RunningView { trial: "none".to_owned(), ..RunningView::default() },
        ..view
    };
    let words = quiet.in_words();
    assert!(words.contains("\ndaemon    not running\n") && words.contains("campaign  0a,"));
    assert!(
        ["\nhooks", "\nreports", "\nrejected", "\ntrial", "\nbroker"]
            .iter()
            .all(|line| !words.contains(line))
    );
    assert!(words.contains("running   of unknown version, sequence 0, slot "));
}
