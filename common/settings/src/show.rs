//! Makes the output of `config show` and `config default`.

use core::fmt::Write as _;

use serde::Serialize;

use crate::layers::{Origin, Setting, Values};
use crate::program::{Kind, Program};

/// A setting as `config show` lists it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Shown {
    /// The whole name of the key.
    pub key: String,
    /// The value that counts, as text; none if nothing is said.
    pub value: Option<String>,
    /// Where it comes from: `default`, `FILE line N`, `environment NAME`, `--set`, or `not set`.
    pub origin: String,
}

impl Values {
    /// Every setting with the value that counts and where it comes from.
    #[must_use]
    pub fn shown(&self) -> Vec<Shown> {
        let show = |key: crate::Key| {
            let setting = self.setting(&key.name());
            Shown {
                key: key.name(),
                value: setting.map(|setting| match key.kind {
                    Kind::List => setting.items().join(" "),
                    _ => setting.value.clone(),
                }),
                origin: setting.map_or_else(|| "not set".to_owned(), |setting| setting.origin.to_string()),
            }
        };
        self.program.keys().into_iter().map(show).collect()
    }

    /// The same as text, a line a setting.
    #[must_use]
    pub fn show(&self) -> String {
        let mut text = String::new();
        for key in self.program.keys() {
            let name = key.name();
            match self.setting(&name) {
                Some(setting) => {
                    let value = as_toml(setting, key.kind);
                    put(&mut text, format_args!("{name} = {value:<24} # {}\n", setting.origin));
                }
                None => put(&mut text, format_args!("# {name} is not set\n")),
            }
        }
        text
    }
}

impl Program {
    /// The documented configuration file, with every setting at its default.
    #[must_use]
    pub fn default_file(&self) -> String {
        let (name, set) = (self.name, self.set);
        let variable = set.split_once('=').map_or(set, |(key, _)| key).to_uppercase();
        let variable = variable.replace('.', "__").replace('-', "_");
        let mut text = format!(
            "# Configuration of {name}. Every key is shown with its default; keys without one are commented out.\n\
             # Relative paths are relative to this file. A key can also be set by --set {set} and by the\n\
             # environment variable {}{variable}; flag beats environment beats file.\n",
            self.variables,
        );
        let mut table = "";
        for key in self.keys() {
            if key.table != table {
                table = key.table;
                put(&mut text, format_args!("\n[{table}]\n"));
            }
            key.about.iter().for_each(|line| put(&mut text, format_args!("#{line}\n")));
            let comment = if key.default.is_some() { "" } else { "# " };
            let example = Setting { value: key.example.to_owned(), origin: Origin::Default };
            put(&mut text, format_args!("{comment}{} = {}\n", key.short(), as_toml(&example, key.kind)));
        }
        text
    }
}

fn as_toml(setting: &Setting, kind: Kind) -> String {
    let value = setting.value.as_str();
    match kind {
        Kind::Text => format!("{value:?}"),
        Kind::Number => value.to_owned(),
        // `on` is another word for the same, which TOML does not have.
        Kind::Switch => match value {
            "on" => "true".to_owned(),
            "off" => "false".to_owned(),
            _ => value.to_owned(),
        },
        Kind::List => format!("{:?}", setting.items()),
    }
}

fn put(text: &mut String, line: core::fmt::Arguments<'_>) {
    text.write_fmt(line).expect("writing to a string does not fail");
}
