//! The result of a command, printed for people or for programs.
//!
//! A command fills [`Fields`]; `--json` prints them as one JSON object, otherwise they become aligned lines. Both
//! come from the same values, so that neither can say more than the other.

use core::fmt::Write as _;

use serde::ser::{Serialize, SerializeMap as _, Serializer};
use whimbrel_protocol::time::UnixTime;

use crate::units;

/// The value of a field.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A word, a sentence, an id, or a digest in hexadecimal.
    Text(String),
    /// A number.
    Count(u64),
    /// A number that may be negative.
    Number(i64),
    /// A number of bytes.
    Bytes(u64),
    /// A measured number, given to two decimals.
    Decimal(f64),
    /// A point in time; seconds since 1970 in JSON.
    Time(UnixTime),
    /// A duration in seconds.
    Seconds(u64),
    /// Yes or no.
    Flag(bool),
    /// There is no value.
    None,
    /// A list of values of one kind.
    List(Vec<Self>),
    /// An object with fields of its own.
    Fields(Fields),
}

/// Named values in the order in which people should read them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Fields(Vec<(&'static str, Value)>);

impl Fields {
    /// Starts with none.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a field. Its name is `snake_case`, and the unit stands last if the value has one.
    pub fn add(&mut self, name: &'static str, value: impl Into<Value>) -> &mut Self {
        self.0.push((name, value.into()));
        self
    }

    /// Adds a field and returns the whole.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<Value>) -> Self {
        self.add(name, value);
        self
    }

    /// Adds the fields of another.
    pub fn extend(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    /// The value of a field.
    #[must_use]
    pub fn value(&self, name: &str) -> Option<&Value> {
        self.0.iter().find(|(known, _)| *known == name).map(|(_, value)| value)
    }

    /// The lines that people read.
    #[must_use]
    pub fn human(&self) -> String {
        let mut text = String::new();
        self.write(&mut text, 0);
        text
    }

    /// One JSON object on one line.
    #[must_use]
    pub fn json(&self) -> String {
        serde_json::to_string(self).expect("text, numbers and lists of them have a JSON form")
    }

    fn write(&self, out: &mut String, indent: usize) {
        let width = self.0.iter().map(|(name, _)| label(name).chars().count()).max().unwrap_or(0);
        for (name, value) in &self.0 {
            let label = label(name);
            match value {
                Value::Fields(fields) => {
                    line(out, indent, &label);
                    fields.write(out, indent + 2);
                }
                Value::List(items) if items.iter().any(|item| matches!(item, Value::Fields(_))) => {
                    for (number, item) in items.iter().enumerate() {
                        let one = singular(&label);
                        line(out, indent, &format!("{one} {}", number + 1));
                        match item {
                            Value::Fields(fields) => fields.write(out, indent + 2),
                            other => line(out, indent + 2, &other.human()),
                        }
                    }
                }
                Value::List(items) if value.human().chars().count() > LIST_WIDTH_MAX => {
                    line(out, indent, &label);
                    items.iter().for_each(|item| line(out, indent + 2, &item.human()));
                }
                other => line(out, indent, &format!("{label:width$}  {}", other.human())),
            }
        }
    }
}

/// Longest list that stands on one line; the items of a longer one stand below each other.
const LIST_WIDTH_MAX: usize = 80;

/// The name as people read it: `chunk_size` becomes `chunk size`. The unit stands with the value.
fn label(name: &str) -> String {
    let name = name.strip_suffix("_s").or_else(|| name.strip_suffix("_bytes")).unwrap_or(name);
    name.replace('_', " ")
}

/// The singular of a plural: `copy` for `copies`, `patch` for `patches`, `key` for `keys`.
fn singular(label: &str) -> String {
    if let Some(start) = label.strip_suffix("ies") {
        return format!("{start}y");
    }
    match label.strip_suffix("es") {
        Some(start) if start.ends_with("ch") => start.into(),
        _ => label.strip_suffix('s').unwrap_or(label).into(),
    }
}

fn line(out: &mut String, indent: usize, text: &str) {
    writeln!(out, "{:indent$}{}", "", text.trim_end()).expect("writing to a string does not fail");
}

