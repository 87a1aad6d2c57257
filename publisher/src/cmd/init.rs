//! `whimbrel init`

use std::path::Path;

use anyhow::Result;
use whimbrel_protocol::cose::Algorithm;
use whimbrel_protocol::trust::Role;

use super::Screen;
use crate::keys::algorithm_name;
use crate::output::{Fields, Value, plain};
use crate::{clock, config, init};

pub(super) fn run(folder: &Path, algorithm: Algorithm) -> Result<Screen> {
    let made = init::create(folder, algorithm, clock::now())?;
    let keys = Role::ALL.map(|role| {
        let key = made.key(role);
        Value::Fields(
            Fields::new()
                .with("role", role.name())
                .with("id", key.id().to_hex())
                .with("fingerprint", key.fingerprint().to_string())
                .with("file", file(folder, &init::key_file(role))),
        )
    });
    let fields = Fields::new()
        .with("folder", folder.display().to_string())
        .with("config", file(folder, config::FILE_NAME))
        .with("root", file(folder, init::ROOT_FILE))
        .with("root_version", Value::Count(made.root.version))
        .with("root_expires", made.root.expires)
        .with("token_file", file(folder, init::TOKEN_FILE))
        .with("algorithm", algorithm_name(algorithm))
        .with("keys", keys.to_vec());
    let offline = file(folder, init::OFFLINE_FOLDER);
    let next = format!(
        "\nKeep {} where no service and no device can reach it.\nNext: whimbreld --config {}",
        plain(&offline),
        plain(&file(folder, config::FILE_NAME))
    );
    Ok(Screen::from(fields).and(&next))
}

fn file(folder: &Path, name: &str) -> String {
    folder.join(name).display().to_string()
}
