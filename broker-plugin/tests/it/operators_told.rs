//! What operators are told of campaigns and devices, where it is the service that knows.

use whimbrel_api::{self as api, WarningKind};
use whimbrel_protocol::cose::{Kind, sign_attached};
use whimbrel_protocol::ids::{CampaignId, ClassId, ShortDigest};
use whimbrel_protocol::message::{Outcome, Report};
use whimbrel_protocol::testing::Release;
use whimbrel_service::fleet::catalog;
use whimbrel_service::fleet::registry::ImportLine;
use whimbrel_service::fleet::{Command, Denied, Question};
use whimbrel_service::serving;
use whimbrel_service::store::{MemoryStore, Payloads as _};

use crate::halves_support::{Host, TODAY, group, id, key, new_campaign, reply};
use crate::voice::{ask, confirmed};

/// Publishes a release whole; what the operator is told at the end.
fn publish(host: &mut Host, sequence: u64) -> (Release, api::Release) {
    let release = host.fixture.release(vec![sequence as u8; 3000], sequence, 10);
    let read = || catalog::Release::read(&release.envelope, &host.fixture.root(), TODAY).unwrap();
    let (known, again) = (Box::new(read()), Box::new(read()));
    let mut upload = host.payloads.begin(known.payloads[0].spec.clone()).unwrap();
    upload.write(&release.payload).unwrap();
    let row = upload.finish(TODAY).unwrap();
    host.change(|reply| Command::AddRelease { release: known, reply }).unwrap();
    host.change(|reply| Command::AddPayload { row, reply }).unwrap();
    let told = host.change(|reply| Command::AddRelease { release: again, reply }).unwrap();
    (release, told)
}

fn create(host: &mut Host, release: &Release, name: &str) -> Result<api::Campaign, Denied> {
    let (release, new, id) = (release.digest.to_hex(), new_campaign(name), CampaignId([9; 8]));
    Ok(host.change(|reply| Command::NewCampaign { release, new, id, reply })?.shown)
}

/// What a device of [`Host::import`] says, with its signature, that it runs.
fn report_running(host: &mut Host, name: &str, secret: u8, sequence: u64) {
    let report = Report {
        device: id(name),
        number: 0,
        campaign: CampaignId([1; 8]),
        attempt: 1,
        release: host.fixture.release(vec![1], 1, 10).digest,
        outcome: Outcome::Confirmed,
        failure: None,
        running: ShortDigest([7; 8]),
        sequence,
        time: TODAY,
        bytes_received: 0,
        bytes_twice: 0,
        said: String::new(),
    };
    let signed = sign_attached(&key(secret), Kind::Report, None, &report.encode());
    host.say(0, name, 'r', &signed);
}

/// Kinds of warnings, how many devices each is about, and their texts.
fn seen(warnings: &[api::Warning]) -> (Vec<(WarningKind, u64)>, String) {
    let texts: Vec<&str> = warnings.iter().map(|warning| warning.text.as_str()).collect();
    (warnings.iter().map(|warning| (warning.kind, warning.devices)).collect(), texts.join("|"))
}

fn online(names: &[&str]) -> Host {
    let mut host = Host::with_links(1);
    host.import(names);
    host.serve(0, serving::Input::Up);
    host
}

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

#[test]
fn publish_warns_of_a_sequence_below_what_devices_run_by_their_signed_reports() {
    let mut host = online(&["m1", "m2", "m3"]);
    assert_eq!(publish(&mut host, 9).1.warnings, []);
    report_running(&mut host, "m1", 1, 9);
    report_running(&mut host, "m2", 2, 12);
    let (kinds, text) = seen(&publish(&mut host, 8).1.warnings);
    assert_eq!(kinds, [(WarningKind::Downgrade, 2)]);
    assert!(text.contains("2 of 3 devices") && text.contains("up to 12"), "{text}");
    assert!(text.contains("--sequence 13 or higher"), "{text}");
    // What runs is no downgrade, and what nobody signed counts for nothing.
    assert_eq!(seen(&publish(&mut host, 9).1.warnings).0, [(WarningKind::Downgrade, 1)]);
    assert_eq!(publish(&mut host, 12).1.warnings, []);
}

