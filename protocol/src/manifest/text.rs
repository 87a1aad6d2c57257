//! The text of a manifest: what people read, and no device acts on.
//!
//! ```cddl
//! text = { + language => { ? 1..4 => tstr, * component-id => { + 1..8 => tstr } } }
//! ```
//!
//! So it stays bytes until somebody asks for its languages, and a device, which never asks, links nothing that reads it.
//!
//! It may hold any character, so that whoever prints it must escape what a terminal would obey.

use alloc::string::String;
use alloc::vec::Vec;

use super::ComponentId;
use super::consts::text::{
    COMPONENT_MAX, COMPONENT_VERSION, MANIFEST_DESCRIPTION, MANIFEST_MAX, MODEL_INFO, VENDOR_DOMAIN,
};
use crate::codec::{DecodeError, Item, Reader, Writer};
use crate::limits::{COMPONENTS_MAX, ENVELOPE_BYTES_MAX, LANGUAGE_TAG_MAX, TEXT_LANGUAGES_MAX};

/// What a release is called and why it exists, in some languages: the exact bytes, which need not be of this shape.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text(Vec<u8>);

/// The text in one language; keys ascend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LanguageText {
    /// Language tag, such as `en`.
    pub language: String,
    /// About the manifest, by key 1 to 4.
    pub manifest: Vec<(i64, String)>,
    /// About its components, by key 1 to 8.
    pub components: Vec<(ComponentId, Vec<(i64, String)>)>,
}

/// What people want to know about a release with one component.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// What the release is.
    pub description: String,
    /// Domain of which the vendor id was made.
    pub vendor_domain: String,
    /// Name of which the class id was made.
    pub class_name: String,
    /// The version, as people write it.
    pub version: String,
}

impl Text {
    /// The text in English about a release of `component`.
    #[must_use]
    pub fn english(component: ComponentId, summary: Summary) -> Self {
        Self::new(&[LanguageText {
            language: String::from("en"),
            manifest: Vec::from([(MANIFEST_DESCRIPTION, summary.description)]),
            components: Vec::from([(
                component,
                Vec::from([
                    (VENDOR_DOMAIN, summary.vendor_domain),
                    (MODEL_INFO, summary.class_name),
                    (COMPONENT_VERSION, summary.version),
                ]),
            )]),
        }])
    }

    /// The text in `languages`.
    #[must_use]
    pub fn new(languages: &[LanguageText]) -> Self {
        let mut writer = Writer::new();
        writer.map(languages.len());
        languages.iter().for_each(|language| language.encode(&mut writer));
        Self(writer.into_bytes())
    }

    /// The text that is encoded as `bytes`, which are not looked at.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Self {
        Self(bytes.to_vec())
    }

    /// The exact bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Reads the text.
    ///
    /// # Errors
    /// Any [`DecodeError`].
    pub fn languages(&self) -> Result<Vec<LanguageText>, DecodeError> {
        let mut reader = Reader::new("text", &self.0, ENVELOPE_BYTES_MAX)?;
        let mut map = reader.map("text", TEXT_LANGUAGES_MAX)?;
        let mut languages = Vec::new();
        while let Some(key) = map.next_item(&mut reader)? {
            languages.push(LanguageText::decode(read_language(key)?, &mut reader)?);
        }
        reader.finish()?;
        if languages.is_empty() { Err(DecodeError::value("text")) } else { Ok(languages) }
    }
}

impl LanguageText {
    fn decode(language: String, reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let limit = MANIFEST_KEYS + COMPONENTS_MAX;
        let mut map = reader.map("language text", limit)?;
        let mut text = Self { language, manifest: Vec::new(), components: Vec::new() };
        while let Some(key) = map.next_item(reader)? {
            let mut key = Reader::new("text key", key, ENVELOPE_BYTES_MAX)?;
            if key.peek()? == Item::Array {
                let component = ComponentId::decode(&mut key)?;
                text.components.push((component, read_component_text(reader)?));
            } else {
                let label = key.int("text key")?;
                if !(1..=MANIFEST_MAX).contains(&label) {
                    return Err(map.unknown(label));
                }
                text.manifest.push((label, read_text(reader)?));
            }
        }
        Ok(text)
    }

    fn encode(&self, writer: &mut Writer) {
        writer.text(&self.language).map(self.manifest.len() + self.components.len());
        for (key, text) in &self.manifest {
            writer.int(*key).text(text);
        }
        for (component, texts) in &self.components {
            component.encode(writer);
            writer.map(texts.len());
            for (key, text) in texts {
                writer.int(*key).text(text);
            }
        }
    }
}

const MANIFEST_KEYS: usize = 4;
const COMPONENT_KEYS: usize = 8;

fn read_component_text(reader: &mut Reader<'_>) -> Result<Vec<(i64, String)>, DecodeError> {
    let mut map = reader.map("component text", COMPONENT_KEYS)?;
    let mut texts = Vec::new();
    while let Some(key) = map.next_int(reader)? {
        if !(1..=COMPONENT_MAX).contains(&key) {
            return Err(map.unknown(key));
        }
        texts.push((key, read_text(reader)?));
    }
    if texts.is_empty() { Err(DecodeError::value("component text")) } else { Ok(texts) }
}

fn read_text(reader: &mut Reader<'_>) -> Result<String, DecodeError> {
    reader.text("text", ENVELOPE_BYTES_MAX).map(String::from)
}

/// `[a-zA-Z]{1,8}(-[a-zA-Z0-9]{1,8})*`
fn read_language(key: &[u8]) -> Result<String, DecodeError> {
    let mut reader = Reader::new("language tag", key, ENVELOPE_BYTES_MAX)?;
    let tag = reader.text("language tag", LANGUAGE_TAG_MAX)?;
    let mut parts = tag.split('-');
    let first = parts.next().is_some_and(|part| is_subtag(part, u8::is_ascii_alphabetic));
    if first && parts.all(|part| is_subtag(part, u8::is_ascii_alphanumeric)) {
        Ok(String::from(tag))
    } else {
        Err(DecodeError::value("language tag"))
    }
}

fn is_subtag(part: &str, allowed: fn(&u8) -> bool) -> bool {
    (1..=8).contains(&part.len()) && part.as_bytes().iter().all(allowed)
}
