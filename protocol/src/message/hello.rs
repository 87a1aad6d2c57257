//! Hello and its answer (SPEC section 7.1). A device acts on documents only after an answer to its own hello,
//! so that correctness depends on these two messages.

use alloc::vec::Vec;

use super::MessageKind;
use crate::codec::{DecodeError, Reader, Writer};
use crate::ids::{ClassTag, DeviceId, Echo, GroupName, KeyId, Nonce, ShortDigest};
use crate::limits::{DEVICE_ID_MAX, GROUP_NAME_MAX, GROUPS_MAX, MESSAGE_BYTES_MAX, SIGNED_BYTES_MAX};
use crate::time::UnixTime;

/// A group and the version of its campaign document; 0 if there is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupVersion {
    /// The group.
    pub group: GroupName,
    /// The version.
    pub version: u64,
}

/// Says who a device is and what it has. A device sends it once per connection and after each report, and
/// again until it is answered.
///
/// ```cddl
/// hello = head(1) .cat [ versions: uint, class: bstr .size 4, running: bstr .size 8, sequence: uint, root: uint, assignment: uint,
///     groups: [*8 [group: tstr, version: uint]], nonce: bstr .size 8, report: bstr .size 8 / null ]
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Highest protocol version that the device speaks.
    pub version_max: u64,
    /// The hardware, shortened.
    pub class: ClassTag,
    /// The running image's digest, shortened; zero if unknown.
    pub running: ShortDigest,
    /// The running release's sequence number; 0 if unknown.
    pub sequence: u64,
    /// Version of the root held.
    pub root: u64,
    /// Version of the assignment held; 0 for none.
    pub assignment: u64,
    /// Version of the campaign held for each group of the assignment.
    pub groups: Vec<GroupVersion>,
    /// Must come back in the answer.
    pub nonce: Nonce,
    /// Digest of the oldest report that was not acknowledged yet.
    pub report: Option<ShortDigest>,
}

impl Hello {
    /// The message.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::after(&[MessageKind::Hello.head()]);
        writer.array(9).uint(self.version_max).bytes(&self.class.0);
        writer.bytes(&self.running.0).uint(self.sequence);
        writer.uint(self.root).uint(self.assignment);
        write_groups(&mut writer, &self.groups);
        writer.bytes(&self.nonce.0).bytes_or_null(self.report.as_ref().map(|digest| &digest.0[..]));
        writer.into_bytes()
    }

    pub(super) fn decode(body: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new("hello", body, MESSAGE_BYTES_MAX)?;
        reader.array_of("hello", 9)?;
        let hello = Self {
            version_max: reader.uint("versions")?,
            class: ClassTag(reader.byte_array("class")?),
            running: ShortDigest(reader.byte_array("running digest")?),
            sequence: reader.uint("sequence")?,
            root: reader.uint("root version")?,
            assignment: reader.uint("assignment version")?,
            groups: read_groups(&mut reader)?,
            nonce: Nonce(reader.byte_array("nonce")?),
            report: read_short(&mut reader, "report digest")?,
        };
        reader.finish()?;
        Ok(hello)
    }
}

/// The answer to one hello: the payload of a COSE_Sign1 by a beacon key.
///
/// ```cddl
/// hello-answer = [ echo: bstr .size 8, time: uint, root: uint, assignment: uint,
///     groups: [*8 [group: tstr, version: uint]], report: bstr .size 8 / null, key: bstr .size 4 ]
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HelloAnswer {
    /// What only an answer to this device and this hello repeats: see [`Nonce::echo`].
    pub echo: Echo,
    /// The service's clock.
    pub time: UnixTime,
    /// Current version of the root.
    pub root: u64,
    /// Current version of the device's assignment; 0 for none.
    pub assignment: u64,
    /// Current version of the campaign of each of the device's groups.
    pub groups: Vec<GroupVersion>,
    /// The report that hello named, if the service has it.
    pub report: Option<ShortDigest>,
    /// The key with which the device was accepted: only what that key signs counts.
    pub key: KeyId,
}

impl HelloAnswer {
    /// The payload to sign.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.array(7).bytes(&self.echo.0).uint(self.time.as_secs());
        writer.uint(self.root).uint(self.assignment);
        write_groups(&mut writer, &self.groups);
        writer.bytes_or_null(self.report.as_ref().map(|digest| &digest.0[..])).bytes(&self.key.0);
        writer.into_bytes()
    }

    /// Reads a payload whose signature was verified.
    ///
    /// # Errors
    /// Any [`DecodeError`].
    pub fn decode(payload: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new("hello answer", payload, SIGNED_BYTES_MAX)?;
        reader.array_of("hello answer", 7)?;
        let answer = Self {
            echo: Echo(reader.byte_array("echo")?),
            time: UnixTime::from_secs(reader.uint("time")?),
            root: reader.uint("root version")?,
            assignment: reader.uint("assignment version")?,
            groups: read_groups(&mut reader)?,
            report: read_short(&mut reader, "report digest")?,
            key: KeyId(reader.byte_array("key id")?),
        };
        reader.finish()?;
        Ok(answer)
    }
}

pub(super) fn read_device(reader: &mut Reader<'_>) -> Result<DeviceId, DecodeError> {
    let text = reader.text("device id", DEVICE_ID_MAX)?;
    DeviceId::new(text).map_err(|_| DecodeError::value("device id"))
}

pub(super) fn read_group(reader: &mut Reader<'_>) -> Result<GroupName, DecodeError> {
    let text = reader.text("group", GROUP_NAME_MAX)?;
    GroupName::new(text).map_err(|_| DecodeError::value("group"))
}

fn read_short(reader: &mut Reader<'_>, what: &'static str) -> Result<Option<ShortDigest>, DecodeError> {
    if reader.is_null()? { Ok(None) } else { reader.byte_array(what).map(|digest| Some(ShortDigest(digest))) }
}

fn write_groups(writer: &mut Writer, groups: &[GroupVersion]) {
    writer.array(groups.len());
    for group in groups {
        writer.array(2).text(group.group.as_str()).uint(group.version);
    }
}

fn read_groups(reader: &mut Reader<'_>) -> Result<Vec<GroupVersion>, DecodeError> {
    let count = reader.array("groups", GROUPS_MAX)?;
    let mut groups: Vec<GroupVersion> = Vec::with_capacity(count);
    for _ in 0..count {
        reader.array_of("group version", 2)?;
        let group = read_group(reader)?;
        if groups.iter().any(|other| other.group == group) {
            return Err(DecodeError::value("groups"));
        }
        groups.push(GroupVersion { group, version: reader.uint("group version")? });
    }
    Ok(groups)
}
