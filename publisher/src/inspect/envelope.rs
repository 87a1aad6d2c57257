//! Explains SUIT envelopes: what a release is, who signed it, and what it tells a device to do.

use whimbrel_protocol::cose::Accept;
use whimbrel_protocol::envelope::{Envelope, Unverified, VerifyError};
use whimbrel_protocol::manifest::consts::text::{
    COMPONENT_VERSION, MANIFEST_DESCRIPTION, MODEL_INFO, UPDATE_DESCRIPTION, VENDOR_DOMAIN,
};
use whimbrel_protocol::manifest::{Manifest, ManifestError, Payload, Section, version_text};
use whimbrel_protocol::trust::{Role, Root};

use super::document::number_name;
use super::{Explained, commands};
use crate::output::{Fields, Value};
use crate::release::{images_of, payload_file};

/// Explains an envelope.
pub(super) fn explain(bytes: &[u8], root: Option<&Root>) -> Explained {
    Explained::of("release", Envelope::decode(bytes).and_then(|envelope| describe(&envelope, root)))
}

fn describe(envelope: &Envelope<Unverified>, root: Option<&Root>) -> Result<Fields, VerifyError> {
    let manifest = envelope.unverified_manifest()?;
    let signed = match manifest.digest() == envelope.claimed_digest() {
        true => verdict(envelope, root),
        false => format!("no: {}", VerifyError::Digest),
    };
    let mut fields = Fields::new()
        .with("release", manifest.digest().to_hex())
        .with("version", manifest.version().map(version_text))
        .with("sequence", Value::Count(manifest.sequence_number()))
        .with("vendor_id", manifest.vendor().map(|id| id.to_hex()))
        .with("class_id", manifest.class().map(|id| id.to_hex()))
        .with("envelope_size", Value::Bytes(envelope.bytes().len() as u64))
        .with("signatures", signatures(envelope)?)
        .with("verified", signed)
        .with(
            "devices_take_it",
            manifest.walk().map_or_else(|error| format!("no: {error}"), |()| "yes".into()),
        );
    let images = images_of(&manifest).into_iter().map(|(image, payload)| {
        let mut fields = Fields::new()
            .with("image_digest", image.digest.to_hex())
            .with("image_size", Value::Bytes(image.size));
        fields.extend(describe_payload(&payload));
        Value::Fields(fields)
    });
    fields.add("images", images.collect::<Vec<_>>());
    fields.extend(texts(&manifest)?);
    let components = manifest.content().components.iter().map(|id| id.to_string().into());
    fields.add("components", components.collect::<Vec<Value>>());
    fields.add("sections", sections(&manifest));
    Ok(fields)
}

fn signatures(envelope: &Envelope<Unverified>) -> Result<Vec<Value>, VerifyError> {
    let blocks = envelope.blocks()?.into_iter().map(|block| {
        Value::Fields(
            Fields::new()
                .with("algorithm", block.algorithm.map(number_name))
                .with("key_id", block.key_id.map(hex::encode)),
        )
    });
    Ok(blocks.collect())
}

fn verdict(envelope: &Envelope<Unverified>, root: Option<&Root>) -> String {
    let Some(root) = root else {
        return "not checked: no root given".into();
    };
    match envelope.clone().verify(root, Accept::STRICT) {
        Ok(_) => {
            format!("yes, by release keys of the root ({} required)", root.role(Role::Release).threshold)
        }
        Err(error) => format!("no: {error}"),
    }
}

/// How a payload is transferred.
pub(super) fn describe_payload(payload: &Payload) -> Fields {
    let transfer = &payload.transfer;
    let mut fields = Fields::new()
        .with("payload", payload_file(&transfer.index_digest))
        .with("uri", payload.uri.as_str())
        .with("codec", transfer.codec.name())
        .with("transfer_size", Value::Bytes(transfer.layout.transfer_size()))
        .with("chunk_size", Value::Bytes(transfer.layout.chunk_size()))
        .with("chunks", transfer.layout.chunk_count())
        .with("index_pages", transfer.layout.page_count());
    if let Some(base) = payload.base {
        fields.add("base_digest", base.digest.to_hex()).add("base_size", Value::Bytes(base.size));
    }
    if let Some(decoder) = transfer.decoder {
        fields
            .add("dictionary_bytes", Value::Bytes(decoder.dictionary_bytes.into()))
            .add("decoder_memory_bytes", Value::Bytes(decoder.memory_bytes.into()));
    }
    fields
}

/// The text in its first language, if the envelope has it. Devices never act on it.
fn texts(manifest: &Manifest) -> Result<Fields, ManifestError> {
    let languages = manifest.languages()?;
    let Some(language) = languages.first() else {
        return Ok(Fields::new().with("text", Value::None));
    };
    let component = language.components.first().map(|(_, texts)| texts);
    let all = language.manifest.iter().chain(component.into_iter().flatten());
    let mut fields = Fields::new();
    for (key, text) in all {
        let name = match *key {
            MANIFEST_DESCRIPTION => "description",
            UPDATE_DESCRIPTION => "update_description",
            VENDOR_DOMAIN => "vendor",
            MODEL_INFO => "class",
            COMPONENT_VERSION => "component_version",
            _ => continue,
        };
        if fields.value(name).is_none() {
            fields.add(name, text.as_str());
        }
    }
    Ok(Fields::new().with("text", fields))
}

fn sections(manifest: &Manifest) -> Vec<Value> {
    let content = manifest.content();
    let sections = Section::ALL.into_iter().filter_map(|section| {
        let commands: Value = match content.section(section) {
            Ok(Some(sequence)) => {
                commands::lines(sequence).into_iter().map(Value::Text).collect::<Vec<_>>().into()
            }
            Ok(None) => return None,
            Err(error) => error.to_string().into(),
        };
        Some(Value::Fields(Fields::new().with("section", section.to_string()).with("commands", commands)))
    });
    sections.collect()
}
