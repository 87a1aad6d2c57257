//! The two halves of the service, without a runtime: the fleet alone, and two links over one fleet.

use std::path::Path;

use bytes::Bytes;
use whimbrel_protocol::cose::Sign1;
use whimbrel_protocol::ids::{CampaignId, ClassId, Nonce, ShortDigest};
use whimbrel_protocol::message::{Answer, Beacon, Campaign, CampaignState, DocumentRequest, Hello, State};
use whimbrel_protocol::time::Instant;
use whimbrel_service::fleet::campaign::{self, CommandError};
use whimbrel_service::fleet::{Command, Denied, Document, Fleet, Input, Job, Output, Publication, Question};
use whimbrel_service::serving;
use whimbrel_service::store::{Change, MemoryStore, Phase, Series, StoreError};

use crate::halves_support::{Host, TODAY, fleet_settings, group, id, key, new_campaign, reply, sign};
use crate::voice::{ask, confirmed};

fn feed(fleet: &mut Fleet, input: Input) -> Vec<Output> {
    fleet.handle_input(Instant::ZERO, TODAY, input);
    let outputs = core::iter::from_fn(|| fleet.poll_output());
    outputs.filter(|output| !matches!(output, Output::Event(_))).collect()
}

/// The fleet of a host with a release, alone.
fn with_a_release() -> (Host, Fleet, String) {
    let mut host = Host::with_links(0);
    let release = host.release(5000);
    let snapshot = host.store.snapshot();
    let fleet = Fleet::restore(fleet_settings(), host.fixture.root(), snapshot, Instant::from_millis(1));
    (host, fleet, release.digest.to_hex())
}

/// Carries a command's documents through: the store hands out these versions, all is signed and stored.
fn carry_through(host: &Host, fleet: &mut Fleet, outputs: Vec<Output>, versions: [u64; 2]) -> Campaign {
    let [Output::NextVersions(series)] = &outputs[..] else { panic!("{outputs:?}") };
    assert_eq!(series[..], [Series::Beacon, Series::Campaign]);
    let outputs = feed(fleet, Input::Versions(Ok(versions.to_vec())));
    let [Output::Sign(documents)] = &outputs[..] else { panic!("{outputs:?}") };
    let [Document::Campaign(campaign), Document::Beacon(beacon)] = &documents[..] else {
        panic!("{documents:?}")
    };
    assert_eq!([beacon.validity.version, campaign.validity.version], versions);
    let signed: Vec<Bytes> = documents.iter().map(|document| sign(&host.fixture, document)).collect();
    let outputs = feed(fleet, Input::Signed(signed.clone()));
    let [Output::Store { job: Job::Change, changes }] = &outputs[..] else { panic!("{outputs:?}") };
    let [Change::Campaign(row), Change::Beacon { version, .. }, ..] = &changes[..] else {
        panic!("{changes:?}")
    };
    assert_eq!((&row.document, *version), (&signed[0], versions[0]));
    let before = fleet.campaigns().of_group(&campaign.group).map(|known| known.document().clone());
    assert_ne!(before.as_ref(), Some(&**campaign), "it is not in force before it is stored");
    let outputs = feed(fleet, Input::Stored { job: Job::Change, applied: Ok(vec![true; changes.len()]) });
    let mut answers = Vec::new();
    let published = outputs.into_iter().filter_map(|output| match output {
        Output::Publish(publication) => Some(publication),
        Output::Answer(answer) => {
            answers.push(answer);
            None
        }
        other => panic!("{other:?}"),
    });
    let published: Vec<Publication> = published.collect();
    assert_eq!(published, [Publication::Campaign(campaign.group.clone()), Publication::Beacon]);
    assert_eq!(answers.len(), 1);
    answers.into_iter().for_each(whimbrel_service::fleet::Answer::deliver);
    let in_force = fleet.campaigns().of_group(&campaign.group).unwrap();
    assert_eq!((in_force.document(), in_force.signed()), (&**campaign, &signed[0]));
    assert_eq!(fleet.beacon(), Some(&signed[1]));
    (**campaign).clone()
}

