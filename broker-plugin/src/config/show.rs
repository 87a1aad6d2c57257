//! What `config show` and `config default` print.

use core::fmt::Write as _;

use super::ConfigError;
use super::keys::{KEYS, Key, Kind};
use super::layers::{Sources, merge};

/// Every key with the value that counts and where it comes from.
///
/// # Errors
/// [`ConfigError`] where the sources can't be read.
pub fn show(sources: &Sources) -> Result<String, ConfigError> {
    let settings = merge(sources)?;
    let mut text = String::new();
    for key in KEYS {
        match settings.get(key.name) {
            Some(setting) => {
                let value = as_toml(&setting.value, key.kind);
                put(&mut text, format_args!("{} = {value:<24} # {}\n", key.name, setting.origin));
            }
            None => put(&mut text, format_args!("# {} is not set\n", key.name)),
        }
    }
    Ok(text)
}

/// The documented configuration file with every key at its default.
#[must_use]
pub fn default_file() -> String {
    let mut text = String::from(
        "# Configuration of whimbreld. Every key is shown with its default; keys without one are commented out.\n\
         # Relative paths are relative to this file. A key can also be set by --set broker.listen=127.0.0.1:1883 and\n\
         # by the environment variable WHIMBREL_SERVICE__BROKER__LISTEN; flag beats environment beats file.\n",
    );
    let mut table = "";
    for Key { name, kind, default, example, about } in KEYS {
        let (key_table, key) = name.split_once('.').unwrap_or(("", name));
        if key_table != table {
            table = key_table;
            put(&mut text, format_args!("\n[{table}]\n"));
        }
        about.lines().for_each(|line| put(&mut text, format_args!("# {line}\n")));
        let comment = if default.is_some() { "" } else { "# " };
        put(&mut text, format_args!("{comment}{key} = {}\n", as_toml(example, *kind)));
    }
    text
}

fn as_toml(value: &str, kind: Kind) -> String {
    match kind {
        Kind::Text => format!("{value:?}"),
        Kind::Number | Kind::Switch => value.to_owned(),
        Kind::List => format!("{:?}", value.split_ascii_whitespace().collect::<Vec<_>>()),
    }
}

fn put(text: &mut String, line: core::fmt::Arguments<'_>) {
    text.write_fmt(line).expect("writing to a string does not fail");
}
