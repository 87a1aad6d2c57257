//! What operators are told is made of sums that are kept, and the sums are right.

use bytes::Bytes;
use whimbrel_api as api;
use whimbrel_protocol::ids::{CampaignId, Digest, ShortDigest};
use whimbrel_protocol::message::{FailureCode, Outcome, Report, State, Status};
use whimbrel_service::fleet::campaign::{self, Ask, Tally};
use whimbrel_service::fleet::{Command, DevicesPage, Fleet, Input, Listed, Question, Reply};
use whimbrel_service::store::{Change, Device, Facts, MemoryStore, Reported, Standing};

use crate::halves_support::{Host, TODAY, group, id, key, new_campaign, reply};

/// Numbers from a seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }

    fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len() as u64) as usize]
    }
}

const NAMES: [&str; 6] = ["m1", "m2", "m3", "m4", "m5", "m6"];

fn report(dice: &mut Dice, name: &str, of: CampaignId, number: u64) -> Report {
    let outcome = dice.one_of(&[Outcome::Confirmed, Outcome::Confirmed, Outcome::Failed, Outcome::Reverted]);
    Report {
        device: id(name),
        number,
        campaign: of,
        attempt: 1 + dice.below(3),
        release: Digest([1; 32]),
        outcome,
        failure: (outcome != Outcome::Confirmed).then_some(FailureCode::Unhealthy),
        running: ShortDigest([dice.below(3) as u8; 8]),
        sequence: dice.below(3),
        time: TODAY,
        bytes_received: dice.below(9000),
        bytes_twice: dice.below(100),
        said: String::new(),
    }
}

fn status(dice: &mut Dice, of: CampaignId) -> Status {
    Status {
        campaign: of,
        attempt: 1 + dice.below(3),
        state: dice.one_of(&[State::Offered, State::Downloading, State::Downloaded, State::Testing]),
        chunks_held: dice.below(9) as u32,
        chunks: 8,
        bytes_received: dice.below(9000),
        bytes_twice: dice.below(100),
        deferred: None,
        failure: None,
    }
}

/// Lets something happen that changes who is in a group or how far somebody is.
fn happen(host: &mut Host, dice: &mut Dice, of: CampaignId, number: u64) {
    let name = dice.one_of(&NAMES);
    let device = id(name);
    match dice.below(12) {
        0 => {
            let groups = match dice.below(3) {
                0 => vec![group("all")],
                1 => vec![group("north"), group("all")],
                _ => vec![group("north")],
            };
            let _reset_before = host.change(|reply| Command::SetGroups { id: device, groups, reply });
        }
        1 if dice.below(4) == 0 => {
            let _reset_before = host.change(|reply| Command::Reset { id: device, reply });
        }
        2 if dice.below(3) == 0 => {
            let command = dice.one_of(&[campaign::Command::Retry, campaign::Command::Abort]);
            let prefix = of.to_hex();
            let _aborted_before = host.change(|reply| Command::ToCampaign { prefix, command, reply });
        }
        3..=5 => {
            let report = report(dice, name, of, number);
            let digest = ShortDigest(number.to_be_bytes());
            let report = Box::new(report);
            host.decide(Input::Reported { device, report, digest, signed: Bytes::from_static(b"signed") });
        }
        6 | 7 => {
            let payload = ShortDigest([dice.below(2) as u8; 8]);
            let ask = Ask::Chunks { payload, before: dice.below(9) as u32, of: 8 };
            host.decide(Input::Asked { device, campaign: of, ask });
        }
        8 => {
            let facts = Facts {
                running: ShortDigest([dice.below(3) as u8; 8]),
                sequence: dice.below(3),
                seen: TODAY,
            };
            host.decide(Input::Hello {
                device,
                class: host.fixture.class.tag(),
                facts,
                assignment: 0,
                campaign: 0,
            });
        }
        _ => {
            let status = status(dice, of);
            host.decide(Input::Progress { device, campaign: Some(of), status });
        }
    }
}

/// The sums of a campaign, and what its devices run, as they are when every device is looked at.
fn recount(fleet: &Fleet, of: CampaignId) -> (Tally, Vec<(ShortDigest, u64)>) {
    let campaign = fleet.campaigns().campaign(&of).unwrap();
    let document = campaign.document();
    let members: Vec<&Device> = fleet
        .registry()
        .devices_after(None)
        .filter(|device| device.class == document.order.class && device.groups().contains(&document.group))
        .collect();
    let mut ran: Vec<_> =
        members.iter().map(|device| (device.facts.running, device.facts.sequence)).collect();
    ran.sort_unstable();
    (Tally::of(campaign, members.iter().map(|device| &device.id)), ran)
}

/// The same from what is kept.
fn kept(fleet: &Fleet, of: CampaignId) -> (Tally, Vec<(ShortDigest, u64)>) {
    let campaign = fleet.campaigns().campaign(&of).unwrap();
    let document = campaign.document();
    let members = fleet.registry().members(document.order.class, &document.group);
    let running = fleet.registry().running(document.order.class, Some(&document.group));
    let ran = running.flat_map(|said| vec![(said.image, said.sequence); said.devices as usize]);
    (campaign.tally(members as u64), ran.collect())
}

