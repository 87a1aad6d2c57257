//! Parameters, the inputs of commands.

use alloc::string::String;
use alloc::vec::Vec;

use super::consts::parameter::{
    CLASS_ID, COMPONENT_SLOT, FETCH_ARGUMENTS, IMAGE_DIGEST, IMAGE_SIZE, SOFT_FAILURE, URI, VENDOR_ID,
};
use super::digest::{read_wrapped_digest, write_digest};
use super::{ImageId, ManifestError, TransferDescriptor};
use crate::codec::{DecodeError, Item, Reader, Writer};
use crate::ids::{ClassId, Digest, VendorId};
use crate::limits::{ENVELOPE_BYTES_MAX, PARAMETERS_MAX, URI_BYTES_MAX};

/// One parameter with its value (draft-ietf-suit-manifest-37 section 8.4.8).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Parameter {
    /// Maker that the device must have.
    VendorId(VendorId),
    /// Class that the device must have.
    ClassId(ClassId),
    /// SHA-256 of the image.
    ImageDigest(Digest),
    /// Slot that the image is for.
    ComponentSlot(u64),
    /// Whether a failed condition only ends the enclosing branch or sequence.
    SoftFailure(bool),
    /// Bytes of the image, at least 1.
    ImageSize(u64),
    /// The address of the payload: 1 to 256 visible ASCII characters.
    Uri(String),
    /// How the payload is transferred.
    FetchArguments(TransferDescriptor),
    /// Any other parameter, with its label and its encoded value. The static walk judges it.
    Other(i64, Vec<u8>),
}

impl Parameter {
    /// Its label.
    #[must_use]
    pub const fn label(&self) -> i64 {
        match self {
            Self::VendorId(_) => VENDOR_ID,
            Self::ClassId(_) => CLASS_ID,
            Self::ImageDigest(_) => IMAGE_DIGEST,
            Self::ComponentSlot(_) => COMPONENT_SLOT,
            Self::SoftFailure(_) => SOFT_FAILURE,
            Self::ImageSize(_) => IMAGE_SIZE,
            Self::Uri(_) => URI,
            Self::FetchArguments(_) => FETCH_ARGUMENTS,
            Self::Other(label, _) => *label,
        }
    }

    fn decode(label: i64, reader: &mut Reader<'_>) -> Result<Self, ManifestError> {
        Ok(match label {
            // A vendor may also be a private enterprise number, tag 112, which our profile does not have.
            VENDOR_ID if reader.peek()? != Item::Tag => {
                Self::VendorId(VendorId(reader.byte_array("vendor id")?))
            }
            CLASS_ID => Self::ClassId(ClassId(reader.byte_array("class id")?)),
            IMAGE_DIGEST => Self::ImageDigest(read_wrapped_digest(reader, "image digest")?),
            COMPONENT_SLOT => Self::ComponentSlot(reader.uint("component slot")?),
            SOFT_FAILURE => Self::SoftFailure(reader.bool("soft failure")?),
            IMAGE_SIZE => match reader.uint("image size")? {
                0 => return Err(DecodeError::value("image size").into()),
                size => Self::ImageSize(size),
            },
            URI => Self::Uri(read_uri(reader)?),
            FETCH_ARGUMENTS => {
                let bytes = reader.bytes("fetch arguments", ENVELOPE_BYTES_MAX)?;
                Self::FetchArguments(TransferDescriptor::decode(bytes)?)
            }
            other => Self::Other(other, reader.item()?.to_vec()),
        })
    }

    fn encode(&self, writer: &mut Writer) {
        writer.int(self.label());
        match self {
            Self::VendorId(id) => writer.bytes(&id.0),
            Self::ClassId(id) => writer.bytes(&id.0),
            Self::ImageDigest(digest) => writer.wrapped(|inner| write_digest(inner, digest)),
            Self::ComponentSlot(value) | Self::ImageSize(value) => writer.uint(*value),
            Self::SoftFailure(soft) => writer.bool(*soft),
            Self::Uri(uri) => writer.text(uri),
            Self::FetchArguments(descriptor) => writer.wrapped(|inner| descriptor.encode(inner)),
            Self::Other(_, value) => writer.raw(value),
        };
    }
}

/// The parameters that are in effect for one component.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Values {
    pub(super) vendor_id: Option<VendorId>,
    pub(super) class_id: Option<ClassId>,
    pub(super) image_digest: Option<Digest>,
    pub(super) component_slot: Option<u64>,
    pub(super) image_size: Option<u64>,
    pub(super) uri: Option<String>,
    pub(super) fetch_arguments: Option<TransferDescriptor>,
}

impl Values {
    /// What one command sets.
    pub(super) fn of(parameters: &[Parameter]) -> Self {
        let mut values = Self::default();
        parameters.iter().for_each(|parameter| values.set(parameter));
        values
    }

    /// The image that is described.
    pub(super) fn image(&self) -> Option<ImageId> {
        Some(ImageId { digest: self.image_digest?, size: self.image_size? })
    }

    /// Replaces what `parameter` names. Soft failure belongs to a sequence, not to a component.
    pub(super) fn set(&mut self, parameter: &Parameter) {
        match parameter {
            Parameter::VendorId(id) => self.vendor_id = Some(*id),
            Parameter::ClassId(id) => self.class_id = Some(*id),
            Parameter::ImageDigest(digest) => self.image_digest = Some(*digest),
            Parameter::ComponentSlot(slot) => self.component_slot = Some(*slot),
            Parameter::ImageSize(size) => self.image_size = Some(*size),
            Parameter::Uri(uri) => self.uri = Some(uri.clone()),
            Parameter::FetchArguments(descriptor) => self.fetch_arguments = Some(*descriptor),
            Parameter::SoftFailure(_) | Parameter::Other(..) => {}
        }
    }
}

/// Reads a URI. As in RFC 3986 it is visible ASCII, so that no control character gets any further.
pub(super) fn read_uri(reader: &mut Reader<'_>) -> Result<String, DecodeError> {
    let uri = reader.text("URI", URI_BYTES_MAX)?;
    if uri.is_empty() || !uri.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(DecodeError::value("URI"));
    }
    Ok(String::from(uri))
}

/// Reads the argument of override-parameters: at least one, each once.
pub(super) fn read_parameters(reader: &mut Reader<'_>) -> Result<Vec<Parameter>, ManifestError> {
    let mut map = reader.map("parameters", PARAMETERS_MAX)?;
    let mut parameters = Vec::new();
    while let Some(label) = map.next_int(reader)? {
        parameters.push(Parameter::decode(label, reader)?);
    }
    if parameters.is_empty() {
        return Err(DecodeError::value("parameters").into());
    }
    Ok(parameters)
}

/// Writes the argument of override-parameters, in the order that deterministic CBOR demands.
pub(super) fn write_parameters<'w>(writer: &'w mut Writer, parameters: &[Parameter]) -> &'w mut Writer {
    let mut sorted: Vec<&Parameter> = parameters.iter().collect();
    // Encoded integers sort by magnitude, those below zero after the others.
    sorted.sort_by_key(|parameter| (parameter.label() < 0, parameter.label().unsigned_abs()));
    writer.map(sorted.len());
    sorted.iter().for_each(|parameter| parameter.encode(writer));
    writer
}
