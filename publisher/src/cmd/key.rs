//! `whimbrel key`

use std::path::Path;

use anyhow::Result;
use zeroize::Zeroizing;

use super::{Screen, warn};
use crate::cli::KeyCommand;
use crate::files::{self, Staging};
use crate::keys::{self, KEY_FILE_BYTES_MAX, KeyError, KeyFile};
use crate::output::Fields;

pub(super) fn run(command: KeyCommand) -> Result<Screen> {
    match command {
        KeyCommand::New { file, alg } => {
            let key = keys::generate(alg.into())?;
            let mut staging = Staging::new();
            keys::stage(&mut staging, &file, &key)?;
            staging.commit()?;
            Ok(describe(&file, &KeyFile::Private(key)).into())
        }
        KeyCommand::Show { file } => {
            let bytes = Zeroizing::new(files::read(&file, "a key file", KEY_FILE_BYTES_MAX)?);
            let key = KeyFile::parse(&bytes).ok_or_else(|| KeyError::of(&file, &bytes))?;
            if key.is_private() {
                warn_if_open(&file);
            }
            Ok(describe(&file, &key).into())
        }
    }
}

fn describe(file: &Path, key: &KeyFile) -> Fields {
    let mut fields = Fields::new().with("file", file.display().to_string()).with("kind", key.form());
    fields.extend(keys::describe(&key.public()));
    fields
}

/// Warns if somebody besides its owner may read a private key.
pub(super) fn warn_if_open(file: &Path) {
    if let Some(mode) = keys::open_mode(file) {
        warn(&format!(
            "{} has mode {mode:04o}, so that others may use the key; chmod 600 it",
            file.display()
        ));
    }
}
