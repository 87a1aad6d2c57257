//! The SUIT envelope: a manifest with the signatures that make it a release (SPEC section 5.1).
//!
//! ```cddl
//! envelope = #6.107({
//!   2: bstr .cbor [bstr .cbor digest, 0*4 bstr .cbor COSE_Sign1],
//!   3: bstr,                  ; the manifest
//!   ? 16: bstr, ? 20: bstr, ? 23: bstr,   ; severed members
//!   * tstr => bstr            ; integrated payloads; the key starts with "#"
//! })
//! ```
//!
//! The type says what is known. An [`Envelope<Unverified>`] is well-formed, but nothing of its manifest has
//! been looked at. [`Envelope::verify`] makes it an [`Envelope<Verified>`], and only that gives a manifest.

mod error;
mod sign;
mod verify;

pub use error::VerifyError;
pub use sign::AuthenticationBlock;

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;

use crate::codec::{DecodeError, Item, Reader, Writer};
use crate::ids::Digest;
use crate::limits::{AUTH_BLOCKS_MAX, ENVELOPE_BYTES_MAX, INTEGRATED_PAYLOADS_MAX, SIGNED_BYTES_MAX};
use crate::manifest::consts::TAG_ENVELOPE;
use crate::manifest::consts::envelope::{AUTHENTICATION, MANIFEST};
use crate::manifest::consts::manifest::{INSTALL, PAYLOAD_FETCH, TEXT};
use crate::manifest::{Manifest, ManifestError, digest_bytes, digest_of_wrapped, read_wrapped_digest};

/// The envelope is well-formed, and nothing more is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unverified {
    manifest: Vec<u8>,
}

/// Enough release keys have signed the envelope, and its manifest and members are what they signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    manifest: Box<Manifest>,
}

/// An envelope with its exact bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope<S> {
    bytes: Vec<u8>,
    /// The digest that is signed.
    digest: Digest,
    blocks: Vec<Vec<u8>>,
    members: Vec<Member>,
    state: S,
}

/// A member beside authentication and manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Member {
    /// Severed from the manifest, by key.
    Severed(i64, Vec<u8>),
    /// A payload, by its URI.
    Payload(String, Vec<u8>),
}

impl<S> Envelope<S> {
    /// The exact bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The bytes of the digest that release keys sign.
    #[must_use]
    fn signed_bytes(&self) -> Vec<u8> {
        digest_bytes(&self.digest)
    }

    /// Encodes the parts again. Signatures do not cover severed members, so that these can be left out.
    fn assemble(digest: &Digest, blocks: &[Vec<u8>], manifest: &[u8], members: &[Member]) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.tag(TAG_ENVELOPE).map(2 + members.len());
        writer.int(AUTHENTICATION).wrapped(|inner| {
            let inner = inner.array(1 + blocks.len()).bytes(&digest_bytes(digest));
            blocks.iter().fold(inner, |inner, block| inner.bytes(block));
        });
        writer.int(MANIFEST).bytes(manifest);
        for member in members {
            match member {
                Member::Severed(key, content) => writer.int(*key).bytes(content),
                Member::Payload(uri, content) => writer.text(uri).bytes(content),
            };
        }
        writer.into_bytes()
    }

    /// Removes the severed text, if there is one.
    fn remove_text(&mut self, manifest: &[u8]) {
        self.members.retain(|member| !matches!(member, Member::Severed(TEXT, _)));
        self.bytes = Self::assemble(&self.digest, &self.blocks, manifest, &self.members);
    }
}

impl Envelope<Unverified> {
    /// Puts `manifest` and those severed members that it carries into an envelope that nobody has signed yet.
    ///
    /// # Errors
    /// [`VerifyError::Full`] if that is larger than an envelope may be.
    pub fn unsigned(manifest: &Manifest) -> Result<Self, VerifyError> {
        let members: Vec<Member> = manifest
            .content()
            .members()
            .into_iter()
            .map(|(key, member)| Member::Severed(key, member))
            .collect();
        let digest = manifest.digest();
        let bytes = Self::assemble(&digest, &[], manifest.bytes(), &members);
        check_full("bytes", bytes.len(), ENVELOPE_BYTES_MAX)?;
        let state = Unverified { manifest: manifest.bytes().to_vec() };
        Ok(Self { bytes, digest, blocks: Vec::new(), members, state })
    }

