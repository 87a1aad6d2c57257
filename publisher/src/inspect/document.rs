//! Explains signed objects: `root.cbor`, campaigns, assignments, beacons, hello answers, reports, enrolments.

use whimbrel_protocol::codec::DecodeError;
use whimbrel_protocol::cose::{Kind, PublicKey, Sign1, SignatureError, Signatures};
use whimbrel_protocol::ids::KeyId;
use whimbrel_protocol::message::{
    Assignment, Beacon, Campaign, CampaignState, Enrolment, FailureCode, GroupVersion, HelloAnswer, Order,
    Policy, Report, Validity,
};
use whimbrel_protocol::trust::{Role, Root};

use super::Explained;
use crate::keys::{algorithm_name, describe};
use crate::output::{Fields, Value};

/// Explains a COSE_Sign1.
pub(super) fn explain(bytes: &[u8], root: Option<&Root>) -> Explained {
    let sign1 = match Sign1::decode(bytes) {
        Ok(sign1) => sign1,
        Err(error) => return Explained::of::<DecodeError>("signed object", Err(error)),
    };
    let Some(kind) = sign1.claimed_kind() else {
        return Explained::of::<DecodeError>("signature of a release", Ok(signature(&sign1)));
    };
    let Some(payload) = sign1.unverified_payload() else {
        let reason = "signed object must have its payload attached".into();
        return Explained::Refused { kind: name(kind), reason };
    };
    let fields = match kind {
        Kind::Campaign => Campaign::decode(payload).map(|document| campaign(&document)),
        Kind::Assignment => Assignment::decode(payload).map(|document| assignment(&document)),
        Kind::Beacon => Beacon::decode(payload).map(|document| beacon(&document)),
        Kind::Answer => HelloAnswer::decode(payload).map(|document| answer(&document)),
        Kind::Report => Report::decode(payload).map(|document| report(&document)),
        Kind::Enrolment => Enrolment::decode(payload).map(|document| enrolment(&document)),
        Kind::Root => Err(DecodeError::Kind { got: kind.number() }),
    };
    let fields = fields.map(|mut fields| {
        let mut of = signature(&sign1);
        of.add("verified", verdict(&sign1, kind, payload, root));
        fields.add("signature", of);
        fields
    });
    Explained::of(name(kind), fields)
}

const fn name(kind: Kind) -> &'static str {
    match kind {
        Kind::Root => "root",
        Kind::Campaign => "campaign",
        Kind::Assignment => "assignment",
        Kind::Beacon => "beacon",
        Kind::Answer => "hello answer",
        Kind::Report => "report",
        Kind::Enrolment => "enrolment",
    }
}

fn signature(sign1: &Sign1<'_>) -> Fields {
    Fields::new()
        .with("algorithm", sign1.algorithm_number().map(number_name))
        .with("key_id", sign1.key_id().map(hex::encode))
}

/// The algorithm with this number, in words.
pub(super) fn number_name(number: i64) -> String {
    match number {
        -7 => "es256 (deprecated)".into(),
        -9 => "esp256".into(),
        -19 => "ed25519".into(),
        other => format!("{other} (not in the profile)"),
    }
}

/// Says who signed, as far as the root or the object itself tells.
fn verdict(sign1: &Sign1<'_>, kind: Kind, payload: &[u8], root: Option<&Root>) -> String {
    let by_role = |role: Role| match root.map(|root| root.verify_object(role, kind, sign1)) {
        None => "not checked: no root given".into(),
        Some(Ok(_)) => format!("yes, by a {} key of the root", role.name()),
        Some(Err(error)) => format!("no: {error}"),
    };
    match kind {
        Kind::Campaign | Kind::Assignment => by_role(Role::Campaign),
        Kind::Beacon | Kind::Answer => by_role(Role::Beacon),
        Kind::Enrolment => match Enrolment::decode(payload) {
            Ok(enrolment) => own(sign1, kind, &enrolment.key),
            Err(error) => format!("no: {error}"),
        },
        Kind::Report => "not checked: the device's key is not at hand".into(),
        Kind::Root => "no".into(),
    }
}

fn own(sign1: &Sign1<'_>, kind: Kind, key: &PublicKey) -> String {
    match sign1.verify_attached(kind, key) {
        Ok(_) => "yes, by the key that it names".into(),
        Err(error) => format!("no: {error}"),
    }
}

fn validity(validity: &Validity) -> Fields {
    Fields::new()
        .with("document_version", Value::Count(validity.version))
        .with("issued", validity.issued)
        .with("expires", validity.expires)
}

fn campaign(document: &Campaign) -> Fields {
    let mut fields =
        Fields::new().with("prefix", document.prefix.as_str()).with("group", document.group.as_str());
    fields.extend(validity(&document.validity));
    fields.with("order", order(&document.order))
}

