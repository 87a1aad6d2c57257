//! Readers. A reader turns text into a typed value within its range, or says what would be right.

use core::fmt::Display;
use core::net::SocketAddr;
use core::ops::RangeInclusive;
use core::str::FromStr;
use core::time::Duration;
use std::path::{Path, PathBuf};

use crate::layers::{Origin, Setting};
use crate::program::Kind;
use crate::units;

/// Reads the values of one setting.
pub trait Reader {
    /// What it makes of the text.
    type Value;

    /// What the value is written as in TOML.
    const KIND: Kind = Kind::Text;

    /// Reads a value; `base` is the folder that relative paths of file and defaults are relative to.
    ///
    /// # Errors
    /// What would be right: `must be ...`.
    fn read(&self, setting: &Setting, base: &Path) -> Result<Self::Value, String>;

    /// The value if nothing is said; `None` if something has to be.
    fn absent(&self) -> Option<Self::Value> {
        None
    }
}

/// How the values of this reader are written in TOML. `settings!` passes the type of the value, so that it
/// need not be named here.
#[must_use]
pub const fn kind<T, R: Reader<Value = T>>(_: &R) -> Kind {
    R::KIND
}

/// Reads with a function that says what would be right.
#[must_use]
pub const fn by<T, F: Fn(&str) -> Result<T, String>>(parse: F) -> impl Reader<Value = T> {
    By(parse)
}

struct By<F>(F);

impl<T, F: Fn(&str) -> Result<T, String>> Reader for By<F> {
    type Value = T;

    fn read(&self, setting: &Setting, _: &Path) -> Result<T, String> {
        (self.0)(&setting.value)
    }
}

/// Any text.
#[must_use]
pub const fn text() -> impl Reader<Value = String> {
    By(|text: &str| Ok(text.to_owned()))
}

/// Any type that can be read from text and says itself what is wrong with it.
#[must_use]
pub const fn parsed<T: FromStr<Err: Display>>() -> impl Reader<Value = T> {
    By(|text: &str| text.parse().map_err(|error: T::Err| error.to_string()))
}

/// An address and a port.
#[must_use]
pub const fn address() -> impl Reader<Value = SocketAddr> {
    By(|text: &str| {
        text.parse()
            .map_err(|_| "must be an address and a port, such as 127.0.0.1:1883 or [::1]:1883".to_owned())
    })
}

/// A duration within a range.
#[must_use]
pub const fn duration(range: RangeInclusive<Duration>) -> impl Reader<Value = Duration> {
    By(move |text: &str| within(units::duration(text)?, &range, |limit| units::show_duration(*limit)))
}

/// A size in bytes within a range, as `u64` or `usize`.
#[must_use]
pub const fn size<T: TryFrom<u64>>(range: RangeInclusive<u64>) -> impl Reader<Value = T> {
    By(move |text: &str| {
        let bytes = within(units::size(text)?, &range, |limit| units::show_size(*limit))?;
        T::try_from(bytes).map_err(|_| "is more than this machine can address".to_owned())
    })
}

fn within<T: PartialOrd>(
    value: T,
    range: &RangeInclusive<T>,
    show: impl Fn(&T) -> String,
) -> Result<T, String> {
    if range.contains(&value) {
        Ok(value)
    } else {
        Err(format!("must be between {} and {}", show(range.start()), show(range.end())))
    }
}

