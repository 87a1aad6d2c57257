//! The members of a manifest (draft-ietf-suit-manifest-37 section 8.4).
//!
//! ```cddl
//! manifest = {
//!   1: 1,                              ; version of the encoding
//!   2: uint,                           ; sequence number
//!   3: bstr .cbor { 2: [1*8 component-id], 4: bstr .cbor sequence },
//!   ? 4: tstr,                         ; reference URI
//!   ? 6: bstr .cbor [1*6 int],         ; set version
//!   ? 7: bstr .cbor sequence,          ; validate
//!   ? 8: bstr .cbor sequence,          ; load
//!   ? 9: bstr .cbor sequence,          ; invoke
//!   ? 16: bstr .cbor sequence / digest,  ; payload fetch
//!   ? 20: bstr .cbor sequence / digest,  ; install
//!   ? 23: bstr .cbor text / digest,
//! }
//! ```

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use super::component::read_components;
use super::consts::{common, manifest, trust_domains, update_management};
use super::parameter::read_uri;
use super::{
    ComponentId, Feature, ManifestError, Sequence, Text, digest_of_wrapped, read_digest, write_digest,
};
use crate::codec::{DecodeError, Item, Reader, Writer};
use crate::ids::Digest;
use crate::limits::{ENVELOPE_BYTES_MAX, VERSION_PARTS_MAX};

/// A command sequence's place in the manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Section {
    /// Runs before every other section.
    Shared,
    /// Fetches payloads.
    PayloadFetch,
    /// Installs.
    Install,
    /// Checks what was installed.
    Validate,
    /// Loads it.
    Load,
    /// Starts it.
    Invoke,
}

impl Section {
    /// Every section, in the order in which they run.
    pub const ALL: [Self; 6] =
        [Self::Shared, Self::PayloadFetch, Self::Install, Self::Validate, Self::Load, Self::Invoke];

    /// Its key in the manifest; for the shared sequence that of the common part, which holds it.
    #[must_use]
    pub const fn key(self) -> i64 {
        match self {
            Self::Shared => manifest::COMMON,
            Self::PayloadFetch => manifest::PAYLOAD_FETCH,
            Self::Install => manifest::INSTALL,
            Self::Validate => manifest::VALIDATE,
            Self::Load => manifest::LOAD,
            Self::Invoke => manifest::INVOKE,
        }
    }
}

impl fmt::Display for Section {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Shared => "the shared sequence",
            Self::PayloadFetch => "payload fetch",
            Self::Install => "install",
            Self::Validate => "validate",
            Self::Load => "load",
            Self::Invoke => "invoke",
        })
    }
}

/// A member that may stand in the manifest, or beside it in the envelope with only its digest inside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Severable<T> {
    /// In the manifest.
    Inline(T),
    /// In the envelope. It can be removed there, and the signature stays valid.
    Severed {
        /// Covers the envelope's byte string with its head.
        digest: Digest,
        /// What the envelope carried, once it was checked against the digest.
        member: Option<T>,
    },
}

impl<T> Severable<T> {
    /// The member, if it is present.
    #[must_use]
    pub fn get(&self) -> Option<&T> {
        match self {
            Self::Inline(member) => Some(member),
            Self::Severed { member, .. } => member.as_ref(),
        }
    }

    fn severed(&self) -> Option<&T> {
        match self {
            Self::Inline(_) => None,
            Self::Severed { member, .. } => member.as_ref(),
        }
    }
}

impl Severable<Text> {
    /// Puts a text beside the manifest.
    #[must_use]
    pub fn sever(text: Text) -> Self {
        Self::Severed { digest: digest_of_wrapped(text.bytes()), member: Some(text) }
    }
}

impl Severable<Sequence> {
    /// Puts a sequence beside the manifest.
    #[must_use]
    pub fn sever(sequence: Sequence) -> Self {
        Self::Severed { digest: digest_of_wrapped(&sequence.encode()), member: Some(sequence) }
    }
}

