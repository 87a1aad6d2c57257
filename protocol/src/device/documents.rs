//! Signed documents: who signed, for whom, and whether it is newer than what is known (SPEC section 4).
//!
//! A document counts only when its highest version has been stored durably: [`DeviceSession::change`] enters
//! it into the record, and nothing is decided before the record is saved.

use alloc::vec::Vec;

use super::io::{Event, Reason};
use super::record::{Scope, ScopeVersion};
use super::{DeviceSession, Record};
use crate::codec::DecodeError;
use crate::cose::{Kind, Sign1};
use crate::ids::{Digest, GroupName};
use crate::limits::{GROUPS_MAX, SCOPES_MAX};
use crate::message::{Assignment, Beacon, Campaign, HelloAnswer, Order, Validity, group_hash};
use crate::time::{Instant, UnixTime};
use crate::topic::Channel;
use crate::trust::{Role, Root};

/// The documents that are in force, parsed. Their bytes are in the record.
#[derive(Debug, Default)]
pub(super) struct Documents {
    pub(super) assignment: Option<Assignment>,
    pub(super) campaigns: Vec<Campaign>,
    /// When the last beacon expires.
    beacon_expires: Option<UnixTime>,
    /// That it expired was told.
    stale: bool,
}

/// The first bytes of a SUIT envelope: tag 107.
const ENVELOPE_TAG: [u8; 2] = [0xd8, 0x6b];

impl DeviceSession {
    /// A signed object arrived on `channel`.
    pub(super) fn signed(&mut self, channel: Channel, object: &[u8]) {
        if object.starts_with(&ENVELOPE_TAG) {
            if channel == Channel::Answers {
                return self.envelope(object);
            }
            return self.unsolicited(channel, object.len(), Reason::WrongChannel);
        }
        if let Err(reason) = self.document(&channel, object) {
            self.unsolicited(channel, object.len(), reason);
        }
    }

