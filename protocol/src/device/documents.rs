//! Signed documents: who signed, for whom, and whether it is newer than what is known (SPEC section 4).
//!
//! A document counts only when its highest version has been stored durably: taking it changes the record, and nothing
//! is decided before the record is saved.

use alloc::vec::Vec;

use super::context::Context;
use super::event::{Event, Reason};
use super::record::{Record, Scope, ScopeVersion};
use super::timer::{Timer, Timers};
use crate::codec::DecodeError;
use crate::cose::{Kind, Sign1};
use crate::ids::{ClassId, Digest, GroupName};
use crate::limits::{GROUPS_MAX, SCOPES_MAX};
use crate::message::{Assignment, Beacon, Campaign, HelloAnswer, Order, Validity, group_hash};
use crate::time::UnixTime;
use crate::topic::Channel;
use crate::trust::{Role, Root};

/// The documents that are in force, parsed. Their bytes are in the record.
#[derive(Debug)]
pub(super) struct Documents {
    pub(super) root: Root,
    pub(super) assignment: Option<Assignment>,
    pub(super) campaigns: Vec<Campaign>,
    /// When the last beacon expires.
    beacon_expires: Option<UnixTime>,
    /// [`Event::Stale`] was told since the last beacon came.
    stale: bool,
}

/// What a document that was accepted means for the link.
#[derive(Debug)]
pub(super) enum Taken {
    /// Nothing: it was here before. Its bytes may count as not asked for.
    Known,
    /// It answers a hello, if it has the right nonce.
    Answer(HelloAnswer),
    /// An assignment or a campaign: perhaps the last document that was missing. `Some` if the service should soon be
    /// asked for what it names.
    Order { ask_within_ms: Option<u64> },
    /// A beacon. `Some` if the service should soon be asked for what it announces.
    Beacon { ask_within_ms: Option<u64> },
}

/// How soon the service learns, from a hello, that the device is in a group of which it has no campaign yet.
const NEW_GROUP_MS: u64 = 1000;
/// How soon to ask for what a beacon announces. It may be on its way on the group's topic already.
const ANNOUNCED_MS: u64 = 5000;

impl Documents {
    /// Reads the documents of a saved record. What its root does not vouch for is left out.
    pub(super) fn of(record: &Record, root: Root) -> Self {
        let assignment = record.assignment.as_deref().and_then(|bytes| {
            let object = Sign1::decode(bytes).ok()?;
            Assignment::decode(root.verify_object(Role::Campaign, Kind::Assignment, &object).ok()?).ok()
        });
        let campaigns = record.campaigns.iter().filter_map(|(_, bytes)| {
            let object = Sign1::decode(bytes).ok()?;
            Campaign::decode(root.verify_object(Role::Campaign, Kind::Campaign, &object).ok()?).ok()
        });
        Self { campaigns: campaigns.collect(), root, assignment, beacon_expires: None, stale: false }
    }

    /// The device's groups.
    pub(super) fn groups(&self) -> &[GroupName] {
        self.assignment.as_ref().map_or(&[], |assignment| &assignment.groups)
    }

    /// A signed document arrived on `channel`.
    ///
    /// # Errors
    /// Why it is not accepted.
    pub(super) fn take(
        &mut self,
        cx: &mut Context,
        channel: &Channel,
        bytes: &[u8],
    ) -> Result<Taken, Reason> {
        let object = Sign1::decode(bytes).map_err(Reason::Malformed)?;
        let unknown = DecodeError::value("kind of document");
        let kind = object.claimed_kind().ok_or(Reason::Malformed(unknown))?;
        let role = match (kind, channel) {
            (Kind::Answer, Channel::Answers) | (Kind::Beacon, Channel::Answers | Channel::Beacon) => {
                Role::Beacon
            }
            (Kind::Assignment, Channel::Answers | Channel::Assignment)
            | (Kind::Campaign, Channel::Answers | Channel::Group(_)) => Role::Campaign,
            _ => return Err(Reason::WrongChannel),
        };
        let payload = self.root.verify_object(role, kind, &object).map_err(Reason::Unauthentic)?;
        match kind {
            Kind::Answer => HelloAnswer::decode(payload).map_err(Reason::Malformed).map(Taken::Answer),
            Kind::Assignment => self.take_assignment(cx, channel, bytes, payload),
            Kind::Campaign => self.take_campaign(cx, channel, bytes, payload),
            Kind::Beacon => self.take_beacon(cx, channel, payload),
            Kind::Root | Kind::Report | Kind::Enrolment => Err(Reason::WrongChannel),
        }
    }

    fn take_assignment(
        &mut self,
        cx: &mut Context,
        channel: &Channel,
        bytes: &[u8],
        payload: &[u8],
    ) -> Result<Taken, Reason> {
        let assignment = Assignment::decode(payload).map_err(Reason::Malformed)?;
        if assignment.prefix != cx.config.prefix || assignment.device != cx.config.device {
            return Err(Reason::WrongScope);
        }
        if !is_news(cx.record(), &Scope::Assignment, &assignment.validity, payload)? {
            return Ok(Taken::Known);
        }
        self.enter(cx, channel, Scope::Assignment, assignment.validity.version, payload);
        let groups = &assignment.groups;
        self.campaigns.retain(|campaign| groups.contains(&campaign.group));
        let floor = assignment.order.as_ref().map_or(0, |order| floor_of(order, cx.config.class));
        cx.change(|record| {
            record.assignment = Some(bytes.to_vec());
            record.campaigns.retain(|(group, _)| groups.contains(group));
            record.min_sequence = record.min_sequence.max(floor);
        });
        // Of new groups nothing is known yet: the service learns of it from the next hello.
        let unheard = groups.iter().any(|group| cx.record().version_of(&Scope::Group(group.clone())) == 0);
        self.assignment = Some(assignment);
        let ask = unheard && *channel == Channel::Assignment;
        Ok(Taken::Order { ask_within_ms: ask.then_some(NEW_GROUP_MS) })
    }