/// The members of a manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Content {
    /// Anti-rollback counter of the class.
    pub sequence_number: u64,
    /// What the commands act on, by index.
    pub components: Vec<ComponentId>,
    /// Runs before every section.
    pub shared: Sequence,
    /// The URI of a manifest with all its members.
    pub reference_uri: Option<String>,
    /// The version that the release sets.
    pub set_version: Option<Vec<i64>>,
    /// Checks the installed image.
    pub validate: Option<Sequence>,
    /// Loads it.
    pub load: Option<Sequence>,
    /// Starts it.
    pub invoke: Option<Sequence>,
    /// Fetches payloads.
    pub payload_fetch: Option<Severable<Sequence>>,
    /// Installs.
    pub install: Option<Severable<Sequence>>,
    /// For people.
    pub text: Option<Severable<Text>>,
}

impl Content {
    /// The section's sequence: `None` if the manifest has no such section.
    ///
    /// # Errors
    /// [`ManifestError::SectionMissing`] if it was severed and dropped.
    pub fn section(&self, section: Section) -> Result<Option<&Sequence>, ManifestError> {
        let severable = match section {
            Section::Shared => return Ok(Some(&self.shared)),
            Section::Validate => return Ok(self.validate.as_ref()),
            Section::Load => return Ok(self.load.as_ref()),
            Section::Invoke => return Ok(self.invoke.as_ref()),
            Section::PayloadFetch => &self.payload_fetch,
            Section::Install => &self.install,
        };
        match severable {
            None => Ok(None),
            Some(severable) => severable.get().map(Some).ok_or(ManifestError::section_missing(section)),
        }
    }

    /// The severed members that are here, by envelope key in ascending order.
    #[must_use]
    pub fn members(&self) -> Vec<(i64, Vec<u8>)> {
        let sequence = |place: &Option<Severable<Sequence>>| {
            place.as_ref().and_then(Severable::severed).map(Sequence::encode)
        };
        let text = self.text.as_ref().and_then(Severable::severed).map(|text| text.bytes().to_vec());
        [
            (manifest::PAYLOAD_FETCH, sequence(&self.payload_fetch)),
            (manifest::INSTALL, sequence(&self.install)),
            (manifest::TEXT, text),
        ]
        .into_iter()
        .filter_map(|(key, member)| member.map(|member| (key, member)))
        .collect()
    }

    /// The bytes of the manifest, without the byte string head that wraps them in an envelope.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let optional = [
            self.reference_uri.is_some(),
            self.set_version.is_some(),
            self.validate.is_some(),
            self.load.is_some(),
            self.invoke.is_some(),
            self.payload_fetch.is_some(),
            self.install.is_some(),
            self.text.is_some(),
        ];
        let mut writer = Writer::new();
        writer.map(3 + optional.into_iter().filter(|present| *present).count());
        writer.int(manifest::VERSION).uint(1);
        writer.int(manifest::SEQUENCE_NUMBER).uint(self.sequence_number);
        writer.int(manifest::COMMON).wrapped(|inner| self.encode_common(inner));
        if let Some(uri) = &self.reference_uri {
            writer.int(manifest::REFERENCE_URI).text(uri);
        }
        if let Some(version) = &self.set_version {
            writer.int(update_management::SET_VERSION).wrapped(|inner| {
                version.iter().fold(inner.array(version.len()), |inner, part| inner.int(*part));
            });
        }
        for (key, sequence) in [
            (manifest::VALIDATE, &self.validate),
            (manifest::LOAD, &self.load),
            (manifest::INVOKE, &self.invoke),
        ] {
            if let Some(sequence) = sequence {
                writer.int(key).bytes(&sequence.encode());
            }
        }
        write_severable(&mut writer, manifest::PAYLOAD_FETCH, self.payload_fetch.as_ref(), Sequence::encode);
        write_severable(&mut writer, manifest::INSTALL, self.install.as_ref(), Sequence::encode);
        write_severable(&mut writer, manifest::TEXT, self.text.as_ref(), |text| text.bytes().to_vec());
        writer.into_bytes()
    }

    fn encode_common(&self, writer: &mut Writer) {
        writer.map(2).int(common::COMPONENTS).array(self.components.len());
        self.components.iter().for_each(|component| component.encode(writer));
        writer.int(common::SHARED_SEQUENCE).bytes(&self.shared.encode());
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, ManifestError> {
        let mut reader = Reader::new("manifest", bytes, ENVELOPE_BYTES_MAX)?;
        let mut map = reader.map("manifest", MEMBERS_MAX)?;
        map.expect(&mut reader, manifest::VERSION)?;
        match reader.uint("manifest version")? {
            1 => {}
            got => return Err(ManifestError::version(got)),
        }
        map.expect(&mut reader, manifest::SEQUENCE_NUMBER)?;
        let sequence_number = reader.uint("sequence number")?;
        map.expect(&mut reader, manifest::COMMON)?;
        let (components, shared) = read_common(reader.wrapped("common", ENVELOPE_BYTES_MAX)?)?;
        let mut content = Self {
            sequence_number,
            components,
            shared,
            reference_uri: None,
            set_version: None,
            validate: None,
            load: None,
            invoke: None,
            payload_fetch: None,
            install: None,
            text: None,
        };
        while let Some(key) = map.next_int(&mut reader)? {
            match key {
                manifest::REFERENCE_URI => content.reference_uri = Some(read_uri(&mut reader)?),
                update_management::SET_VERSION => content.set_version = Some(read_version(&mut reader)?),
                manifest::VALIDATE => content.validate = Some(read_sequence(&mut reader)?),
                manifest::LOAD => content.load = Some(read_sequence(&mut reader)?),
                manifest::INVOKE => content.invoke = Some(read_sequence(&mut reader)?),
                manifest::PAYLOAD_FETCH => {
                    content.payload_fetch = Some(read_severable(&mut reader, Sequence::decode)?);
                }
                manifest::INSTALL => content.install = Some(read_severable(&mut reader, Sequence::decode)?),
                manifest::TEXT => {
                    content.text = Some(read_severable(&mut reader, |bytes| Ok(Text::from_bytes(bytes)))?);
                }
                trust_domains::MANIFEST_COMPONENT_ID
                | trust_domains::DEPENDENCY_RESOLUTION
                | trust_domains::CANDIDATE_VERIFICATION
                | trust_domains::UNINSTALL
                | update_management::COSWID => {
                    return Err(ManifestError::not_in_profile(Feature::Member(key)));
                }
                other => return Err(map.unknown(other).into()),
            }
        }
        reader.finish()?;
        Ok(content)
    }
}