fn assignment(document: &Assignment) -> Fields {
    let mut fields =
        Fields::new().with("prefix", document.prefix.as_str()).with("device", document.device.as_str());
    fields.extend(validity(&document.validity));
    let groups: Vec<Value> = document.groups.iter().map(|group| group.as_str().into()).collect();
    fields
        .with("groups", groups)
        .with("root_version", Value::Count(document.root))
        .with("order", document.order.as_ref().map(order))
}

fn beacon(document: &Beacon) -> Fields {
    let mut fields = Fields::new().with("prefix", document.prefix.as_str());
    fields.extend(validity(&document.validity));
    let groups = document.groups.iter().map(|(group, version)| {
        Value::Fields(
            Fields::new().with("group_hash", group.to_hex()).with("version", Value::Count(*version)),
        )
    });
    fields.with("groups", groups.collect::<Vec<_>>()).with("root_version", Value::Count(document.root))
}

fn answer(document: &HelloAnswer) -> Fields {
    Fields::new()
        .with("echo", document.echo.to_hex())
        .with("time", document.time)
        .with("root_version", Value::Count(document.root))
        .with("assignment_version", Value::Count(document.assignment))
        .with("groups", groups(&document.groups))
        .with("report_acknowledged", document.report.map(|digest| digest.to_hex()))
        .with("accepted_key", hex::encode(document.key.0))
}

/// Groups with the versions of their campaigns.
pub(super) fn groups(groups: &[GroupVersion]) -> Vec<Value> {
    groups.iter().map(|group| format!("{} (version {})", group.group, group.version).into()).collect()
}

fn report(document: &Report) -> Fields {
    Fields::new()
        .with("device", document.device.as_str())
        .with("number", Value::Count(document.number))
        .with("campaign", document.campaign.to_hex())
        .with("attempt", Value::Count(document.attempt))
        .with("release", document.release.to_hex())
        .with("outcome", document.outcome.name())
        .with("failure", document.failure.map(FailureCode::name))
        .with("said", (!document.said.is_empty()).then_some(document.said.as_str()))
        .with("running", document.running.to_hex())
        .with("sequence", Value::Count(document.sequence))
        .with("time", document.time)
        .with("bytes_received", Value::Bytes(document.bytes_received))
        .with("bytes_twice", Value::Bytes(document.bytes_twice))
}

fn enrolment(document: &Enrolment) -> Fields {
    Fields::new()
        .with("device", document.device.as_str())
        .with("class_id", document.class.to_hex())
        .with("key", describe(&document.key))
}

/// Explains the order of a campaign or an assignment.
pub(super) fn order(order: &Order) -> Fields {
    let state = match order.state {
        CampaignState::Active => "active",
        CampaignState::Aborted => "aborted",
    };
    let policy = match order.policy {
        Policy::Soft => "soft",
        Policy::Forced => "forced",
        Policy::DownloadOnly => "download-only",
    };
    Fields::new()
        .with("campaign", order.campaign.to_hex())
        .with("attempt", Value::Count(order.attempt))
        .with("state", state)
        .with("release", order.release.to_hex())
        .with("sequence", Value::Count(order.sequence))
        .with("envelope_size", Value::Bytes(order.envelope_size))
        .with("image_size", Value::Bytes(order.image_size))
        .with("min_sequence", Value::Count(order.min_sequence))
        .with("class_id", order.class.to_hex())
        .with("not_before", order.not_before)
        .with("spread_s", Value::Seconds(order.spread_s))
        .with("policy", policy)
        .with("priority", Value::Count(order.priority))
}

/// Explains `root.cbor`.
pub(super) fn explain_root(bytes: &[u8]) -> Explained {
    Explained::of("root", Root::verify(bytes).map(|root| describe_root(&root, bytes)))
}

fn describe_root(root: &Root, bytes: &[u8]) -> Fields {
    let roles = Role::ALL.map(|role| {
        let of = root.role(role);
        let keys = of.keys.iter().map(|key| Value::Fields(brief(key))).collect::<Vec<_>>();
        Value::Fields(
            Fields::new()
                .with("role", role.name())
                .with("threshold", of.threshold)
                .with("epoch", Value::Count(of.epoch))
                .with("keys", keys),
        )
    });
    Fields::new()
        .with("version", Value::Count(root.version))
        .with("issued", root.issued)
        .with("expires", root.expires)
        .with("signed_by", signers(root, bytes).into_iter().map(|id| id.to_hex().into()).collect::<Vec<_>>())
        .with("roles", roles.to_vec())
}

fn brief(key: &PublicKey) -> Fields {
    Fields::new()
        .with("id", key.id().to_hex())
        .with("algorithm", algorithm_name(key.algorithm()))
        .with("fingerprint", key.fingerprint().to_string())
}

/// The root keys that signed the root.
fn signers(root: &Root, bytes: &[u8]) -> Vec<KeyId> {
    let signed = |key: &&PublicKey| -> Result<bool, SignatureError> {
        Ok(Signatures::decode(bytes)?.count(Kind::Root, core::iter::once(*key))? == 1)
    };
    let keys = root.role(Role::Root).keys.iter();
    keys.filter(|key| signed(key).unwrap_or(false)).map(PublicKey::id).collect()
}
