//! Payload files. Beside a release they are checked against it; alone, only the head of a compressed one tells.

use std::io::Read as _;
use std::path::Path;

use whimbrel_protocol::manifest::{Filter, LzmaHeader};

use super::InspectError;
use crate::files::FileError;
use crate::output::{Fields, Value};
use crate::release::{ENVELOPE_FILE, ReleaseFolder, check_payload, images_of, payload_file};

/// Explains the payload in the file `path`.
pub(super) fn explain(path: &Path) -> Result<Fields, InspectError> {
    let mut fields = Fields::new().with("kind", "payload");
    let (size, head) = read_head(path)?;
    fields.add("size", Value::Bytes(size));
    match header_of(&head) {
        Some(header) => fields.add("lzma", describe_header(&header)),
        None => fields.add("lzma", Value::None),
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
    check_payload(path, image, &payload, &mut |_| {})?;
    fields.add("named_by_the_release", true);
    fields.extend(super::envelope::describe_payload(&payload));
    Ok(fields.with("becomes_image", image.digest.to_hex()).with("image_size", Value::Bytes(image.size)))
}

/// Whether the file `path` begins as a compressed payload does.
pub(super) fn begins(path: &Path) -> bool {
    read_head(path).is_ok_and(|(_, head)| header_of(&head).is_some())
}

fn read_head(path: &Path) -> Result<(u64, Vec<u8>), FileError> {
    let refused = |source| FileError::io("read", path, source);
    let file = std::fs::File::open(path).map_err(refused)?;
    let size = file.metadata().map_err(refused)?.len();
    let mut head = Vec::new();
    file.take(LzmaHeader::BYTES as u64 + 1).read_to_end(&mut head).map_err(refused)?;
    Ok((size, head))
}

/// The head of a compressed payload: its ranges, and the zero that every LZMA stream begins with.
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
