//! What each broker was found to carry, in a small file of the data folder.
//!
//! It belongs to the broker and not to the device, and only the host knows the broker's address: so it is not in the
//! device's record. The file is a hint. If it is lost or damaged, the device finds out again, at the cost of two
//! silences for each halving.

use core::fmt::Write as _;
use core::num::NonZeroU32;
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use whimbrel_protocol::device::MessageLimit;
use whimbrel_protocol::time::UnixTime;

/// Message limits by broker.
#[derive(Debug)]
pub struct BrokerLimits {
    path: PathBuf,
    /// By address, the latest last.
    known: Vec<(String, Known)>,
}

/// What is known of one broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Known {
    bytes: NonZeroU32,
    since: UnixTime,
    lost: bool,
}

/// The file's name in the data folder.
pub const FILE: &str = "broker-limits";
/// Most brokers that are remembered; the one that was found out about first makes room.
const BROKERS_MAX: usize = 8;
/// What a line ends with: a larger message was lost, or this size is tried.
const LOST: &str = "lost";
const TRIED: &str = "tried";
/// Most bytes that are read of the file.
const FILE_BYTES_MAX: u64 = 4096;

impl BrokerLimits {
    /// What the file in `folder` says: nothing if there is none or it can't be read.
    #[must_use]
    pub fn load(folder: &Path) -> Self {
        let path = folder.join(FILE);
        let fits =
            fs::symlink_metadata(&path).is_ok_and(|data| data.is_file() && data.len() <= FILE_BYTES_MAX);
        let text = if fits { fs::read_to_string(&path).unwrap_or_default() } else { String::new() };
        let known = text.lines().filter_map(read_line).take(BROKERS_MAX).collect();
        Self { path, known }
    }

    /// What is known of the broker at `address`.
    #[must_use]
    pub fn get(&self, address: &str, today: UnixTime) -> Option<MessageLimit> {
        let (_, Known { bytes, since, lost }) = self.known.iter().find(|(known, _)| known == address)?;
        let age_s = today.as_secs().saturating_sub(since.as_secs());
        Some(MessageLimit { bytes: *bytes, age_s: u32::try_from(age_s).unwrap_or(u32::MAX), lost: *lost })
    }

    /// Remembers `limit` of the broker at `address`, or that it has none.
    ///
    /// # Errors
    /// If the file can't be written.
    pub fn set(&mut self, address: &str, limit: Option<MessageLimit>, today: UnixTime) -> io::Result<()> {
        self.known.retain(|(known, _)| known != address);
        if let Some(MessageLimit { bytes, age_s, lost }) = limit {
            if self.known.len() >= BROKERS_MAX {
                self.known.remove(0);
            }
            let since = UnixTime::from_secs(today.as_secs().saturating_sub(age_s.into()));
            self.known.push((address.to_owned(), Known { bytes, since, lost }));
        }
        self.save()
    }

    /// Writes the file whole or not at all.
    fn save(&self) -> io::Result<()> {
        let mut text = String::new();
        for (address, Known { bytes, since, lost }) in &self.known {
            let why = if *lost { LOST } else { TRIED };
            writeln!(text, "{address} {bytes} {} {why}", since.as_secs()).map_err(io::Error::other)?;
        }
        let new = self.path.with_extension("new");
        match fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
        file.write_all(text.as_bytes())?;
        fs::rename(&new, &self.path)
    }
}

/// Reads a line of address, bytes, seconds, and whether a larger message was lost.
fn read_line(line: &str) -> Option<(String, Known)> {
    let mut words = line.split(' ');
    let address = words.next()?.to_owned();
    let bytes = words.next()?.parse().ok()?;
    let since = UnixTime::from_secs(words.next()?.parse().ok()?);
    let lost = match words.next()? {
        LOST => true,
        TRIED => false,
        _ => return None,
    };
    words.next().is_none().then_some((address, Known { bytes, since, lost }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(bytes: u32, age_s: u32) -> Option<MessageLimit> {
        NonZeroU32::new(bytes).map(|bytes| MessageLimit { bytes, age_s, lost: true })
    }

    #[test]
    fn what_a_broker_carries_is_remembered_by_its_address_over_restarts() {
        let folder = tempfile::tempdir().unwrap();
        let at = UnixTime::from_secs;
        let mut limits = BrokerLimits::load(folder.path());
        assert_eq!(limits.get("a:1883", at(1000)), None);
        limits.set("a:1883", limit(4102, 100), at(1000)).unwrap();
        limits.set("[::1]:1884", limit(8198, 0), at(1000)).unwrap();
        let tried = limit(8204, 0).map(|limit| MessageLimit { lost: false, ..limit });
        limits.set("b:1883", tried, at(1000)).unwrap();
        let mut limits = BrokerLimits::load(folder.path());
        assert_eq!(limits.get("a:1883", at(1500)), limit(4102, 600));
        assert_eq!(limits.get("[::1]:1884", at(900)), limit(8198, 0), "a clock that was set back");
        assert_eq!(limits.get("a:1884", at(1500)), None);
        assert_eq!(limits.get("b:1883", at(1000)), tried);
        limits.set("a:1883", None, at(2000)).unwrap();
        let limits = BrokerLimits::load(folder.path());
        assert_eq!((limits.get("a:1883", at(2000)), limits.known.len()), (None, 2));
    }

    #[test]
    fn a_damaged_file_is_a_file_without_what_is_damaged_and_few_brokers_are_remembered() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(
            folder.path().join(FILE),
            "a:1 4102 7 lost\nb:2\nc:3 x 7 lost\nd:4 0 7 lost\ne:5 1 7\nf:6 1 7 x\ng:7 1 7 lost 9\n\u{0}\n",
        )
        .unwrap();
        let mut limits = BrokerLimits::load(folder.path());
        assert_eq!(
            limits.known,
            [(
                "a:1".to_owned(),
                Known { bytes: NonZeroU32::new(4102).unwrap(), since: UnixTime::from_secs(7), lost: true }
            )]
        );
        for port in 0..20 {
            limits.set(&format!("x:{port}"), limit(4102, 0), UnixTime::from_secs(9)).unwrap();
        }
        let limits = BrokerLimits::load(folder.path());
        assert_eq!(limits.known.len(), BROKERS_MAX);
        assert_eq!(limits.get("x:19", UnixTime::from_secs(9)), limit(4102, 0));
        fs::write(folder.path().join(FILE), vec![b'a'; 5000]).unwrap();
        assert!(BrokerLimits::load(folder.path()).known.is_empty());
    }
}