#[test]
fn the_sums_of_a_campaign_are_what_a_recount_finds_whatever_happens() {
    for seed in 1..40 {
        let mut dice = Dice(0x9E37_79B9_7F4A_7C15 ^ (seed << 20));
        let mut host = Host::with_links(0);
        host.import(&NAMES);
        let release = host.release(2000);
        let of = host.campaign(&release, "all");
        for number in 0..60 {
            happen(&mut host, &mut dice, of, number);
            assert_eq!(kept(&host.fleet, of), recount(&host.fleet, of), "seed {seed}, event {number}");
        }
        // And what was stored is counted in the same way.
        host.decide(Input::Stop);
        let again = Host::over(host.store.clone(), 0);
        assert_eq!(kept(&again.fleet, of), recount(&again.fleet, of), "seed {seed}, started again");
        // Another campaign takes its place: it is counted in the store.
        let (release, new, id) = (release.digest.to_hex(), new_campaign("all"), CampaignId([8; 8]));
        host.change(|reply| Command::NewCampaign { release, new, id, reply }).unwrap();
        assert_eq!(host.fleet.campaigns().campaign(&of).unwrap().tally(0), Tally::default());
    }
}

/// A stored fleet of this many accepted devices in the group `all`, of which one in a hundred is in `north` too, and a
/// few pending ones.
fn stored(host: &Host, devices: usize) -> MemoryStore {
    let device = |number: usize| {
        let mut groups = vec![group("all")];
        if number.is_multiple_of(100) {
            groups.push(group("north"));
        }
        let key = key(1).public();
        let standing = if number.is_multiple_of(1000) {
            Standing::Pending { key, order: number as u64, groups: Vec::new() }
        } else {
            Standing::Accepted { key, groups, assignment: Bytes::from_static(b"signed") }
        };
        let facts = Facts { running: ShortDigest([(number % 3) as u8; 8]), sequence: 3, seen: TODAY };
        let id = id(&format!("m{number:06}"));
        Change::Device(Device {
            id,
            class: host.fixture.class,
            standing,
            assignment_version: 1,
            facts,
            reported: Reported::default(),
            rekeyed: None,
        })
    };
    let changes: Vec<Change> = (1..=devices).map(device).collect();
    host.store.apply_now(&changes);
    host.store.clone()
}

/// What is looked at for one question.
fn looked_at<T: Send + 'static>(host: &Host, question: impl FnOnce(Reply<T>) -> Question) -> (u64, T) {
    let before = host.fleet.registry().looked_at();
    let (reply, answer) = reply();
    host.fleet.answer(host.now, TODAY, question(reply), &|_| None).deliver();
    let answer = answer.try_recv().unwrap().unwrap();
    (host.fleet.registry().looked_at() - before, answer)
}

#[test]
fn what_a_view_looks_at_does_not_grow_with_the_fleet() {
    const DEVICES: usize = 20_000;
    let mut host = Host::with_links(0);
    let release = host.release(2000);
    let store = stored(&host, DEVICES);
    host = Host::over(store, 0);
    let release_id = release.digest.to_hex();
    let of = host.campaign(&release, "all");
    let (north, id) = (new_campaign("north"), CampaignId([8; 8]));
    let release = release_id.clone();
    host.change(|reply| Command::NewCampaign { release, new: north, id, reply }).unwrap();

    let (looked, campaigns) = looked_at(&host, Question::Campaigns);
    let waiting: Vec<u64> =
        campaigns.iter().map(|campaign| campaign.shown.devices.in_state(api::DeviceState::Waiting)).collect();
    assert_eq!((looked, waiting), (0, vec![19_980, 180]));

    let page = || DevicesPage { after: None, limit: 50 };
    let (looked, campaign) =
        looked_at(&host, |reply| Question::Campaign { prefix: id.to_hex(), devices: Some(page()), reply });
    assert_eq!(campaign.shown.device_list.unwrap().len(), 50);
    assert!(looked <= 60, "a page of a small group looks at {looked}");
    let (looked, _) =
        looked_at(&host, |reply| Question::Campaign { prefix: of.to_hex(), devices: None, reply });
    assert!(looked <= 10, "a campaign looks at {looked}");

    let (looked, bases) =
        looked_at(&host, |reply| Question::Bases { prefix: release_id.clone(), group: None, reply });
    assert_eq!(bases.devices, 19_980);
    assert!(looked <= 10, "bases look at {looked}");

    for (state, shown) in [(None, 50), (Some(Listed::Pending), 20), (Some(Listed::Accepted), 50)] {
        let (looked, devices) = looked_at(&host, |reply| Question::Devices { state, page: page(), reply });
        assert_eq!(devices.devices.len(), shown);
        assert!(looked <= 80, "{state:?} looks at {looked}");
    }
}
