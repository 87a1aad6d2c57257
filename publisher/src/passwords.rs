//! Passwords of devices at the embedded broker: makes them, and keeps in a file what the service needs to check them.

use alloc::collections::BTreeMap;
use alloc::collections::btree_map::Entry;
use std::path::{Path, PathBuf};

use thiserror::Error;
use whimbrel_api::passwords::{
    CHOSEN_LEN_MIN, FILE_BYTES_MAX, Kept, PASSWORD_BYTES_MAX, RANDOM_BYTES, SALT_BYTES, read_line,
};
use whimbrel_protocol::ids::DeviceId;
use zeroize::Zeroizing;

use crate::files::{self, Existing, FileError, Secrecy, Staging};

/// What a new file of passwords begins with.
pub const HEAD: &str =
    "# Passwords of devices at the embedded broker. `whimbrel device password` adds to them.\n";

/// Why no password was made.
#[derive(Debug, Error)]
pub enum PasswordError {
    /// A file could not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// A line of one of the files is wrong.
    #[error("{} line {line}: {what}", .path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// Its number, from 1.
        line: usize,
        /// What would be right.
        what: String,
    },
    /// A password that a person chose is no password.
    #[error(
        "{} must hold a password of at least {CHOSEN_LEN_MIN} characters and at most {PASSWORD_BYTES_MAX} bytes, alone \
         on one line",
        .path.display()
    )]
    Chosen {
        /// The file.
        path: PathBuf,
    },
    /// The system has no randomness.
    #[error("the system has no randomness to make a password from")]
    Random,
}

/// What an import did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Imported {
    /// Devices that have a password now and had none.
    pub made: u64,
    /// Devices that had one, which goes on counting.
    pub kept: u64,
}

/// Gives a device a new random password and returns it.
///
/// # Errors
/// [`PasswordError`]; the file is then as it was.
pub fn renew(file: &Path, device: &DeviceId) -> Result<Zeroizing<String>, PasswordError> {
    let password = random_password()?;
    let kept = Kept::of_random(&password, random()?);
    let text = with(file, BTreeMap::from([(device.clone(), kept)]))?;
    files::write(file, text.as_bytes(), Secrecy::Secret, Existing::Replace)?;
    Ok(password)
}

/// Gives a device the password that stands in the file `chosen`.
///
/// # Errors
/// [`PasswordError`]; the file is then as it was.
pub fn choose(file: &Path, device: &DeviceId, chosen: &Path) -> Result<(), PasswordError> {
    let bytes = Zeroizing::new(files::read(chosen, "a password", PASSWORD_BYTES_MAX as u64 + 2)?);
    let password = core::str::from_utf8(&bytes).unwrap_or_default();
    let password = password.strip_suffix('\n').unwrap_or(password);
    let password = password.strip_suffix('\r').unwrap_or(password);
    let is_long_enough = password.chars().count() >= CHOSEN_LEN_MIN && password.len() <= PASSWORD_BYTES_MAX;
    if !is_long_enough || password.contains(['\n', '\r']) {
        return Err(PasswordError::Chosen { path: chosen.to_path_buf() });
    }
    let text = with(file, BTreeMap::from([(device.clone(), Kept::of_chosen(password, random()?))]))?;
    Ok(files::write(file, text.as_bytes(), Secrecy::Secret, Existing::Replace)?)
}

/// Gives each device of a list that has no password a random one, and writes the new ones to `output`, which must not
/// exist: `id,password`.
///
/// # Errors
/// [`PasswordError`]; the file is then as it was.
pub fn import(file: &Path, list: &[u8], output: &Path) -> Result<Imported, PasswordError> {
    let (_, before) = read(file)?;
    let mut kept = 0;
    let mut new = BTreeMap::new();
    let mut table = Zeroizing::new(String::from("id,password\n"));
    for (number, line) in (1..).zip(String::from_utf8_lossy(list).lines()) {
        let id = line.split(',').next().unwrap_or_default().trim_matches(['\u{feff}', ' ', '\t']);
        if id.is_empty() || (number == 1 && id.eq_ignore_ascii_case("id")) {
            continue;
        }
        let wrong = |what| PasswordError::Line { path: "the list of devices".into(), line: number, what };
        let device = DeviceId::new(id).map_err(|error| wrong(error.to_string()))?;
        if before.contains_key(&device) {
            kept += 1;
        } else if let Entry::Vacant(place) = new.entry(device) {
            let password = random_password()?;
            for part in [place.key().as_str(), ",", &password, "\n"] {
                table.push_str(part);
            }
            place.insert(Kept::of_random(&password, random()?));
        }
    }
    let made = new.len() as u64;
    let text = with(file, new)?;
    let mut staging = Staging::new();
    // First the passwords themselves, which could not be found out later.
    staging.add(output, table.as_bytes(), Secrecy::Secret, Existing::Refuse)?;
    staging.add(file, text.as_bytes(), Secrecy::Secret, Existing::Replace)?;
    staging.commit()?;
    Ok(Imported { made, kept })
}

