//! What operators are told of campaigns and devices, where it is the service that knows.

use whimbrel_api as api;
use whimbrel_protocol::ids::CampaignId;
use whimbrel_service::fleet::Question;
use whimbrel_service::serving;
use whimbrel_service::store::MemoryStore;

use crate::halves_support::{Host, TODAY, key, reply};
use crate::voice::{ask, confirmed};

/// A campaign as operators see it.
fn campaign(host: &Host, id: CampaignId) -> api::Campaign {
    let (to, answer) = reply();
    let question = Question::Campaign { prefix: id.to_hex(), devices: None, reply: to };
    host.fleet.answer(host.now, TODAY, question, &|_| None).deliver();
    answer.try_recv().unwrap().unwrap().shown
}

/// The device is served the last chunks, the service is killed at that moment, and the device, which has all it needs,
/// only reports.
#[test]
fn an_outcome_keeps_its_payload_kind_over_a_crash_of_the_service() {
    let store = MemoryStore::default();
    let mut host = Host::over(store.clone(), 1);
    host.import(&["m1"]);
    let release = host.release(5000);
    let id = host.campaign(&release, "all");
    host.serve(0, serving::Input::Up);
    assert!(!host.say(0, "m1", 'q', &ask(&release, 0, 5, 2)).is_empty());
    let payloads = host.payloads.clone();
    drop(host);

    let mut host = Host::over(store, 1);
    host.payloads = payloads;
    host.serve(0, serving::Input::Up);
    host.say(0, "m1", 'r', &confirmed("m1", &key(1), id, release.digest));
    let shown = campaign(&host, id);
    let shares: Vec<_> = shown.payloads.iter().map(|share| (share.payload.kind, share.devices)).collect();
    assert_eq!((shares, shown.percent), (vec![(api::PayloadKind::Full, 1)], 100));
}
