//! Why a release cannot be built, read, signed or trusted.

use std::path::PathBuf;

use thiserror::Error;
use whimbrel_protocol::chunk::LayoutError;
use whimbrel_protocol::cose::SignatureError;
use whimbrel_protocol::envelope::VerifyError;
use whimbrel_protocol::ids::{Digest, KeyId};
use whimbrel_protocol::manifest;
use whimbrel_protocol::patch::PatchError;
use whimbrel_protocol::trust::TrustError;

use crate::files::FileError;
use crate::keys::KeyError;
use crate::units;

/// Why a release cannot be built, read, signed or trusted.
#[derive(Debug, Error)]
pub enum ReleaseError {
    /// A file could not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// A key could not be used.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// An option is outside its range.
    #[error("{what} `{got}` is not {want}")]
    Option {
        /// Which option.
        what: &'static str,
        /// What was given.
        got: String,
        /// What would be right.
        want: &'static str,
    },
    /// The image has no bytes, or more than a release can carry.
    #[error("the image has {}; 1 byte to {} would be right", units::size(*got), units::size(*limit))]
    ImageSize {
        /// Bytes of the image.
        got: u64,
        /// Most bytes.
        limit: u64,
    },
    /// The payload cannot be cut as asked.
    #[error("payload of {} cannot be cut: {source}", units::size(*transfer_size))]
    Layout {
        /// Bytes of the payload.
        transfer_size: u64,
        /// Why.
        source: LayoutError,
    },
    /// Both slots would get the same image.
    #[error("both slot images are the same: give it once, by --image")]
    SameImages,
    /// The manifest cannot be written.
    #[error("manifest cannot be written: {0}")]
    Manifest(#[from] manifest::ReleaseError),
    /// The compressor has a bug: what it wrote does not give the image back.
    #[error(
        "compressed image does not decompress to the image; use --codec raw and tell the makers of Whimbrel"
    )]
    Unsound,
    /// The folder has no envelope.
    #[error("{} is no release: it lacks {}", .folder.display(), super::ENVELOPE_FILE)]
    NoEnvelope {
        /// The folder.
        folder: PathBuf,
    },
    /// The envelope is not one, or would not be one with the new signature.
    #[error("{}: {source}", .path.display())]
    Envelope {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: VerifyError,
    },
    /// The envelope's manifest would be refused by every device.
    #[error("{}: devices would refuse this manifest: {source}", .path.display())]
    Refused {
        /// The file.
        path: PathBuf,
        /// Why.
        source: manifest::ManifestError,
    },
    /// `root.cbor` cannot be trusted.
    #[error("{}: {source}", .path.display())]
    Root {
        /// The file.
        path: PathBuf,
        /// Why.
        source: TrustError,
    },
    /// No release key has this id.
    #[error("{} has no release key {id}", .root.display())]
    NoSuchKey {
        /// The root that was looked at.
        root: PathBuf,
        /// The id asked for.
        id: KeyId,
    },
    /// A key signs other things than releases.
    #[error(
        "{} holds key {id}, which is a {role} key in {}: devices count signatures of release keys only ({}), so that \
         nothing was signed",
        .path.display(), .root.display(), listed(.release_keys)
    )]
    OtherRole {
        /// The key's file.
        path: PathBuf,
        /// The key's id.
        id: KeyId,
        /// What the root says that it is.
        role: &'static str,
        /// The root that was looked at.
        root: PathBuf,
        /// Ids of its release keys.
        release_keys: Vec<KeyId>,
    },
    /// The root does not name a key.
    #[error(
        "{} holds key {id}, which is not in {}: devices would not count its signature, so that nothing was signed; sign with \
         a release key ({}), or name the root that the devices have by --root FILE",
        .path.display(), .root.display(), listed(.release_keys)
    )]
    OutsideRoot {
        /// The key's file.
        path: PathBuf,
        /// The key's id.
        id: KeyId,
        /// The root that was looked at.
        root: PathBuf,
        /// Ids of its release keys.
        release_keys: Vec<KeyId>,
    },
    /// A signature that was made elsewhere is not this key's signature of this release.
    #[error(
        "{}: signature does not match release and key: sign the bytes of `whimbrel release tbs --alg {alg}` anew",
        .path.display()
    )]
    WrongSignature {
        /// The signature's file.
        path: PathBuf,
        /// The key's algorithm.
        alg: &'static str,
        /// What the check said.
        source: SignatureError,
    },
    /// A payload is missing or has another size.
    #[error("{} has {}, the manifest says {}", .path.display(), units::size(*got), units::size(*want))]
    PayloadSize {
        /// The payload's file.
        path: PathBuf,
        /// Its size.
        got: u64,
        /// The size that was signed.
        want: u64,
    },
    /// A payload is not the one that the manifest names.
    #[error("{} is not the payload that the manifest names: its index digest is {got}, {want} is required", .path.display())]
    PayloadIndex {
        /// The payload's file.
        path: PathBuf,
        /// Digest of its index.
        got: Digest,
        /// The digest that was signed.
        want: Digest,
    },
    /// A payload's head does not fit what the manifest says of it.
    #[error("{} does not begin as its transfer descriptor says", .path.display())]
    PayloadHead {
        /// The payload's file.
        path: PathBuf,
    },
    /// A payload does not become the image.
    #[error("{} cannot be decompressed", .path.display())]
    Decompress {
        /// The payload's file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A payload becomes another image.
    #[error("{} becomes an image with digest {got}, {want} is required", .path.display())]
    Image {
        /// The payload's file.
        path: PathBuf,
        /// Digest of what came out.
        got: Digest,
        /// The digest that was signed.
        want: Digest,
    },
    /// A file that should be an image is empty, or larger than any.
    #[error("{} has {}; an image has 1 byte to {}", .path.display(), units::size(*got), units::size(*limit))]
    StoredSize {
        /// The file.
        path: PathBuf,
        /// Its size.
        got: u64,
        /// Most bytes.
        limit: u64,
    },
    /// More bases than a release has room for patches.
    #[error("{got} bases are more than {limit}, the most that a release can have patches from")]
    TooManyBases {
        /// Bases given.
        got: usize,
        /// Most bases.
        limit: usize,
    },
    /// Two bases are one.
    #[error("{one} and {other} are the same image: give it once as --base")]
    SameBases {
        /// What one is called.
        one: String,
        /// What the other is called.
        other: String,
    },
    /// A base is the image that the release installs.
    #[error("base {name} is the image itself: devices that run it have nothing to fetch")]
    BaseIsImage {
        /// What the base is called.
        name: String,
    },
    /// The release installs another image into each slot.
    #[error("{} holds an image for each slot: give the image itself", .folder.display())]
    SeveralImages {
        /// The release's folder.
        folder: PathBuf,
    },
    /// The bytes of an image have changed since its digest was computed.
    #[error("{name} changed while it was read")]
    Changed {
        /// The image's file.
        name: String,
    },
    /// A patch was made from another image.
    #[error("{name} is not the base of this patch: its SHA-256 is {got}, the patch was made from {want}")]
    NotTheBase {
        /// The image's file.
        name: String,
        /// Its digest.
        got: Digest,
        /// The digest that the patch names.
        want: Digest,
    },
    /// The base of a patch cannot be read.
    #[error("cannot read {name}")]
    Base {
        /// The image's file.
        name: String,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A file is no patch, or a patch with a fault.
    #[error("{}", .path.display())]
    Patch {
        /// The patch's file.
        path: PathBuf,
        /// What is wrong with it.
        source: PatchError,
    },
    /// A patch makes an image of no bytes, or of more than any has.
    #[error("{}: its image would have {}; 1 byte to {} would be right", .path.display(), units::size(*got), units::size(*limit))]
    PatchedSize {
        /// The patch's file.
        path: PathBuf,
        /// Bytes of the image.
        got: u64,
        /// Most bytes.
        limit: u64,
    },
    /// An image is larger than patches can be made from or of.
    #[error("{name} has {}; patches can be made from and of images of up to {}", units::size(*got), units::size(*limit))]
    TooLargeForPatch {
        /// What the image is called.
        name: String,
        /// Its bytes.
        got: u64,
        /// Most bytes.
        limit: u64,
    },
    /// The memory allowed for making payloads is too little.
    #[error("this takes up to {} of memory, {} are allowed: what would do is {would_do}", units::size(*need), units::size(*limit))]
    EncoderMemory {
        /// Bytes that are needed.
        need: u64,
        /// Bytes that are allowed.
        limit: u64,
        /// Options with which it can be done.
        would_do: String,
    },
    /// The memory allowed is too little for any patch.
    #[error("a device needs {} of memory for this patch, {} are allowed", units::size(*got), units::size(*limit))]
    DecoderMemory {
        /// Bytes that are needed.
        got: u64,
        /// Bytes that are allowed.
        limit: u64,
    },
    /// The encoder has a bug: its patch does not give the image, or asks for more memory than it may.
    #[error(
        "patch from {name} does not give the image back; leave this base out and tell the makers of Whimbrel"
    )]
    UnsoundPatch {
        /// The base's file.
        name: String,
    },
}

fn listed(keys: &[KeyId]) -> String {
    keys.iter().map(|id| id.to_hex()).collect::<Vec<_>>().join(", ")
}
