//! What a device must not forget: one small record, saved whole in two copies (SPEC section 8.7).

use alloc::boxed::Box;
use alloc::vec::Vec;

use crate::codec::{DecodeError, Reader, Writer};
use crate::ids::{CampaignId, GroupName, PayloadTag, ShortDigest};
use crate::limits::{
    GROUP_NAME_MAX, GROUPS_MAX, OUTCOMES_MAX, PATCHES_MAX, RECORD_BYTES_MAX, REPORTS_MAX, ROOT_BYTES_MAX,
    SAID_BYTES_MAX, SCOPES_MAX, SIGNED_BYTES_MAX,
};
use crate::message::{FailureCode, Order, Outcome};

/// Whose versions are counted together.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// This device's assignment.
    Assignment,
    /// The beacon.
    Beacon,
    /// A group's campaign.
    Group(GroupName),
}

/// The highest version seen in one scope, and which document had it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScopeVersion {
    /// The scope.
    pub scope: Scope,
    /// The version.
    pub version: u64,
    /// Digest of the signed payload, shortened.
    pub payload: ShortDigest,
}

/// How far a deployment is, as far as a restart must know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// From the offer to the verified image: everything can be done again.
    Fetching,
    /// The slot holds the verified image; the trial boot is to be armed.
    Installed,
    /// The trial boot is armed.
    Armed,
    /// The trial is given up; the old image is to be started.
    Reverting(FailureCode),
}

/// The one deployment in progress.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deployment {
    /// What was ordered.
    pub order: Order,
    /// How far it is.
    pub stage: Stage,
    /// Times the trial boot was armed.
    pub arms: u32,
    /// Payload bytes received, with everything received twice.
    pub bytes_received: u64,
    /// Of these, the bytes of what had come before (SPEC section 4.8).
    pub bytes_twice: u64,
    /// The end of what a health check or a hook said last; empty for nothing. At most [`SAID_BYTES_MAX`] bytes.
    pub said: Box<str>,
    /// Patches that did not become the image, oldest first: none of them is fetched again. At most
    /// [`PATCHES_MAX`].
    pub given_up: Vec<GivenUp>,
}

/// A patch that did not become the image, with its part of the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GivenUp {
    /// The patch.
    pub payload: PayloadTag,
    /// Bytes of it that were received.
    pub bytes_received: u64,
    /// Of these, the bytes of what had come before.
    pub bytes_twice: u64,
}

/// How one attempt ended here. What ended is not begun again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Past {
    /// Which campaign.
    pub campaign: CampaignId,
    /// Which attempt of it.
    pub attempt: u64,
    /// How it ended.
    pub outcome: Outcome,
    /// Why.
    pub failure: Option<FailureCode>,
}

/// Everything that a device keeps besides images and downloads.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// The pinned root, as signed.
    pub root: Vec<u8>,
    /// The highest version per scope.
    pub scopes: Vec<ScopeVersion>,
    /// The current assignment, as signed.
    pub assignment: Option<Vec<u8>>,
    /// The current campaign of each group, as signed.
    pub campaigns: Vec<(GroupName, Vec<u8>)>,
    /// Releases with a lower sequence number are withdrawn.
    pub min_sequence: u64,
    /// The deployment in progress.
    pub deployment: Option<Deployment>,
    /// How earlier attempts ended, oldest first.
    pub outcomes: Vec<Past>,
    /// Signed reports not acknowledged yet, oldest first.
    pub reports: Vec<Vec<u8>>,
    /// The number of the next report.
    pub next_report: u64,
}

/// Versions of this format; a reader takes those it knows.
///
/// The second one adds the patches that were given up, and is written while there are any: whoever goes back to an
/// agent that does not know it has then given up none.
const FORMAT: u64 = 1;
const FORMAT_GIVEN_UP: u64 = 2;

