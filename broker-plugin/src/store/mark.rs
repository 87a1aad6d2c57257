//! The mark beside the payload folder: the versions that the database has handed out.
//!
//! It says at the next start whether the database is an old one. Nothing is signed without a version from the database;
//! each is committed there first, then written here, and only then used:
//!
//! | the power is cut | at the next start |
//! |---|---|
//! | before the commit | both know nothing of it |
//! | between commit and mark | the database is ahead, which is no reason to doubt it |
//! | after that | both know of it |
//!
//! So the mark is never behind what was signed, and never ahead of the database unless that is a copy from before. There
//! are two copies, each written whole under another name, synced and renamed, one after the other. One that is damaged or
//! missing is made anew from the other. Versions are taken by operators' changes and by a beacon every few minutes, so
//! that the syncs cost nothing that counts.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use whimbrel_protocol::ids::Digest;

use super::folder::{rename, sync_folder, write_whole};
use super::{Series, StoreError, Versions};

/// The two copies.
#[derive(Debug)]
pub struct SignedMark {
    data: PathBuf,
    written: Mutex<Versions>,
}

const COPIES: [&str; 2] = ["signed-1.mark", "signed-2.mark"];
/// Most bytes of a copy.
const COPY_BYTES_MAX: usize = 256;

impl SignedMark {
    /// Reads the mark of a data folder; `None` if there is no copy that can be read.
    #[must_use]
    pub fn read(data: &Path) -> Option<Versions> {
        COPIES.iter().filter_map(|copy| parse(&fs::read(data.join(copy)).ok()?)).reduce(Versions::max)
    }

    /// The mark of a data folder, which says from now on that these versions were handed out.
    ///
    /// # Errors
    /// [`StoreError::Io`], [`StoreError::Full`].
    pub fn begin(data: &Path, versions: Versions) -> Result<Self, StoreError> {
        let mark = Self::doubted(data, versions);
        mark.write(versions)?;
        Ok(mark)
    }

    /// The mark beside a database that is doubted: it is left as it is until a version is handed out again.
    #[must_use]
    pub fn doubted(data: &Path, versions: Versions) -> Self {
        Self { data: data.to_owned(), written: Mutex::new(versions) }
    }

    /// What was handed out, as far as is known.
    #[must_use]
    pub fn versions(&self) -> Versions {
        *self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// These versions were handed out, of these series. They may be used when this has returned.
    ///
    /// # Errors
    /// [`StoreError::Io`], [`StoreError::Full`].
    pub fn raise(&self, of: &[Series], versions: &[u64]) -> Result<(), StoreError> {
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        let mut raised = *written;
        for (series, version) in of.iter().zip(versions) {
            raised = raised.max(Versions::default().with(*series, *version));
        }
        if raised != *written {
            self.write(raised)?;
            *written = raised;
        }
        Ok(())
    }

    fn write(&self, versions: Versions) -> Result<(), StoreError> {
        let text = text(versions);
        for copy in COPIES {
            let path = self.data.join(copy);
            let new = path.with_extension("new");
            // What a crash has left.
            let _not_there = fs::remove_file(&new);
            write_whole(&new, text.as_bytes())?;
            rename(&new, &path)?;
        }
        sync_folder(&self.data)
    }
}

/// A line for people, with a digest behind it.
fn text(versions: Versions) -> String {
    let Versions { beacon, campaign, assignments } = versions;
    let line = format!("beacon {beacon} campaign {campaign} assignments {assignments}");
    format!("{line} {}\n", Digest::of(line.as_bytes()))
}

fn parse(bytes: &[u8]) -> Option<Versions> {
    let found = core::str::from_utf8(bytes.get(..bytes.len().min(COPY_BYTES_MAX))?).ok()?;
    let mut numbers = found.split_whitespace().skip(1).step_by(2).map_while(|word| word.parse().ok());
    let versions =
        Versions { beacon: numbers.next()?, campaign: numbers.next()?, assignments: numbers.next()? };
    // Whatever is not exactly what is written here is damaged.
    (text(versions) == found).then_some(versions)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOME: Versions = Versions { beacon: 12, campaign: 3, assignments: 1 };

    fn copies(data: &Path) -> [Vec<u8>; 2] {
        COPIES.map(|copy| fs::read(data.join(copy)).unwrap())
    }

    #[test]
    fn the_mark_stands_in_two_copies_and_either_will_do() {
        let data = tempfile::tempdir().unwrap();
        let data = data.path();
        assert_eq!(SignedMark::read(data), None);
        let mark = SignedMark::begin(data, Versions { beacon: 11, ..SOME }).unwrap();
        mark.raise(&[Series::Beacon], &[12]).unwrap();
        assert_eq!(SignedMark::read(data), Some(SOME));
        let [first, second] = copies(data);
        assert_eq!(first, second);
        for copy in COPIES {
            let path = data.join(copy);
            for at in 0..first.len() {
                let mut damaged = first.clone();
                damaged[at] ^= 1;
                fs::write(&path, &damaged).unwrap();
                assert_eq!(SignedMark::read(data), Some(SOME), "{at}");
                let other = COPIES.iter().find(|other| **other != copy).unwrap();
                let moved = data.join("elsewhere");
                fs::rename(data.join(other), &moved).unwrap();
                assert_eq!(SignedMark::read(data), None, "{at}");
                fs::rename(moved, data.join(other)).unwrap();
            }
            fs::remove_file(&path).unwrap();
            assert_eq!(SignedMark::read(data), Some(SOME));
            SignedMark::begin(data, SOME).unwrap();
            assert_eq!(copies(data), [first.clone(), second.clone()], "made anew");
        }
    }

    #[test]
    fn the_mark_never_falls_and_a_copy_that_a_crash_left_behind_does_not_count() {
        let data = tempfile::tempdir().unwrap();
        let data = data.path();
        let mark = SignedMark::begin(data, SOME).unwrap();
        mark.raise(&[Series::Beacon, Series::Campaign], &[5, 4]).unwrap();
        let now = Versions { campaign: 4, ..SOME };
        assert_eq!(SignedMark::read(data), Some(now));
        // Cut between the two copies, and with half a file under its first name.
        fs::write(data.join(COPIES[1]), text(SOME)).unwrap();
        fs::write(data.join("signed-1.new"), "beacon 9").unwrap();
        assert_eq!(SignedMark::read(data), Some(now));
        mark.raise(&[Series::Assignments], &[2]).unwrap();
        assert_eq!(SignedMark::read(data), Some(Versions { assignments: 2, ..now }));
    }
}
