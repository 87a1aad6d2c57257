//! Reads the configuration file: TOML with tables of keys. An unknown key is refused with its line, so that a
//! mistyped key is never silently without effect. Tables of other programs are left to them.

use std::path::Path;

use toml::de::{DeTable, DeValue};

use crate::error::ConfigError;
use crate::layers::{LIST_SEPARATOR, Origin};
use crate::program::{Key, Kind, Program};

/// Most bytes of a configuration file.
const FILE_BYTES_MAX: u64 = 64 * 1024;

/// Hands each key of the file at `path` to `enter`, with its value as text and its place.
pub(crate) fn read(
    program: &Program,
    path: &Path,
    mut enter: impl FnMut(&Key, String, Origin),
) -> Result<(), ConfigError> {
    let text = read_text(path)?;
    let origin_at = |offset: usize| Origin::File { path: path.to_owned(), line: line_of(&text, offset) };
    let document = DeTable::parse(&text).map_err(|error| ConfigError::Syntax {
        path: path.to_owned(),
        line: line_of(&text, error.span().map_or(0, |span| span.start)),
        what: error.message().replace('\n', " "),
    })?;
    let keys = program.keys();
    for (table, content) in document.get_ref() {
        let name = table.get_ref().as_ref();
        if program.others.contains(&name) {
            continue;
        }
        let known = program.tables.iter().find(|known| known.name == name);
        let (Some(known), DeValue::Table(content)) = (known, content.get_ref()) else {
            return Err(program.unknown(name.to_owned(), origin_at(table.span().start)));
        };
        for (key, value) in content {
            let origin = origin_at(key.span().start);
            let name = format!("{name}.{}", key.get_ref());
            let Some(key) = keys.iter().find(|known| known.name() == name) else {
                if known.is_shared {
                    continue;
                }
                return Err(program.unknown(name, origin));
            };
            match as_text(value.get_ref(), key.kind) {
                Some(value) => enter(key, value, origin),
                None => return Err(ConfigError::Type { origin, key: name, what: should_be(key) }),
            }
        }
    }
    Ok(())
}

/// A TOML value as the text that a variable or a flag would say. Text in quotes is that text already.
fn as_text(value: &DeValue<'_>, kind: Kind) -> Option<String> {
    match (value, kind) {
        (DeValue::Integer(number), Kind::Number) => Some(number.as_str().to_owned()),
        (DeValue::Boolean(on), Kind::Switch) => Some(on.to_string()),
        (DeValue::Array(items), Kind::List) => {
            let texts = items.iter().map(|item| item.get_ref().as_str()).collect::<Option<Vec<&str>>>();
            texts.map(|texts| texts.join(&LIST_SEPARATOR.to_string()))
        }
        (DeValue::String(text), Kind::Text | Kind::Number | Kind::Switch) => Some(text.clone().into_owned()),
        _ => None,
    }
}

fn should_be(key: &Key) -> String {
    match key.kind {
        Kind::Text => format!("text in quotes, such as {} = {:?}", key.short(), key.example),
        Kind::Number => format!("a whole number, such as {} = {}", key.short(), key.example),
        Kind::Switch => "true or false".to_owned(),
        Kind::List => "a list of texts, [\"...\", \"...\"]".to_owned(),
    }
}

fn read_text(path: &Path) -> Result<String, ConfigError> {
    let fail = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::NotFound => ConfigError::NoFile { path: path.to_owned() },
        _ => ConfigError::Read { path: path.to_owned(), error },
    };
    let length = std::fs::metadata(path).map_err(fail)?.len();
    if length > FILE_BYTES_MAX {
        let what = format!("it has {length} bytes, at most {FILE_BYTES_MAX} are read");
        return Err(fail(std::io::Error::other(what)));
    }
    std::fs::read_to_string(path).map_err(fail)
}

fn line_of(text: &str, offset: usize) -> usize {
    text.bytes().take(offset).filter(|byte| *byte == b'\n').count() + 1
}
