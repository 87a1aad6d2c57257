//! Explains payload files and patches. A payload beside a release is checked against it. If it lies alone,
//! only the head of a compressed payload or of a patch can be explained.

use std::io::Read as _;
use std::path::Path;

use whimbrel_protocol::manifest::{Filter, LzmaHeader};
use whimbrel_protocol::patch::Header;

use super::InspectError;
use crate::files::FileError;
use crate::output::{Fields, Value};
use crate::release::{ENVELOPE_FILE, ReleaseFolder, check_payload, images_of, payload_file};

/// Explains the payload in the file `path`.
pub(super) fn explain(path: &Path) -> Result<Fields, InspectError> {
    let mut fields = Fields::new().with("kind", "payload");
    let (size, head) = read_head(path)?;
    fields.add("size", Value::Bytes(size));
    match (patch_header(&head), header_of(&head)) {
        (Some((header, header_bytes)), _) => fields.add("patch", describe_patch(&header, header_bytes)),
        (None, Some(header)) => fields.add("lzma", describe_header(&header)),
        (None, None) => fields.add("lzma", Value::None),
    };
    let release = path.with_file_name(ENVELOPE_FILE);
    if !release.is_file() {
        return Ok(fields.with("release", "none beside it, so that nothing can be checked"));
    }
    let release = ReleaseFolder::open(&release)?;
    let manifest = release.manifest()?;
    fields.add("release", manifest.digest().to_hex());
    let name = path.file_name().unwrap_or_default();
    let named = images_of(&manifest)
        .into_iter()
        .find(|(_, payload)| name == payload_file(&payload.transfer.index_digest).as_str());
    let Some((image, payload)) = named else {
        return Ok(fields.with("named_by_the_release", false));
    };
    let became = check_payload(path, image, &payload, None, &mut |_| {})?;
    fields.add("named_by_the_release", true);
    fields.extend(super::envelope::describe_payload(&payload));
    let name = if became { "becomes_image" } else { "says_that_it_becomes_image" };
    Ok(fields.with(name, image.digest.to_hex()).with("image_size", Value::Bytes(image.size)))
}

/// Explains the patch in the file `path`.
pub(super) fn explain_patch(path: &Path) -> Result<Option<Fields>, FileError> {
    let (size, head) = read_head(path)?;
    Ok(patch_header(&head).map(|(header, header_bytes)| {
        let mut fields = Fields::new().with("kind", "patch").with("size", Value::Bytes(size));
        fields.extend(describe_patch(&header, header_bytes));
        fields
    }))
}

/// Explains a patch. `bytes` are all of it, or its first bytes.
pub(super) fn explain_patch_bytes(bytes: &[u8]) -> Option<Fields> {
    let (header, header_bytes) = patch_header(bytes)?;
    let mut fields = Fields::new().with("kind", "patch").with("size", Value::Bytes(bytes.len() as u64));
    fields.extend(describe_patch(&header, header_bytes));
    Some(fields)
}

/// The header of a patch, and how many bytes it has.
fn patch_header(bytes: &[u8]) -> Option<(Header, usize)> {
    Header::decode(bytes).ok()
}

fn describe_patch(header: &Header, header_bytes: usize) -> Fields {
    let decoder = header.decoder();
    Fields::new()
        .with("header_bytes", Value::Bytes(header_bytes as u64))
        .with("base_digest", header.base.digest.to_hex())
        .with("base_size", Value::Bytes(header.base.size))
        .with("image_digest", header.image.digest.to_hex())
        .with("image_size", Value::Bytes(header.image.size))
        .with("decoder_memory_bytes", Value::Bytes(decoder.memory_bytes.into()))
        .with("dictionary_bytes", Value::Bytes(decoder.dictionary_bytes.into()))
}

/// Whether the file `path` begins as a compressed payload does.
pub(super) fn begins(path: &Path) -> bool {
    read_head(path).is_ok_and(|(_, head)| header_of(&head).is_some())
}

/// Number of first bytes that are enough to tell what a payload is.
const HEAD_BYTES: u64 = Header::BYTES_MAX as u64;
const _: () = assert!(Header::BYTES_MAX > LzmaHeader::BYTES);

fn read_head(path: &Path) -> Result<(u64, Vec<u8>), FileError> {
    let refused = |source| FileError::io("read", path, source);
    let file = std::fs::File::open(path).map_err(refused)?;
    let size = file.metadata().map_err(refused)?.len();
    let mut head = Vec::new();
    file.take(HEAD_BYTES).read_to_end(&mut head).map_err(refused)?;
    Ok((size, head))
}

/// Recognises the head of a compressed payload by the ranges of its fields, and by the zero that every LZMA
/// stream begins with.
fn header_of(bytes: &[u8]) -> Option<LzmaHeader> {
    let (head, stream) = bytes.split_first_chunk::<{ LzmaHeader::BYTES }>()?;
    LzmaHeader::decode(head).ok().filter(|_| stream.first() == Some(&0))
}

fn describe_header(header: &LzmaHeader) -> Fields {
    let properties = header.properties;
    let filter = if header.filter == Filter::None { "none" } else { header.filter.name() };
    Fields::new()
        .with("filter", filter)
        .with("properties", format!("lc={} lp={} pb={}", properties.lc, properties.lp, properties.pb))
        .with("dictionary_bytes", Value::Bytes(header.dictionary_bytes.into()))
        .with("decoder_memory_bytes", Value::Bytes(header.decoder().memory_bytes.into()))
        .with("image_size", Value::Bytes(header.image_size))
}
