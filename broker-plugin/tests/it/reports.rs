//! Which reports count, and for what, in a fleet without a runtime.

use bytes::Bytes;
use whimbrel_protocol::cose::{Kind, sign_attached};
use whimbrel_protocol::ids::{CampaignId, Digest, KeyId, ShortDigest};
use whimbrel_protocol::message::{Outcome, Report};
use whimbrel_protocol::time::UnixTime;
use whimbrel_service::fleet;

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