#[test]
fn what_a_device_says_unsigned_makes_no_release_a_downgrade() {
    let mut host = online(&["m1"]);
    host.say(0, "m1", 'q', &crate::halves::hello_running(400));
    assert_eq!(host.fleet.registry().device(&id("m1")).unwrap().facts.sequence, 400);
    let (release, told) = publish(&mut host, 8);
    assert_eq!(told.warnings, []);
    assert_eq!(create(&mut host, &release, "all").unwrap().warnings, []);
}

#[test]
fn a_campaign_says_how_many_devices_will_refuse_and_is_refused_only_if_all_will() {
    let mut host = online(&["m1", "m2"]);
    report_running(&mut host, "m1", 1, 12);
    let (release, _) = publish(&mut host, 8);
    let (kinds, text) = seen(&create(&mut host, &release, "all").unwrap().warnings);
    assert_eq!(kinds, [(WarningKind::Downgrade, 1)]);
    assert!(text.contains("1 of 2 devices in group all") && text.contains("--sequence 13"), "{text}");

    report_running(&mut host, "m2", 2, 9);
    let before = host.fleet.campaigns().len();
    let refused = create(&mut host, &release, "all").unwrap_err();
    assert!(matches!(refused, Denied::Downgrade { devices: 2, sequence: 8, highest: 12, .. }), "{refused}");
    assert!(
        refused.to_string().contains("build the older image again with --sequence 13 or higher"),
        "{refused}"
    );
    assert_eq!(host.fleet.campaigns().len(), before);
    // A group that nobody is in refuses nothing.
    assert!(create(&mut host, &release, "north").is_ok());
}

#[test]
fn a_campaign_for_a_group_that_nobody_is_in_says_so_and_which_groups_there_are() {
    let mut host = online(&["m1"]);
    let (release, _) = publish(&mut host, 8);
    let (kinds, text) = seen(&create(&mut host, &release, "al").unwrap().warnings);
    assert_eq!(kinds, [(WarningKind::EmptyGroup, 0)]);
    assert!(text.contains("nobody is in group al,") && text.ends_with("groups with devices: all"), "{text}");
    assert!(text.contains("`whimbrel device groups ID al`"), "{text}");
}

#[test]
fn a_second_campaign_of_a_group_says_which_one_it_replaces_and_how_to_bring_it_back() {
    let mut host = online(&["m1", "m2"]);
    let (first, _) = publish(&mut host, 8);
    let (second, _) = publish(&mut host, 9);
    let before = create(&mut host, &first, "all").unwrap();
    assert_eq!(before.warnings, []);
    let (kinds, text) = seen(&create(&mut host, &second, "all").unwrap().warnings);
    assert_eq!(kinds, [(WarningKind::ReplacesCampaign, 2)]);
    assert!(
        text.starts_with(&format!("campaign {} of group all does not run any more", before.id)),
        "{text}"
    );
    let back = format!("campaign create --release {} --group all", &first.digest.to_hex()[..12]);
    assert!(text.contains(&back), "{text}");
    // One that was called off is not replaced.
    let id = host.fleet.campaigns().of_group(&group("all")).unwrap().id().to_hex();
    let command = whimbrel_service::fleet::campaign::Command::Abort;
    host.change(|reply| Command::ToCampaign { prefix: id, command, reply }).unwrap();
    assert_eq!(create(&mut host, &first, "all").unwrap().warnings, []);
}

fn import_of_class(host: &mut Host, name: &str, class: ClassId) {
    let line =
        ImportLine { number: 1, device: id(name), key: key(40).public(), class, groups: vec![group("all")] };
    host.change(|reply| Command::Import { lines: vec![line], reply }).unwrap();
}

