//! Components: what a manifest's commands act on.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;

use crate::codec::{DecodeError, Reader, Writer};
use crate::limits::{COMPONENT_ID_PART_BYTES_MAX, COMPONENT_ID_PARTS_MAX, COMPONENTS_MAX};

/// The name of a component, such as `['app']`: 1 to 4 parts of at most 32 bytes.
///
/// ```cddl
/// component-id = [1*4 bstr .size (0..32)]
/// ```
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ComponentId(Box<[Box<[u8]>]>);

impl ComponentId {
    /// The name made of `parts`.
    ///
    /// # Errors
    /// [`DecodeError::Value`] for none, [`DecodeError::TooLong`] for too many parts or too long ones.
    pub fn new(parts: &[&[u8]]) -> Result<Self, DecodeError> {
        let mut writer = Writer::new();
        writer.array(parts.len());
        parts.iter().for_each(|part| {
            writer.bytes(part);
        });
        Self::decode(&mut Reader::new("component id", writer.as_bytes(), usize::MAX)?)
    }

    /// The main image of a device: `['app']`.
    #[must_use]
    pub fn app() -> Self {
        Self(Box::from([Box::from(b"app".as_slice())]))
    }

    /// The image that runs, as the base of a patch: `['app', 'run']`. It is only read.
    #[must_use]
    pub fn app_running() -> Self {
        Self(Box::from([Box::from(b"app".as_slice()), Box::from(b"run".as_slice())]))
    }

    /// The parts.
    pub fn parts(&self) -> impl Iterator<Item = &[u8]> {
        self.0.iter().map(AsRef::as_ref)
    }

    pub(super) fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let parts = reader.list("component id", COMPONENT_ID_PARTS_MAX, |reader| {
            reader.bytes("component id part", COMPONENT_ID_PART_BYTES_MAX).map(Box::from)
        })?;
        if parts.is_empty() { Err(DecodeError::value("component id")) } else { Ok(Self(parts.into())) }
    }

    pub(super) fn encode(&self, writer: &mut Writer) {
        writer.array(self.0.len());
        self.0.iter().for_each(|part| {
            writer.bytes(part);
        });
    }
}

/// Writes the parts with slashes between them, and a part that is not printable in hexadecimal.
impl fmt::Display for ComponentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, part) in self.parts().enumerate() {
            if number > 0 {
                f.write_str("/")?;
            }
            match core::str::from_utf8(part) {
                Ok(text) if !text.is_empty() && part.iter().all(u8::is_ascii_graphic) => f.write_str(text)?,
                _ => write!(f, "h'{}'", crate::ids::hex_of(part))?,
            }
        }
        Ok(())
    }
}

/// Reads the list of components: at least one, none twice.
pub(super) fn read_components(reader: &mut Reader<'_>) -> Result<Vec<ComponentId>, DecodeError> {
    let mut components = Vec::new();
    for _ in 0..reader.array("components", COMPONENTS_MAX)? {
        let id = ComponentId::decode(reader)?;
        if components.contains(&id) {
            return Err(DecodeError::value("components"));
        }
        components.push(id);
    }
    if components.is_empty() { Err(DecodeError::value("components")) } else { Ok(components) }
}
