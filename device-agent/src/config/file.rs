//! The configuration file as written: TOML, tables of keys, every value text. What is unknown is refused with
//! its line, so that a mistyped key is never silently without effect.

use alloc::collections::BTreeMap;
use std::path::Path;

use toml::de::{DeTable, DeValue};

use super::ConfigError;
use super::keys::{self, KEYS};
use super::layers::{Origin, Setting, read_text};

/// Enters what the file at `path` says into `settings`.
pub(super) fn read(path: &Path, settings: &mut BTreeMap<&'static str, Setting>) -> Result<(), ConfigError> {
    let text = read_text(path)?;
    let origin_at = |offset: usize| Origin::File { path: path.to_owned(), line: line_of(&text, offset) };
    let document = DeTable::parse(&text).map_err(|error| ConfigError::Syntax {
        path: path.to_owned(),
        line: line_of(&text, error.span().map_or(0, |span| span.start)),
        what: error.message().replace('\n', " "),
    })?;
    for (table, content) in document.get_ref() {
        let table_name = table.get_ref().as_ref();
        let unknown = |origin, key: String| ConfigError::Unknown { origin, hint: keys::hint(&key), key };
        let DeValue::Table(content) = content.get_ref() else {
            return Err(unknown(origin_at(table.span().start), table_name.to_owned()));
        };
        for (key, value) in content {
            let origin = origin_at(key.span().start);
            let name = format!("{table_name}.{}", key.get_ref());
            let Some(key) = KEYS.iter().find(|known| known.name == name) else {
                return Err(unknown(origin, name));
            };
            let DeValue::String(value) = value.get_ref() else {
                return Err(ConfigError::NotText { origin, key: name });
            };
            settings.insert(key.name, Setting { value: value.clone().into_owned(), origin });
        }
    }
    Ok(())
}

fn line_of(text: &str, offset: usize) -> usize {
    text.bytes().take(offset).filter(|byte| *byte == b'\n').count() + 1
}
