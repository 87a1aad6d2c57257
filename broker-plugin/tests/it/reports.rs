//! Which reports count, and for what, in a fleet without a runtime.

use bytes::Bytes;
use whimbrel_protocol::cose::{Kind, sign_attached};
use whimbrel_protocol::ids::{CampaignId, Digest, KeyId, ShortDigest};
use whimbrel_protocol::message::{Enrolment, Outcome, Report, State};
use whimbrel_protocol::time::UnixTime;
use whimbrel_service::fleet::{self, Command};

use crate::halves_support::{Host, id, key};

fn report(number: u64, sequence: u64) -> Report {
    Report {
        device: id("m1"),
        number,
        campaign: CampaignId([1; 8]),
        attempt: 1,
        release: Digest([1; 32]),
        outcome: Outcome::Confirmed,
        failure: None,
        running: ShortDigest([sequence as u8; 8]),
        sequence,
        time: UnixTime::from_secs(1_800_000_000),
        bytes_received: 1,
        bytes_twice: 0,
        said: String::new(),
    }
}

fn signed(report: &Report, key_id: Option<KeyId>) -> Vec<u8> {
    sign_attached(&key(1), Kind::Report, key_id, &report.encode())
}

fn sequence(host: &Host) -> u64 {
    host.fleet.registry().device(&id("m1")).unwrap().facts.sequence
}

#[test]
fn twenty_variants_of_one_old_report_leave_one_row_and_never_set_a_device_back() {
    let mut host = Host::with_links(1);
    host.import(&["m1"]);
    let old = report(2, 3);
    host.say(0, "m1", 'r', &signed(&report(7, 9), None));
    assert_eq!((sequence(&host), host.store.reports_of(&id("m1"))), (9, 1));
    // Somebody on the way has kept an old report that never arrived, and writes other things beside it.
    for variant in 1..20 {
        host.say(0, "m1", 'r', &signed(&old, Some(KeyId([variant; 4]))));
        assert_eq!((sequence(&host), host.store.reports_of(&id("m1"))), (9, 1), "{variant}");
    }
    host.say(0, "m1", 'r', &signed(&old, None));
    assert_eq!((sequence(&host), host.store.reports_of(&id("m1"))), (9, 2), "it is stored, and no news");
    // The same words with another signature, as whoever has the key can make as many as wanted.
    for variant in 0..20 {
        let digest = Digest::of(&old.encode()).short();
        let signed = Bytes::from(vec![variant; 80]);
        let report = Box::new(old.clone());
        host.decide(fleet::Input::Reported { device: id("m1"), report, digest, signed });
    }
    assert_eq!((sequence(&host), host.store.reports_of(&id("m1"))), (9, 2));
    // Also after a restart.
    let mut again = Host::over(host.store.clone(), 1);
    again.say(0, "m1", 'r', &signed(&report(6, 4), None));
    assert_eq!(sequence(&again), 9);
    again.say(0, "m1", 'r', &signed(&report(8, 10), None));
    assert_eq!(sequence(&again), 10);
}

#[test]
fn the_reports_of_another_key_count_more_than_those_of_the_key_before() {
    let mut host = Host::with_links(1);
    host.import(&["m1"]);
    let release = host.release(5000);
    let campaign = host.campaign(&release, "all");
    let failed = Report { campaign, outcome: Outcome::Failed, ..report(7, 3) };
    host.say(0, "m1", 'r', &signed(&failed, None));
    let state = |host: &Host| {
        let progress = host.fleet.campaigns().campaign(&campaign).unwrap().progress(&id("m1"));
        progress.map(|progress| progress.deployment.state)
    };
    assert_eq!(state(&host), Some(State::Failed));
    // The data folder is lost, and with it the key and the number of the last report.
    let enrolment = Enrolment { device: id("m1"), key: key(9).public(), class: host.fixture.class };
    host.say(0, "m1", 'r', &sign_attached(&key(9), Kind::Enrolment, None, &enrolment.encode()));
    host.change(|reply| Command::Reset { id: id("m1"), reply }).unwrap();
    let fingerprint = key(9).public().fingerprint();
    host.change(|reply| Command::Accept { id: id("m1"), fingerprint, groups: None, reply }).unwrap();
    assert_eq!(state(&host), Some(State::Failed), "what is known stays known");
    let confirmed = Report { campaign, ..report(0, 5) };
    host.say(0, "m1", 'r', &sign_attached(&key(9), Kind::Report, None, &confirmed.encode()));
    assert_eq!((state(&host), sequence(&host)), (Some(State::Confirmed), 5));
    let again = Host::over(host.store.clone(), 0);
    assert_eq!((state(&again), sequence(&again)), (Some(State::Confirmed), 5));
}