impl Record {
    /// The bytes to save.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        let given_up = self.deployment.as_ref().is_some_and(|deployment| !deployment.given_up.is_empty());
        let format = if given_up { FORMAT_GIVEN_UP } else { FORMAT };
        writer.array(10).uint(format).bytes(&self.root);
        writer.array(self.scopes.len());
        for scope in &self.scopes {
            writer.array(3);
            write_scope(&mut writer, &scope.scope);
            writer.uint(scope.version).bytes(&scope.payload.0);
        }
        writer.bytes_or_null(self.assignment.as_deref());
        writer.array(self.campaigns.len());
        for (group, bytes) in &self.campaigns {
            writer.array(2).text(group.as_str()).bytes(bytes);
        }
        writer.uint(self.min_sequence);
        match &self.deployment {
            Some(deployment) => deployment.write(&mut writer),
            None => {
                writer.null();
            }
        }
        writer.array(self.outcomes.len());
        for past in &self.outcomes {
            writer.array(4).bytes(&past.campaign.0).uint(past.attempt).uint(past.outcome as u64);
            writer.uint(past.failure.map_or(0, |code| code as u64));
        }
        writer.array(self.reports.len());
        self.reports.iter().for_each(|report| {
            writer.bytes(report);
        });
        writer.uint(self.next_report);
        writer.into_bytes()
    }

    /// Reads saved bytes.
    ///
    /// # Errors
    /// Any [`DecodeError`]; [`DecodeError::Version`] for a format of a later version.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let reader = &mut Reader::new("record", bytes, RECORD_BYTES_MAX)?;
        reader.array_of("record", 10)?;
        let format = reader.uint("record format")?;
        if ![FORMAT, FORMAT_GIVEN_UP].contains(&format) {
            return Err(DecodeError::version(u8::try_from(format).unwrap_or(u8::MAX)));
        }
        let root = reader.bytes("root", ROOT_BYTES_MAX)?.to_vec();
        let scopes = list(reader, "scopes", SCOPES_MAX, |reader| {
            reader.array_of("scope version", 3)?;
            let scope = read_scope(reader)?;
            let version = reader.uint("version")?;
            Ok(ScopeVersion { scope, version, payload: ShortDigest(reader.byte_array("payload digest")?) })
        })?;
        let assignment = if reader.is_null()? {
            None
        } else {
            Some(reader.bytes("assignment", SIGNED_BYTES_MAX)?.to_vec())
        };
        let campaigns = list(reader, "campaigns", GROUPS_MAX, |reader| {
            reader.array_of("campaign", 2)?;
            let group = read_group(reader)?;
            Ok((group, reader.bytes("campaign", SIGNED_BYTES_MAX)?.to_vec()))
        })?;
        let min_sequence = reader.uint("minimum sequence")?;
        let deployment = if reader.is_null()? { None } else { Some(Deployment::read(reader, format)?) };
        if format == FORMAT_GIVEN_UP && deployment.is_none() {
            return Err(DecodeError::value("record format"));
        }
        let outcomes = list(reader, "outcomes", OUTCOMES_MAX, |reader| {
            reader.array_of("outcome", 4)?;
            let campaign = CampaignId(reader.byte_array("campaign")?);
            let attempt = reader.uint("attempt")?;
            let outcome = Outcome::from_number(reader.uint("outcome")?);
            let outcome = outcome.ok_or(DecodeError::value("outcome"))?;
            let failure = FailureCode::from_number(reader.uint("failure")?);
            Ok(Past { campaign, attempt, outcome, failure })
        })?;
        let reports = list(reader, "reports", REPORTS_MAX, |reader| {
            Ok(reader.bytes("report", SIGNED_BYTES_MAX)?.to_vec())
        })?;
        let next_report = reader.uint("next report")?;
        reader.finish()?;
        Ok(Self {
            root,
            scopes,
            assignment,
            campaigns,
            min_sequence,
            deployment,
            outcomes,
            reports,
            next_report,
        })
    }

    /// The highest version seen in `scope`; 0 for none.
    #[must_use]
    pub fn version_of(&self, scope: &Scope) -> u64 {
        self.scopes.iter().find(|known| known.scope == *scope).map_or(0, |known| known.version)
    }

    /// How the attempt ended here, if it did.
    #[must_use]
    pub fn outcome_of(&self, campaign: CampaignId, attempt: u64) -> Option<&Past> {
        self.outcomes.iter().find(|past| past.campaign == campaign && past.attempt >= attempt)
    }

    /// Remembers how an attempt ended; the oldest memory makes room.
    pub(crate) fn remember(&mut self, past: Past) {
        self.outcomes.retain(|other| other.campaign != past.campaign);
        if self.outcomes.len() >= OUTCOMES_MAX {
            self.outcomes.remove(0);
        }
        self.outcomes.push(past);
    }
}

impl Deployment {
    /// A deployment that begins.
    #[must_use]
    pub fn new(order: Order, stage: Stage) -> Self {
        Self {
            order,
            stage,
            arms: 0,
            bytes_received: 0,
            bytes_twice: 0,
            said: Box::default(),
            given_up: Vec::new(),
        }
    }

    /// The part of the ledger that patches have which were given up: bytes received, and received twice.
    #[must_use]
    pub fn spent(&self) -> (u64, u64) {
        self.given_up.iter().fold((0, 0), |(received, twice): (u64, u64), patch| {
            (received.saturating_add(patch.bytes_received), twice.saturating_add(patch.bytes_twice))
        })
    }