#[test]
fn devices_of_another_class_are_named_when_they_are_accepted_and_when_a_campaign_passes_them_by() {
    let mut host = online(&["m1"]);
    import_of_class(&mut host, "other", ClassId([9; 16]));
    let (release, _) = publish(&mut host, 8);
    let (kinds, text) = seen(&create(&mut host, &release, "all").unwrap().warnings);
    assert_eq!(kinds, [(WarningKind::OtherClass, 1)]);
    assert!(text.contains("1 of 2 devices in group all are of another class"), "{text}");
    let fingerprint = key(40).public().fingerprint();
    let accept = |name: &str, fingerprint, groups| {
        let id = id(name);
        move |reply| Command::Accept { id, fingerprint, groups, reply }
    };
    let told = host.change(accept("other", fingerprint, None)).unwrap();
    let (kinds, text) = seen(&told.warnings);
    assert_eq!(kinds, [(WarningKind::OtherClass, 1)]);
    let classes = (ClassId([9; 16]).to_hex(), host.fixture.class.to_hex());
    assert!(text.contains(&classes.0) && text.contains(&classes.1), "{text}");
    let told = host.change(accept("m1", key(1).public().fingerprint(), None)).unwrap();
    assert_eq!(told.warnings, []);
}

#[test]
fn accepting_a_device_again_says_which_groups_it_leaves_and_how_it_gets_back() {
    let mut host = online(&["m1"]);
    let fingerprint = key(1).public().fingerprint();
    let accept = |groups: &[&str]| {
        let groups = Some(groups.iter().map(|name| group(name)).collect());
        move |reply| Command::Accept { id: id("m1"), fingerprint, groups, reply }
    };
    assert_eq!(host.change(accept(&["all", "north"])).unwrap().warnings, [], "it leaves none");
    let told = host.change(accept(&["pilots"])).unwrap();
    assert_eq!(told.groups, ["pilots"]);
    let (kinds, text) = seen(&told.warnings);
    assert_eq!(kinds, [(WarningKind::LeavesGroup, 1)]);
    assert!(text.contains("m1 is not in all, north any more"), "{text}");
    assert!(text.contains("`whimbrel device groups m1 all north pilots`"), "{text}");
}

/// What is to be said of a device where it is shown.
fn of_device(host: &Host, name: &str) -> (Vec<(WarningKind, u64)>, String) {
    let (reply, answer) = reply();
    host.fleet.answer(host.now, TODAY, Question::Device { id: id(name), reply }, &|_| None).deliver();
    seen(&answer.try_recv().unwrap().unwrap().warnings)
}

#[test]
fn a_device_whose_root_differs_is_named_after_three_hellos_and_not_any_more_when_it_believes() {
    let mut host = online(&["m1"]);
    let class = host.fixture.class;
    let hello = |host: &mut Host, assignment| {
        host.now = host.now.plus_millis(20_000);
        host.say(0, "m1", 'q', &crate::halves::the_hello(class, 4, assignment).encode());
    };
    for _ in 0..2 {
        hello(&mut host, 0);
        assert_eq!(of_device(&host, "m1").0, [], "messages may be lost");
    }
    hello(&mut host, 0);
    let (kinds, text) = of_device(&host, "m1");
    assert_eq!(kinds, [(WarningKind::OtherRoot, 1)]);
    assert!(
        text.contains("device m1") && text.contains("root.cbor is probably not that of this service"),
        "{text}"
    );
    hello(&mut host, 1);
    assert_eq!(of_device(&host, "m1").0, []);
}

#[test]
fn a_device_that_says_another_class_than_it_is_registered_with_is_named_with_both() {
    let mut host = online(&["m1"]);
    host.say(0, "m1", 'q', &crate::halves::the_hello(ClassId([3; 16]), 4, 1).encode());
    let (kinds, text) = of_device(&host, "m1");
    assert_eq!(kinds, [(WarningKind::OtherClass, 1)]);
    assert!(text.contains("03030303") && text.contains(&host.fixture.class.to_hex()), "{text}");
    let right = crate::halves::the_hello(host.fixture.class, 4, 1);
    host.say(0, "m1", 'q', &right.encode());
    assert_eq!(of_device(&host, "m1").0, []);
}