impl Value {
    /// The value on one line, without control characters that a terminal would obey.
    #[must_use]
    pub fn human(&self) -> String {
        match self {
            Self::Text(text) => plain(text),
            Self::Count(count) => units::grouped(*count),
            Self::Number(number) => number.to_string(),
            Self::Bytes(bytes) => units::size(*bytes),
            Self::Decimal(number) => format!("{number:.2}"),
            Self::Time(time) => units::time(*time),
            Self::Seconds(seconds) => units::duration(*seconds),
            Self::Flag(true) => "yes".into(),
            Self::Flag(false) => "no".into(),
            Self::None => "-".into(),
            Self::List(items) if items.is_empty() => "none".into(),
            Self::List(items) => items.iter().map(Self::human).collect::<Vec<_>>().join(", "),
            Self::Fields(fields) => {
                let pairs = fields.0.iter().map(|(name, value)| format!("{} {}", label(name), value.human()));
                pairs.collect::<Vec<_>>().join(", ")
            }
        }
    }
}

impl Serialize for Fields {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, value) in &self.0 {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Text(text) => serializer.serialize_str(text),
            Self::Count(number) | Self::Bytes(number) | Self::Seconds(number) => {
                serializer.serialize_u64(*number)
            }
            Self::Number(number) => serializer.serialize_i64(*number),
            Self::Decimal(number) => serializer.serialize_f64((number * 100.0).round() / 100.0),
            Self::Time(time) => serializer.serialize_u64(time.as_secs()),
            Self::Flag(flag) => serializer.serialize_bool(*flag),
            Self::None => serializer.serialize_none(),
            Self::List(items) => items.serialize(serializer),
            Self::Fields(fields) => fields.serialize(serializer),
        }
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.into())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<u64> for Value {
    fn from(count: u64) -> Self {
        Self::Count(count)
    }
}

impl From<u32> for Value {
    fn from(count: u32) -> Self {
        Self::Count(count.into())
    }
}

impl From<usize> for Value {
    fn from(count: usize) -> Self {
        Self::Count(count as u64)
    }
}

impl From<bool> for Value {
    fn from(flag: bool) -> Self {
        Self::Flag(flag)
    }
}

impl From<UnixTime> for Value {
    fn from(time: UnixTime) -> Self {
        Self::Time(time)
    }
}

impl From<Fields> for Value {
    fn from(fields: Fields) -> Self {
        Self::Fields(fields)
    }
}

impl From<Vec<Self>> for Value {
    fn from(items: Vec<Self>) -> Self {
        Self::List(items)
    }
}

impl<T: Into<Self>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::None, Into::into)
    }
}

/// Escapes every character that would move the cursor, colour the terminal or change the writing direction.
#[must_use]
pub fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() || is_invisible(c) { out.extend(c.escape_unicode()) } else { out.push(c) }
    }
    out
}

/// Invisible characters that change how other characters appear.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Fields {
        let part =
            |name: &str| Value::Fields(Fields::new().with("name", name).with("size", Value::Bytes(2048)));
        Fields::new()
            .with("kind", "sample")
            .with("chunk_size", Value::Bytes(4096))
            .with("spread_s", Value::Seconds(120))
            .with("since", UnixTime::from_secs(0))
            .with("missing", Value::None)
            .with("percent", Value::Decimal(200.0 / 3.0))
            .with("groups", vec!["a".into(), "b".into()])
            .with("parts", vec![part("x"), part("y")])
            .with("whole", part("z"))
    }

    #[test]
    fn people_get_aligned_lines() {
        let want = "\
kind        sample
chunk size  4 KiB
spread      2m
since       1970-01-01T00:00:00Z
missing     -
percent     66.67
groups      a, b
part 1
  name  x
  size  2 KiB
part 2
  name  y
  size  2 KiB
whole
  name  z
  size  2 KiB
";
        assert_eq!(sample().human(), want);
    }

    #[test]
    fn one_of_many_is_called_by_its_singular() {
        for (many, one) in [("patches", "patch"), ("keys", "key"), ("copies", "copy"), ("bases", "base")] {
            assert_eq!(singular(many), one);
        }
    }

    #[test]
    fn programs_get_the_same_values_in_the_same_order() {
        let want = concat!(
            r#"{"kind":"sample","chunk_size":4096,"spread_s":120,"since":0,"missing":null,"percent":66.67,"groups":["a","b"],"#,
            r#""parts":[{"name":"x","size":2048},{"name":"y","size":2048}],"whole":{"name":"z","size":2048}}"#
        );
        assert_eq!(sample().json(), want);
    }

    #[test]
    fn nothing_reaches_the_terminal_that_it_would_obey() {
        let hostile = "a\u{1b}[2Jb\nc\r\u{7}\u{202e}d\u{9b}e";
        let text = plain(hostile);
        assert!(text.chars().all(|c| !c.is_control() && c != '\u{202e}'), "{text}");
        assert_eq!(text, r"a\u{1b}[2Jb\u{a}c\u{d}\u{7}\u{202e}d\u{9b}e");
        assert_eq!(plain("Größe µ 大"), "Größe µ 大");
    }
}