    /// Reads an envelope that fills `bytes`. Nothing of the manifest is parsed.
    ///
    /// # Errors
    /// [`VerifyError::Malformed`]; [`VerifyError::Manifest`] if the digest is of another algorithm.
    pub fn decode(bytes: &[u8]) -> Result<Self, VerifyError> {
        let mut reader = Reader::new("envelope", bytes, ENVELOPE_BYTES_MAX)?;
        reader.tag("envelope tag", TAG_ENVELOPE)?;
        let mut map = reader.map("envelope", 5 + INTEGRATED_PAYLOADS_MAX)?;
        map.expect(&mut reader, AUTHENTICATION)?;
        let (digest, blocks) = read_authentication(reader.wrapped("authentication", ENVELOPE_BYTES_MAX)?)?;
        map.expect(&mut reader, MANIFEST)?;
        let manifest = reader.bytes("manifest", ENVELOPE_BYTES_MAX)?.to_vec();
        let mut members = Vec::new();
        while let Some(key) = map.next_item(&mut reader)? {
            let key = read_key(key)?;
            let content = reader.bytes("envelope member", ENVELOPE_BYTES_MAX)?.to_vec();
            members.push(match key {
                Key::Severed(key @ (PAYLOAD_FETCH | INSTALL | TEXT)) => Member::Severed(key, content),
                Key::Severed(other) => return Err(map.unknown(other).into()),
                Key::Payload(uri) => Member::Payload(uri, content),
            });
        }
        reader.finish()?;
        Ok(Self { bytes: bytes.to_vec(), digest, blocks, members, state: Unverified { manifest } })
    }

    /// The digest that the signatures are over, as the envelope claims it.
    #[must_use]
    pub fn claimed_digest(&self) -> Digest {
        self.digest
    }

    /// The manifest with its severed members, before anything is verified. It is for people who inspect and
    /// for tools that sign; nothing may act on it.
    ///
    /// # Errors
    /// [`VerifyError::Manifest`], [`VerifyError::PayloadUnlisted`].
    pub fn unverified_manifest(&self) -> Result<Manifest, VerifyError> {
        self.read_manifest()
    }

    /// Decodes the manifest, then checks and adds the severed members.
    fn read_manifest(&self) -> Result<Manifest, VerifyError> {
        let mut manifest = Manifest::decode(&self.state.manifest)?;
        for member in &self.members {
            match member {
                Member::Severed(key, content) => manifest.attach_member(*key, content)?,
                Member::Payload(uri, _) => {
                    if manifest.payloads().iter().all(|payload| payload.uri != *uri) {
                        return Err(VerifyError::PayloadUnlisted);
                    }
                }
            }
        }
        Ok(manifest)
    }

    fn check_digest(&self) -> Result<(), VerifyError> {
        if digest_of_wrapped(&self.state.manifest) == self.digest { Ok(()) } else { Err(VerifyError::Digest) }
    }

    /// Removes the text, if it was severed. Signatures stay valid.
    pub fn strip_text(&mut self) {
        let manifest = core::mem::take(&mut self.state.manifest);
        self.remove_text(&manifest);
        self.state.manifest = manifest;
    }
}

impl Envelope<Verified> {
    /// What was signed.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.state.manifest
    }

    /// The manifest's digest, which is the name of the release. It is the same with and without text, whoever
    /// signed.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// Removes the text, if it was severed, as a service does before it publishes.
    pub fn strip_text(&mut self) {
        self.state.manifest.drop_text();
        let manifest = self.state.manifest.bytes().to_vec();
        self.remove_text(&manifest);
    }
}

fn read_authentication(mut reader: Reader<'_>) -> Result<(Digest, Vec<Vec<u8>>), ManifestError> {
    let items = reader.array("authentication", 1 + AUTH_BLOCKS_MAX)?;
    if items == 0 {
        return Err(DecodeError::value("authentication").into());
    }
    let digest = read_wrapped_digest(&mut reader, "digest")?;
    let mut blocks = Vec::new();
    for _ in 1..items {
        blocks.push(reader.bytes("authentication block", SIGNED_BYTES_MAX)?.to_vec());
    }
    reader.finish()?;
    Ok((digest, blocks))
}

enum Key {
    Severed(i64),
    Payload(String),
}

fn read_key(key: &[u8]) -> Result<Key, DecodeError> {
    let mut reader = Reader::new("envelope key", key, ENVELOPE_BYTES_MAX)?;
    if reader.peek()? != Item::Text {
        return reader.int("envelope key").map(Key::Severed);
    }
    let uri = reader.text("envelope key", crate::limits::URI_BYTES_MAX)?;
    if uri.starts_with('#') && uri.bytes().all(|byte| byte.is_ascii_graphic()) {
        Ok(Key::Payload(String::from(uri)))
    } else {
        Err(DecodeError::value("envelope key"))
    }
}

fn check_full(what: &'static str, got: usize, limit: usize) -> Result<(), VerifyError> {
    if got > limit { Err(VerifyError::full(what, got, limit)) } else { Ok(()) }
}