    fn write(&self, writer: &mut Writer) {
        let (stage, code) = match self.stage {
            Stage::Fetching => (0, 0),
            Stage::Installed => (1, 0),
            Stage::Armed => (2, 0),
            Stage::Reverting(code) => (3, code as u64),
        };
        writer.array(6 + usize::from(!self.said.is_empty()) + usize::from(!self.given_up.is_empty()));
        self.order.write(writer);
        writer.uint(stage).uint(code).uint(self.arms.into()).uint(self.bytes_received).uint(self.bytes_twice);
        if !self.said.is_empty() {
            writer.text(&self.said);
        }
        if !self.given_up.is_empty() {
            writer.array(self.given_up.len());
            for patch in &self.given_up {
                writer.array(3).bytes(&patch.payload.0);
                writer.uint(patch.bytes_received).uint(patch.bytes_twice);
            }
        }
    }

    fn read(reader: &mut Reader<'_>, format: u64) -> Result<Self, DecodeError> {
        let least = if format == FORMAT { 6 } else { 7 };
        let parts = reader.array("deployment", least + 1)?;
        if parts < least {
            return Err(DecodeError::value("deployment"));
        }
        let order = Order::read(reader)?;
        let stage = reader.uint("stage")?;
        let code = reader.uint("failure")?;
        let stage = match stage {
            0 => Stage::Fetching,
            1 => Stage::Installed,
            2 => Stage::Armed,
            3 => Stage::Reverting(FailureCode::from_number(code).ok_or(DecodeError::value("failure"))?),
            _ => return Err(DecodeError::value("stage")),
        };
        let arms = reader.u32("arms")?;
        let bytes_received = reader.uint("bytes received")?;
        let bytes_twice = reader.uint("bytes received twice")?;
        let said = if parts > least { read_said(reader)? } else { Box::default() };
        let given_up = if format == FORMAT { Vec::new() } else { read_given_up(reader)? };
        Ok(Self { order, stage, arms, bytes_received, bytes_twice, said, given_up })
    }
}

/// What a health check said. It is left out if it said nothing.
fn read_said(reader: &mut Reader<'_>) -> Result<Box<str>, DecodeError> {
    let said = reader.text("what was said", SAID_BYTES_MAX)?;
    if said.is_empty() { Err(DecodeError::value("what was said")) } else { Ok(Box::from(said)) }
}

fn read_given_up(reader: &mut Reader<'_>) -> Result<Vec<GivenUp>, DecodeError> {
    let given_up = list(reader, "patches given up", PATCHES_MAX, |reader| {
        reader.array_of("patch given up", 3)?;
        Ok(GivenUp {
            payload: PayloadTag(reader.byte_array("payload tag")?),
            bytes_received: reader.uint("bytes received")?,
            bytes_twice: reader.uint("bytes received twice")?,
        })
    })?;
    // Without any, the first format is the only one.
    if given_up.is_empty() { Err(DecodeError::value("patches given up")) } else { Ok(given_up) }
}

fn write_scope(writer: &mut Writer, scope: &Scope) {
    match scope {
        Scope::Assignment => writer.uint(0),
        Scope::Beacon => writer.uint(1),
        Scope::Group(group) => writer.text(group.as_str()),
    };
}

fn read_scope(reader: &mut Reader<'_>) -> Result<Scope, DecodeError> {
    if reader.peek()? == crate::codec::Item::Text {
        return read_group(reader).map(Scope::Group);
    }
    match reader.uint("scope")? {
        0 => Ok(Scope::Assignment),
        1 => Ok(Scope::Beacon),
        _ => Err(DecodeError::value("scope")),
    }
}

fn read_group(reader: &mut Reader<'_>) -> Result<GroupName, DecodeError> {
    GroupName::new(reader.text("group", GROUP_NAME_MAX)?).map_err(|_| DecodeError::value("group"))
}

fn list<'b, T>(
    reader: &mut Reader<'b>,
    what: &'static str,
    most: usize,
    read: impl FnMut(&mut Reader<'b>) -> Result<T, DecodeError>,
) -> Result<Vec<T>, DecodeError> {
    reader.list(what, most, read)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Outcome;

    #[test]
    fn the_last_attempt_of_each_of_the_last_campaigns_is_remembered() {
        let mut record = Record::default();
        let past = |campaign: u8, attempt| {
            let campaign = CampaignId([campaign; 8]);
            Past { campaign, attempt, outcome: Outcome::Failed, failure: None }
        };
        for campaign in 1..=17 {
            record.remember(past(campaign, 1));
            record.remember(past(campaign, 2));
        }
        let kept: Vec<_> = record.outcomes.iter().map(|past| (past.campaign.0[0], past.attempt)).collect();
        let want: Vec<_> = (2..=17).map(|campaign| (campaign, 2)).collect();
        assert_eq!(kept, want);
        assert!(record.outcome_of(CampaignId([9; 8]), 2).is_some());
        assert!(record.outcome_of(CampaignId([9; 8]), 3).is_none());
    }
}
