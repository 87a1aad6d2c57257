//! A change on its way: decided, signed, in force. And who waits for it.

use alloc::sync::Arc;

use bytes::Bytes;
use whimbrel_api as api;
use whimbrel_protocol::ids::{CampaignId, DeviceId, Digest, Prefix};
use whimbrel_protocol::message::{self, Assignment, Validity};
use whimbrel_protocol::time::UnixTime;

use super::Denied;
use super::command::Reply;
use super::views::CampaignView;
use crate::catalog::Release;
use crate::registry::Admission;
use crate::signing::Authority;
use crate::store::{CampaignRow, Change, Device, PayloadRow, Phase, StoreError};

/// A change that was decided.
pub(super) enum Decision {
    Release(Box<Release>),
    Payload(PayloadRow),
    /// A document of a campaign, which may be new, with the beacon that names it.
    Campaign {
        document: Box<message::Campaign>,
        created: UnixTime,
        life_s: u64,
        beacon: message::Beacon,
    },
    /// Devices to accept, or to give other groups.
    Admit(Vec<Admission>),
    Reset(Box<Device>),
    Beacon(message::Beacon),
}

/// A change that is signed.
pub(super) enum Signed {
    Release(Box<Release>),
    Payload(PayloadRow),
    Campaign { document: Box<message::Campaign>, row: CampaignRow, beacon: (message::Beacon, Bytes) },
    Devices(Vec<Device>),
    Reset(Box<Device>),
    Beacon((message::Beacon, Bytes)),
}

/// Who waits for a change.
pub(super) enum Waiter {
    Nobody,
    Release(Digest, Reply<api::Release>),
    Campaign(CampaignId, Reply<CampaignView>),
    Done(Reply<()>),
    Device(DeviceId, Reply<api::Device>),
    Import(api::Imported, Reply<api::Imported>),
}

/// What became of a change.
pub(super) struct Outcome {
    pub(super) stored: Result<Signed, Arc<StoreError>>,
    pub(super) waiter: Waiter,
}

/// What a document of the service's own says beside its content.
pub(super) struct Letterhead {
    pub(super) prefix: Prefix,
    pub(super) root_version: u64,
    pub(super) today: UnixTime,
}

/// How long an assignment is good for: groups do not expire, and a new one is signed with every change.
const ASSIGNMENT_LIFE_S: u64 = 10 * 365 * 24 * 3600;

impl Decision {
    pub(super) fn campaign(&self) -> Option<CampaignId> {
        match self {
            Self::Campaign { document, .. } => Some(document.order.campaign),
            _ => None,
        }
    }

    /// Signs what is to be signed. Takes a while for long lists.
    pub(super) fn sign(self, authority: &Authority, letterhead: &Letterhead) -> Signed {
        match self {
            Self::Release(release) => Signed::Release(release),
            Self::Payload(row) => Signed::Payload(row),
            Self::Campaign { document, created, life_s, beacon } => {
                let phase = match document.order.state {
                    message::CampaignState::Active => Phase::Active,
                    message::CampaignState::Aborted => Phase::Aborted,
                };
                let (id, signed) = (document.order.campaign, authority.campaign(&document));
                let row = CampaignRow { id, phase, created, life_s, document: signed };
                let beacon_signed = authority.beacon(&beacon);
                Signed::Campaign { document, row, beacon: (beacon, beacon_signed) }
            }
            Self::Admit(admissions) => {
                let sign = |admission: Admission| {
                    let assignment = authority.assignment(&letterhead.assignment(&admission));
                    admission.into_device(assignment)
                };
                Signed::Devices(admissions.into_iter().map(sign).collect())
            }
            Self::Reset(device) => Signed::Reset(device),
            Self::Beacon(beacon) => {
                let signed = authority.beacon(&beacon);
                Signed::Beacon((beacon, signed))
            }
        }
    }
}

impl Signed {
    pub(super) fn changes(&self) -> Vec<Change> {
        let beacon = |beacon: &message::Beacon| Change::Beacon {
            version: beacon.validity.version,
            issued: beacon.validity.issued,
        };
        match self {
            Self::Release(release) => Vec::from([Change::Release(release.row())]),
            Self::Payload(row) => Vec::from([Change::Payload(*row)]),
            Self::Campaign { row, beacon: (named, _), .. } => {
                Vec::from([Change::Campaign(row.clone()), beacon(named)])
            }
            Self::Devices(devices) => devices.iter().cloned().map(Change::Device).collect(),
            Self::Reset(device) => Vec::from([Change::Device((**device).clone())]),
            Self::Beacon((named, _)) => Vec::from([beacon(named)]),
        }
    }
}

impl Letterhead {
    fn assignment(&self, admission: &Admission) -> Assignment {
        Assignment {
            prefix: self.prefix.clone(),
            device: admission.device.clone(),
            validity: Validity {
                version: admission.version,
                issued: self.today,
                expires: self.today.plus_secs(ASSIGNMENT_LIFE_S),
            },
            groups: admission.groups.clone(),
            root: self.root_version,
            order: None,
        }
    }
}

impl Waiter {
    pub(super) fn disappoint(self, error: Arc<StoreError>) {
        let error = Denied::Store(error);
        match self {
            Self::Nobody => {}
            Self::Release(_, reply) => tell(reply, Err(error)),
            Self::Campaign(_, reply) => tell(reply, Err(error)),
            Self::Done(reply) => tell(reply, Err(error)),
            Self::Device(_, reply) => tell(reply, Err(error)),
            Self::Import(_, reply) => tell(reply, Err(error)),
        }
    }
}

/// Answers, unless nobody waits any more.
pub(super) fn tell<T>(reply: Reply<T>, answer: Result<T, Denied>) {
    let _gone = reply.send(answer);
}