    fn document(&mut self, channel: &Channel, bytes: &[u8]) -> Result<(), Reason> {
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
            Kind::Answer => {
                let answer = HelloAnswer::decode(payload).map_err(Reason::Malformed)?;
                if answer.device != self.config.device {
                    return Err(Reason::WrongScope);
                }
                self.answered(answer)
            }
            Kind::Assignment => self.take_assignment(channel, bytes, payload),
            Kind::Campaign => self.take_campaign(channel, bytes, payload),
            Kind::Beacon => self.take_beacon(channel, payload),
            Kind::Root | Kind::Report | Kind::Enrolment => Err(Reason::WrongChannel),
        }
    }

    fn take_assignment(&mut self, channel: &Channel, bytes: &[u8], payload: &[u8]) -> Result<(), Reason> {
        let assignment = Assignment::decode(payload).map_err(Reason::Malformed)?;
        if assignment.prefix != self.config.prefix || assignment.device != self.config.device {
            return Err(Reason::WrongScope);
        }
        if !self.is_news(&Scope::Assignment, &assignment.validity, payload)? {
            return Ok(());
        }
        self.enter(channel, Scope::Assignment, &assignment.validity, payload);
        let groups = &assignment.groups;
        self.documents.campaigns.retain(|campaign| groups.contains(&campaign.group));
        let floor = assignment.order.as_ref().map_or(0, |order| self.floor_of(order));
        self.change(|record| {
            record.assignment = Some(bytes.to_vec());
            record.campaigns.retain(|(group, _)| groups.contains(group));
            record.min_sequence = record.min_sequence.max(floor);
        });
        // Of new groups nothing is known yet: the service learns of it from the next hello.
        let unheard = groups.iter().any(|group| self.record.version_of(&Scope::Group(group.clone())) == 0);
        self.documents.assignment = Some(assignment);
        self.compare();
        if unheard && *channel == Channel::Assignment {
            self.hello_within(1000);
        }
        Ok(())
    }

    fn take_campaign(&mut self, channel: &Channel, bytes: &[u8], payload: &[u8]) -> Result<(), Reason> {
        let campaign = Campaign::decode(payload).map_err(Reason::Malformed)?;
        let on_its_topic = match channel {
            Channel::Group(group) => *group == campaign.group,
            _ => true,
        };
        let mine = self.groups().contains(&campaign.group);
        if campaign.prefix != self.config.prefix || !on_its_topic || !mine {
            return Err(Reason::WrongScope);
        }
        let scope = Scope::Group(campaign.group.clone());
        if !self.is_news(&scope, &campaign.validity, payload)? {
            return Ok(());
        }
        self.enter(channel, scope, &campaign.validity, payload);
        let floor = self.floor_of(&campaign.order);
        self.change(|record| {
            record.campaigns.retain(|(group, _)| *group != campaign.group);
            record.campaigns.push((campaign.group.clone(), bytes.to_vec()));
            record.min_sequence = record.min_sequence.max(floor);
        });
        debug_assert!(
            self.record.campaigns.len() <= GROUPS_MAX,
            "a campaign is taken for a group of ours only"
        );
        self.documents.campaigns.retain(|other| other.group != campaign.group);
        self.documents.campaigns.push(campaign);
        self.compare();
        Ok(())
    }

    fn take_beacon(&mut self, channel: &Channel, payload: &[u8]) -> Result<(), Reason> {
        let beacon = Beacon::decode(payload).map_err(Reason::Malformed)?;
        if beacon.prefix != self.config.prefix {
            return Err(Reason::WrongScope);
        }
        if !self.is_news(&Scope::Beacon, &beacon.validity, payload)? {
            return Ok(());
        }
        self.enter(channel, Scope::Beacon, &beacon.validity, payload);
        self.documents.beacon_expires = Some(beacon.validity.expires);
        self.documents.stale = false;
        let behind = self.groups().iter().any(|group| {
            let held = self.record.version_of(&Scope::Group(group.clone()));
            let hash = group_hash(group);
            beacon.groups.iter().any(|(other, version)| *other == hash && *version > held)
        });
        if behind || beacon.root > self.root.version {
            // The news itself may be on its way on the group's topic.
            self.hello_within(5000);
        }
        Ok(())
    }

    /// Whether a document is newer than what is known in its scope.
    ///
    /// # Errors
    /// [`Reason::Rollback`] where it is older, [`Reason::Equivocation`] where it says something else with
    /// the same version.
    fn is_news(&self, scope: &Scope, validity: &Validity, payload: &[u8]) -> Result<bool, Reason> {
        let Some(known) = self.record.scopes.iter().find(|known| known.scope == *scope) else {
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

    /// Enters the highest version of a scope and the time that was signed with it.
    fn enter(&mut self, channel: &Channel, scope: Scope, validity: &Validity, payload: &[u8]) {
        let version = validity.version;
        let entry = ScopeVersion { scope, version, payload: Digest::of(payload).short() };
        self.clock.raise(self.now, validity.issued);
        let issued = validity.issued;
        let mine = self.groups().to_vec();
        self.change(|record| {
            record.scopes.retain(|known| known.scope != entry.scope);
            make_room(record, &mine);
            record.scopes.push(entry);
            record.time = record.time.max(issued);
        });
        self.tell(Event::DocumentTaken { channel: channel.clone(), version });
    }

    /// What an order withdraws: releases of its class below this sequence number.
    fn floor_of(&self, order: &Order) -> u64 {
        if order.class == self.config.class { order.min_sequence } else { 0 }
    }

    /// The device's groups.
    pub(super) fn groups(&self) -> &[GroupName] {
        self.documents.assignment.as_ref().map_or(&[], |assignment| &assignment.groups)
    }

    /// Tells once that no signed news came for longer than the last beacon lives.
    pub(super) fn check_freshness(&mut self) {
        let expired = self.documents.beacon_expires.is_some_and(|expires| self.today() >= expires);
        if expired && !self.documents.stale {
            self.documents.stale = true;
            self.tell(Event::Stale);
        }
    }

    /// When the last beacon expires, where that is still to be told.
    pub(super) fn freshness_timeout(&self) -> Option<Instant> {
        let expires = self.documents.beacon_expires.filter(|_| !self.documents.stale)?;
        let life_s = expires.as_secs().saturating_sub(self.clock.floor.as_secs());
        Some(self.clock.at.plus_millis(life_s.saturating_mul(1000)))
    }

    /// Whether something that expires at `expires` may begin now: judged by the service's clock in an answer
    /// to our own nonce, never by a clock that a broker could hold back.
    pub(super) fn has_expired(&self, expires: UnixTime) -> Option<bool> {
        self.link.answered().map(|time| time.max(self.today()) >= expires)
    }
}

impl Documents {
    /// Reads the documents of a saved record. What its root does not vouch for is left out.
    pub(super) fn of(record: &Record, root: &Root) -> Self {
        let assignment = record.assignment.as_deref().and_then(|bytes| {
            let object = Sign1::decode(bytes).ok()?;
            Assignment::decode(root.verify_object(Role::Campaign, Kind::Assignment, &object).ok()?).ok()
        });
        let campaigns = record.campaigns.iter().filter_map(|(_, bytes)| {
            let object = Sign1::decode(bytes).ok()?;
            Campaign::decode(root.verify_object(Role::Campaign, Kind::Campaign, &object).ok()?).ok()
        });
        Self { campaigns: campaigns.collect(), assignment, beacon_expires: None, stale: false }
    }
}

/// Forgets the version of a group that the device has left, where the list is full.
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