/// The file's text with these entries, each in the place of the one that the device had. A file that is not there is
/// an empty one.
fn with(file: &Path, mut new: BTreeMap<DeviceId, Kept>) -> Result<String, PasswordError> {
    let (text, before) = read(file)?;
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    for (device, line) in before {
        if let (Some(kept), Some(place)) = (new.remove(&device), lines.get_mut(line)) {
            *place = format!("{device}:{kept}");
        }
    }
    lines.extend(new.into_iter().map(|(device, kept)| format!("{device}:{kept}")));
    Ok(lines.join("\n") + "\n")
}

/// The file's text, and in which line, from 0, each device stands.
fn read(file: &Path) -> Result<(String, BTreeMap<DeviceId, usize>), PasswordError> {
    if file.symlink_metadata().is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound) {
        return Ok((HEAD.to_owned(), BTreeMap::new()));
    }
    let bytes = files::read(file, "a file of passwords", FILE_BYTES_MAX)?;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let mut places = BTreeMap::new();
    for (place, line) in text.lines().enumerate() {
        let wrong = |what| PasswordError::Line { path: file.to_path_buf(), line: place + 1, what };
        if let Some((device, _)) = read_line(line).map_err(wrong)? {
            places.insert(device, place);
        }
    }
    Ok((text, places))
}

fn random_password() -> Result<Zeroizing<String>, PasswordError> {
    let bytes = Zeroizing::new(random::<RANDOM_BYTES>()?);
    Ok(Zeroizing::new(hex::encode(*bytes)))
}

fn random<const LEN: usize>() -> Result<[u8; LEN], PasswordError> {
    const { assert!(LEN >= SALT_BYTES, "no salt and no password is shorter") };
    let mut bytes = [0; LEN];
    getrandom::fill(&mut bytes).map_err(|_| PasswordError::Random)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use whimbrel_api::passwords::read_file;

    use super::*;

    fn id(text: &str) -> DeviceId {
        DeviceId::new(text).unwrap()
    }

    #[test]
    fn a_new_password_takes_the_place_of_the_old_one_and_of_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("devices.passwd");
        let first = renew(&file, &id("m1")).unwrap();
        let other = renew(&file, &id("m2")).unwrap();
        let second = renew(&file, &id("m1")).unwrap();
        assert_eq!((first.len(), first == second), (32, false), "128 bits in hexadecimal");
        let text = fs::read_to_string(&file).unwrap();
        assert!(text.starts_with(HEAD) && !text.contains(second.as_str()), "{text}");
        let all = read_file(&text).unwrap();
        assert!(all[&id("m1")].accepts(&second) && !all[&id("m1")].accepts(&first));
        assert!(all[&id("m2")].accepts(&other) && !all[&id("m2")].is_slow());
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_password_that_somebody_chose_is_kept_so_that_guesses_are_dear() {
        let folder = tempfile::tempdir().unwrap();
        let (file, chosen) = (folder.path().join("devices.passwd"), folder.path().join("secret"));
        fs::write(&chosen, "correct horse\n").unwrap();
        choose(&file, &id("m1"), &chosen).unwrap();
        let all = read_file(&fs::read_to_string(&file).unwrap()).unwrap();
        assert!(all[&id("m1")].is_slow() && all[&id("m1")].accepts("correct horse"));
        for wrong in ["short", "", "two\nlines of it"] {
            fs::write(&chosen, wrong).unwrap();
            let error = choose(&file, &id("m1"), &chosen).unwrap_err();
            assert!(matches!(error, PasswordError::Chosen { .. }), "{wrong:?}: {error}");
        }
    }

    #[test]
    fn an_import_makes_passwords_for_devices_that_have_none() {
        let folder = tempfile::tempdir().unwrap();
        let (file, output) = (folder.path().join("devices.passwd"), folder.path().join("out.csv"));
        let before = renew(&file, &id("m1")).unwrap();
        let list = b"id,public key,class,groups\nm1,a4,6a,all\n\nm2,a5,6a,all\nm3\n";
        assert_eq!(import(&file, list, &output).unwrap(), Imported { made: 2, kept: 1 });
        let all = read_file(&fs::read_to_string(&file).unwrap()).unwrap();
        assert!(all[&id("m1")].accepts(&before));
        let table = fs::read_to_string(&output).unwrap();
        let rows: Vec<_> = table.lines().skip(1).map(|line| line.split_once(',').unwrap()).collect();
        assert_eq!(rows.len(), 2);
        for (device, password) in rows {
            assert!(all[&id(device)].accepts(password), "{device}");
        }
        // What could overwrite passwords that nobody can find out again is refused, and changes nothing.
        let text = fs::read_to_string(&file).unwrap();
        assert!(import(&file, b"m4\n", &output).is_err());
        let error = import(&file, b"m5\nx y\n", &folder.path().join("new.csv")).unwrap_err().to_string();
        assert!(error.contains("line 2"), "{error}");
        assert_eq!(fs::read_to_string(&file).unwrap(), text);
    }
}