/// Members that the drafts know, those outside our profile included.
const MEMBERS_MAX: usize = 16;

fn write_severable<T>(
    writer: &mut Writer,
    key: i64,
    place: Option<&Severable<T>>,
    encode: fn(&T) -> Vec<u8>,
) {
    match place {
        Some(Severable::Inline(member)) => {
            writer.int(key).bytes(&encode(member));
        }
        Some(Severable::Severed { digest, .. }) => write_digest(writer.int(key), digest),
        None => {}
    }
}

fn read_common(mut reader: Reader<'_>) -> Result<(Vec<ComponentId>, Sequence), ManifestError> {
    let mut map = reader.map("common", 3)?;
    if map.optional(&mut reader, trust_domains::DEPENDENCIES)? {
        return Err(ManifestError::not_in_profile(Feature::Dependencies));
    }
    map.expect(&mut reader, common::COMPONENTS)?;
    let components = read_components(&mut reader)?;
    map.expect(&mut reader, common::SHARED_SEQUENCE)?;
    let shared = read_sequence(&mut reader)?;
    map.finish(&mut reader)?;
    reader.finish()?;
    Ok((components, shared))
}

fn read_sequence(reader: &mut Reader<'_>) -> Result<Sequence, ManifestError> {
    Sequence::decode(reader.bytes("command sequence", ENVELOPE_BYTES_MAX)?)
}

fn read_version(reader: &mut Reader<'_>) -> Result<Vec<i64>, DecodeError> {
    let mut inner = reader.wrapped("version", ENVELOPE_BYTES_MAX)?;
    let version = inner.list("version", VERSION_PARTS_MAX, |inner| inner.int("version"))?;
    inner.finish()?;
    if version.is_empty() || version.iter().any(|part| *part < update_management::VERSION_PART_MIN) {
        return Err(DecodeError::value("version"));
    }
    Ok(version)
}

fn read_severable<T>(
    reader: &mut Reader<'_>,
    decode: impl FnOnce(&[u8]) -> Result<T, ManifestError>,
) -> Result<Severable<T>, ManifestError> {
    if reader.peek()? == Item::Array {
        return Ok(Severable::Severed { digest: read_digest(reader)?, member: None });
    }
    Ok(Severable::Inline(decode(reader.bytes("severable member", ENVELOPE_BYTES_MAX)?)?))
}