    fn take_campaign(
        &mut self,
        cx: &mut Context,
        channel: &Channel,
        bytes: &[u8],
        payload: &[u8],
    ) -> Result<Taken, Reason> {
        let campaign = Campaign::decode(payload).map_err(Reason::Malformed)?;
        let on_its_topic = match channel {
            Channel::Group(group) => *group == campaign.group,
            _ => true,
        };
        let mine = self.groups().contains(&campaign.group);
        if campaign.prefix != cx.config.prefix || !on_its_topic || !mine {
            return Err(Reason::WrongScope);
        }
        let scope = Scope::Group(campaign.group.clone());
        if !is_news(cx.record(), &scope, &campaign.validity, payload)? {
            return Ok(Taken::Known);
        }
        self.enter(cx, channel, scope, campaign.validity.version, payload);
        let floor = floor_of(&campaign.order, cx.config.class);
        cx.change(|record| {
            record.campaigns.retain(|(group, _)| *group != campaign.group);
            record.campaigns.push((campaign.group.clone(), bytes.to_vec()));
            record.min_sequence = record.min_sequence.max(floor);
        });
        debug_assert!(
            cx.record().campaigns.len() <= GROUPS_MAX,
            "a campaign is taken for a group of ours only"
        );
        self.campaigns.retain(|other| other.group != campaign.group);
        self.campaigns.push(campaign);
        Ok(Taken::Order { ask_within_ms: None })
    }

    fn take_beacon(&mut self, cx: &mut Context, channel: &Channel, payload: &[u8]) -> Result<Taken, Reason> {
        let beacon = Beacon::decode(payload).map_err(Reason::Malformed)?;
        if beacon.prefix != cx.config.prefix {
            return Err(Reason::WrongScope);
        }
        if !is_news(cx.record(), &Scope::Beacon, &beacon.validity, payload)? {
            return Ok(Taken::Known);
        }
        self.enter(cx, channel, Scope::Beacon, beacon.validity.version, payload);
        self.beacon_expires = Some(beacon.validity.expires);
        self.stale = false;
        let behind = self.groups().iter().any(|group| {
            let held = cx.record().version_of(&Scope::Group(group.clone()));
            let hash = group_hash(group);
            beacon.groups.iter().any(|(other, version)| *other == hash && *version > held)
        });
        let ask = behind || beacon.root > self.root.version;
        Ok(Taken::Beacon { ask_within_ms: ask.then_some(ANNOUNCED_MS) })
    }

    /// Enters the highest version of a scope. The times in a document set no clock: a service whose clock was wrong
    /// for a moment would otherwise have spoiled every later document, for good.
    fn enter(&self, cx: &mut Context, channel: &Channel, scope: Scope, version: u64, payload: &[u8]) {
        let entry = ScopeVersion { scope, version, payload: Digest::of(payload).short() };
        cx.change(|record| {
            record.scopes.retain(|known| known.scope != entry.scope);
            make_room(record, self.groups());
            record.scopes.push(entry);
        });
        cx.tell(Event::DocumentTaken { channel: channel.clone(), version });
    }

    /// The last beacon has expired. The event is told once for each beacon.
    pub(super) fn beacon_expired(&mut self, cx: &mut Context) {
        self.stale = true;
        cx.tell(Event::Stale);
    }

    pub(super) fn set_timers(&self, cx: &Context, timers: &mut Timers) {
        let expires = self.beacon_expires.filter(|_| !self.stale);
        timers.set(Timer::BeaconExpiry, expires.and_then(|expires| cx.when(expires)));
    }
}

/// Whether a document is newer than what is known in its scope.
///
/// # Errors
/// [`Reason::Rollback`] if it is older, [`Reason::Equivocation`] if it says something else with the same version.
fn is_news(record: &Record, scope: &Scope, validity: &Validity, payload: &[u8]) -> Result<bool, Reason> {
    let Some(known) = record.scopes.iter().find(|known| known.scope == *scope) else {
        return Ok(true);
    };
    if validity.version > known.version {
        Ok(true)
    } else if validity.version < known.version {
        Err(Reason::Rollback { got: validity.version, known: known.version })
    } else if Digest::of(payload).short() == known.payload {
        Ok(false)
    } else {
        Err(Reason::Equivocation { version: validity.version })
    }
}

/// What an order withdraws: releases of the device's class below this sequence number.
fn floor_of(order: &Order, class: ClassId) -> u64 {
    if order.class == class { order.min_sequence } else { 0 }
}

/// Forgets the version of a group that the device has left, if the list is full.
fn make_room(record: &mut Record, mine: &[GroupName]) {
    if record.scopes.len() < SCOPES_MAX {
        return;
    }
    let left = record
        .scopes
        .iter()
        .position(|known| matches!(&known.scope, Scope::Group(group) if !mine.contains(group)));
    record.scopes.remove(left.unwrap_or(0));
}