#[test]
fn a_campaign_is_made_aborted_and_tried_again_through_inputs_and_outputs_alone() {
    let (host, mut fleet, release) = with_a_release();
    let (to_new, new_answer) = reply();
    let command =
        Command::NewCampaign { release, new: new_campaign("all"), id: CampaignId([7; 8]), reply: to_new };
    let outputs = feed(&mut fleet, Input::Command(command));
    let made = carry_through(&host, &mut fleet, outputs, [12, 40]);
    assert_eq!((made.order.attempt, made.order.state), (1, CampaignState::Active));
    let shown = new_answer.try_recv().unwrap().unwrap().shown;
    assert_eq!((shown.id, shown.document_version), (CampaignId([7; 8]).to_hex(), 40));

    let order = |fleet: &mut Fleet, command| {
        let (reply, answer) = reply();
        let prefix = CampaignId([7; 8]).to_hex();
        (feed(fleet, Input::Command(Command::ToCampaign { prefix, command, reply })), answer)
    };
    let (outputs, _answer) = order(&mut fleet, campaign::Command::Abort);
    let aborted = carry_through(&host, &mut fleet, outputs, [13, 41]);
    assert_eq!((aborted.order.attempt, aborted.order.state), (1, CampaignState::Aborted));
    assert_eq!(fleet.campaigns().of_group(&group("all")).unwrap().phase(), Phase::Aborted);

    // What is refused asks for no versions.
    let (outputs, refused) = order(&mut fleet, campaign::Command::Abort);
    let [Output::Answer(_)] = &outputs[..] else { panic!("{outputs:?}") };
    for output in outputs {
        if let Output::Answer(answer) = output {
            answer.deliver();
        }
    }
    let refused = refused.try_recv().unwrap().unwrap_err();
    assert!(matches!(refused, Denied::Command { source: CommandError::Aborted, .. }), "{refused}");

    let (outputs, _answer) = order(&mut fleet, campaign::Command::Retry);
    let retried = carry_through(&host, &mut fleet, outputs, [20, 50]);
    assert_eq!((retried.order.attempt, retried.order.state), (2, CampaignState::Active));
    assert_eq!(fleet.under_way(), 0);
}

#[test]
fn changes_are_made_one_after_the_other_and_one_that_fails_does_not_hold_up_the_next() {
    let (host, mut fleet, release) = with_a_release();
    let order = |name: &str| {
        let (reply, answer) = reply();
        let (release, new, id) = (release.clone(), new_campaign(name), CampaignId([7; 8]));
        (Input::Command(Command::NewCampaign { release, new, id, reply }), answer)
    };
    let (first, failed) = order("north");
    let (second, made) = order("south");
    assert_eq!(feed(&mut fleet, first).len(), 1);
    assert!(feed(&mut fleet, second).is_empty(), "it waits");
    assert_eq!(fleet.under_way(), 2);
    let mut outputs = feed(&mut fleet, Input::Versions(Err(StoreError::Closed.into())));
    let Output::Answer(answer) = outputs.remove(0) else { panic!() };
    answer.deliver();
    assert!(matches!(failed.try_recv().unwrap(), Err(Denied::Store(_))));
    carry_through(&host, &mut fleet, outputs, [1, 1]);
    made.try_recv().unwrap().unwrap();
    assert!(fleet.campaigns().of_group(&group("north")).is_none());
}

#[test]
fn two_fleets_over_one_store_never_give_two_documents_one_version() {
    let store = MemoryStore::default();
    let mut one = Host::over(store.clone(), 0);
    let release = one.release(5000);
    let mut other = Host::over(store, 0);
    other.payloads = one.payloads.clone();
    let mut versions = Vec::new();
    for number in 0..4 {
        let host = if number % 2 == 0 { &mut one } else { &mut other };
        let name = format!("g{number}");
        host.campaign(&release, &name);
        let campaign = host.fleet.campaigns().of_group(&group(&name)).unwrap();
        let beacon = Sign1::decode(host.fleet.beacon().unwrap()).unwrap();
        let beacon = Beacon::decode(beacon.unverified_payload().unwrap()).unwrap();
        versions.push((campaign.document().validity.version, beacon.validity.version));
    }
    assert_eq!(versions, [(1, 1), (2, 2), (3, 3), (4, 4)]);
}

#[test]
fn a_campaign_whose_id_is_taken_gets_one_that_is_free() {
    let mut host = Host::with_links(0);
    let release = host.release(5000);
    let ids = ["a", "b", "c"].map(|name| host.campaign(&release, name).0[7]);
    assert_eq!(ids, [9, 10, 11]);
}

fn hello() -> Vec<u8> {
    hello_running(4)
}

/// A hello of a device that says it runs a release with this sequence number.
pub(crate) fn hello_running(sequence: u64) -> Vec<u8> {
    the_hello(ClassId([3; 16]), sequence, 0).encode()
}

/// A hello of a device of this class that holds this version of its assignment.
pub(crate) fn the_hello(class: ClassId, sequence: u64, assignment: u64) -> Hello {
    Hello {
        version_max: 1,
        class: class.tag(),
        running: ShortDigest([1; 8]),
        sequence,
        root: 1,
        assignment,
        groups: Vec::new(),
        nonce: Nonce([1; 8]),
        report: None,
    }
}