/// One of some words.
#[must_use]
pub const fn choice<T: Copy, const N: usize>(choices: [(&'static str, T); N]) -> impl Reader<Value = T> {
    By(move |text: &str| {
        let chosen = choices.iter().find(|(name, _)| *name == text);
        chosen.map(|(_, value)| *value).ok_or_else(|| {
            format!("must be one of {}", choices.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", "))
        })
    })
}

/// A path. One of the file or a default is relative to the file's folder, any other to the working folder.
#[must_use]
pub const fn path() -> impl Reader<Value = PathBuf> {
    PathReader
}

struct PathReader;

impl Reader for PathReader {
    type Value = PathBuf;

    fn read(&self, setting: &Setting, base: &Path) -> Result<PathBuf, String> {
        if setting.value.is_empty() {
            return Err("must be a path".to_owned());
        }
        let path = Path::new(&setting.value);
        let path = match setting.origin {
            Origin::Default | Origin::File { .. } => base.join(path),
            Origin::Environment(_) | Origin::Flag => path.to_owned(),
        };
        Ok(path)
    }
}

/// A path from the root, for what may run in another folder.
#[must_use]
pub const fn absolute_path() -> impl Reader<Value = PathBuf> {
    // Only a process without a working folder has no absolute paths.
    map(PathReader, |path: PathBuf| std::path::absolute(&path).unwrap_or(path))
}

/// A list of paths, relative as those of [`path`] are.
#[must_use]
pub const fn paths() -> impl Reader<Value = Vec<PathBuf>> {
    PathsReader
}

struct PathsReader;

impl Reader for PathsReader {
    type Value = Vec<PathBuf>;

    const KIND: Kind = Kind::List;

    fn read(&self, setting: &Setting, base: &Path) -> Result<Vec<PathBuf>, String> {
        let one = |text: &str| Setting { value: text.to_owned(), origin: setting.origin.clone() };
        setting.items().into_iter().map(|text| PathReader.read(&one(text), base)).collect()
    }

    fn absent(&self) -> Option<Vec<PathBuf>> {
        Some(Vec::new())
    }
}

/// Converts what `reader` reads.
#[must_use]
pub const fn map<R: Reader, T, F: Fn(R::Value) -> T>(reader: R, make: F) -> impl Reader<Value = T> {
    MapReader(reader, make)
}

struct MapReader<R, F>(R, F);

impl<R: Reader, T, F: Fn(R::Value) -> T> Reader for MapReader<R, F> {
    type Value = T;

    const KIND: Kind = R::KIND;

    fn read(&self, setting: &Setting, base: &Path) -> Result<T, String> {
        self.0.read(setting, base).map(&self.1)
    }

    fn absent(&self) -> Option<T> {
        self.0.absent().map(&self.1)
    }
}

/// `true` or `false`; `on` and `off` are the same.
#[must_use]
pub const fn switch() -> impl Reader<Value = bool> {
    SwitchReader
}

struct SwitchReader;

impl Reader for SwitchReader {
    type Value = bool;

    const KIND: Kind = Kind::Switch;

    fn read(&self, setting: &Setting, _: &Path) -> Result<bool, String> {
        match setting.value.as_str() {
            "true" | "on" => Ok(true),
            "false" | "off" => Ok(false),
            _ => Err("must be true or false".to_owned()),
        }
    }
}

/// A whole number within a range.
#[must_use]
pub const fn number<T: FromStr + PartialOrd + Display>(range: RangeInclusive<T>) -> impl Reader<Value = T> {
    NumberReader(range)
}

struct NumberReader<T>(RangeInclusive<T>);

impl<T: FromStr + PartialOrd + Display> Reader for NumberReader<T> {
    type Value = T;

    const KIND: Kind = Kind::Number;

    fn read(&self, setting: &Setting, _: &Path) -> Result<T, String> {
        let (least, most) = (self.0.start(), self.0.end());
        // A sign or an underscore is no digit.
        let digits = setting.value.bytes().all(|byte| byte.is_ascii_digit());
        let number = setting.value.parse().ok().filter(|number| digits && self.0.contains(number));
        number.ok_or_else(|| format!("must be a whole number between {least} and {most}"))
    }
}

/// A list of texts.
#[must_use]
pub const fn list() -> impl Reader<Value = Vec<String>> {
    ListReader
}

struct ListReader;

impl Reader for ListReader {
    type Value = Vec<String>;

    const KIND: Kind = Kind::List;

    fn read(&self, setting: &Setting, _: &Path) -> Result<Vec<String>, String> {
        Ok(setting.items().into_iter().map(str::to_owned).collect())
    }

    fn absent(&self) -> Option<Vec<String>> {
        Some(Vec::new())
    }
}

/// What `reader` reads, or `None` if nothing is said.
#[must_use]
pub const fn optional<R: Reader>(reader: R) -> impl Reader<Value = Option<R::Value>> {
    OptionalReader(reader)
}

struct OptionalReader<R>(R);

impl<R: Reader> Reader for OptionalReader<R> {
    type Value = Option<R::Value>;

    const KIND: Kind = R::KIND;

    fn read(&self, setting: &Setting, base: &Path) -> Result<Option<R::Value>, String> {
        self.0.read(setting, base).map(Some)
    }

    fn absent(&self) -> Option<Option<R::Value>> {
        Some(None)
    }
}