#[test]
fn two_links_over_one_fleet_serve_a_device_each() {
    let mut host = Host::with_links(2);
    host.import(&["m1", "m2"]);
    let release = host.release(5000);
    let campaign = host.campaign(&release, "all");
    host.serve(0, serving::Input::Up);
    host.serve(1, serving::Input::Up);
    host.turn();
    host.turn();
    // Both brokers keep all documents: beacon, campaign, two assignments.
    let kept = |host: &Host, link: usize| {
        let mut topics: Vec<String> = host.links[link]
            .sent
            .iter()
            .filter(|sent| sent.retain)
            .map(|sent| String::from_utf8(sent.topic.to_vec()).unwrap())
            .collect();
        topics.sort();
        topics
    };
    let all = ["ota/d/m1/s", "ota/d/m2/s", "ota/g/all", "ota/t"];
    assert_eq!(kept(&host, 0), all);
    assert_eq!(kept(&host, 1), all);

    for (link, name) in [(0, "m1"), (1, "m2")] {
        // The signed answer, the assignment and the campaign.
        assert_eq!(host.say(link, name, 'q', &hello()).len(), 3);
        let manifest = DocumentRequest::Manifest(release.digest.short()).encode();
        assert_eq!(host.say(link, name, 'q', &manifest), [&release.envelope[..]]);
        let mut got = Vec::new();
        for message in host.say(link, name, 'q', &ask(&release, 0, 5, 2)) {
            let Ok(Answer::Chunk(chunks)) = Answer::decode(&message) else { panic!("{message:?}") };
            got.extend_from_slice(chunks.bytes);
        }
        assert_eq!(got, release.payload);
        // One read, and whoever asks again on this link is served from memory.
        assert_eq!(host.say(link, name, 'q', &ask(&release, 0, 1, 1)).len(), 1);
        assert_eq!(host.links[link].reads, 1);
    }
    let sessions: Vec<usize> = host.links.iter().map(|link| link.serving.sessions().0).collect();
    assert_eq!(sessions, [1, 1]);

    // What one of them reports counts in the fleet.
    host.say(0, "m1", 'r', &confirmed("m1", &key(1), campaign, release.digest));
    let progress = *host.fleet.campaigns().campaign(&campaign).unwrap().progress(&id("m1")).unwrap();
    assert_eq!(progress.deployment.state, State::Confirmed);
    let (to, answer) = reply();
    let question = Question::Campaign { prefix: campaign.to_hex(), devices: None, reply: to };
    host.fleet.answer(host.now, TODAY, question, &|_| None).deliver();
    // The other one asked for the first of five chunks last.
    assert_eq!(answer.try_recv().unwrap().unwrap().shown.percent, (100 + 20) / 2);

    // A device that is moved is served accordingly, on whatever link it is.
    host.change(|reply| Command::SetGroups { id: id("m2"), groups: vec![group("north")], reply }).unwrap();
    let refused = host.say(1, "m2", 'q', &ask(&release, 0, 1, 1));
    assert!(matches!(Answer::decode(&refused[0]), Ok(Answer::Refusal(_))));
    assert_eq!(host.say(0, "m1", 'q', &ask(&release, 0, 1, 1)).len(), 1);
    assert_eq!(kept(&host, 0).iter().filter(|topic| *topic == "ota/d/m2/s").count(), 2, "published again");
}

/// Neither half waits, reads a clock, draws a number or writes a log: all of that is the shell's.
#[test]
fn the_two_halves_do_no_io() {
    let mut folders = ["fleet", "serving"]
        .map(|half| Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(half))
        .to_vec();
    let mut files = 0;
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            files += 1;
            let text = std::fs::read_to_string(&path).unwrap();
            for word in ["tokio", "tracing::", "getrandom", "clock::", "std::fs", "std::net", "async "] {
                let test = path.ends_with("tests.rs");
                assert!(test || !text.contains(word), "{}: {word}", path.display());
            }
        }
    }
    assert!(files > 20, "{files}");
}

#[test]
fn assignments_are_signed_with_a_number_from_the_store() {
    let (_, mut fleet, _) = with_a_release();
    let line = whimbrel_service::fleet::registry::ImportLine {
        number: 1,
        device: id("m1"),
        class: ClassId([7; 16]),
        key: key(1).public(),
        groups: vec![group("all")],
    };
    let reply = whimbrel_service::fleet::Reply::new(drop);
    let outputs = feed(&mut fleet, Input::Command(Command::Import { lines: vec![line], reply }));
    assert!(
        matches!(&outputs[..], [Output::NextVersions(series)] if series[..] == [Series::Assignments]),
        "{outputs:?}"
    );
    let outputs = feed(&mut fleet, Input::Versions(Ok(vec![7])));
    assert!(matches!(&outputs[..], [Output::Sign(documents)] if documents.len() == 1), "{outputs:?}");
}
