//! A disk that can be filled: a small file system of its own. Only root may mount one.

use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// A small file system in memory; unmounted on drop.
#[derive(Debug)]
pub struct SmallDisk {
    folder: TempDir,
}

/// The file that takes the room.
const FILLER: &str = "filler";

impl SmallDisk {
    /// Mounts one of `mib` MiB.
    ///
    /// # Panics
    /// If this is not allowed.
    #[must_use]
    pub fn mount(mib: u32) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut command = Command::new("mount");
        command.args(["-t", "tmpfs", "-o", &format!("size={mib}m"), "tmpfs"]).arg(folder.path());
        let output = command.output().expect("mount is part of every system");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "a small disk cannot be mounted, which takes root: {said}");
        Self { folder }
    }

    /// The path of a file on it.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Takes all the room that is left.
    ///
    /// # Panics
    /// If writing fails for another reason than a full disk.
    pub fn fill(&self) {
        let mut file = std::fs::File::create(self.path(FILLER)).expect("one more file");
        loop {
            match file.write_all(&[0; 4096]) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::StorageFull => return,
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// Frees the room again.
    ///
    /// # Panics
    /// If it was not taken.
    pub fn free(&self) {
        std::fs::remove_file(self.path(FILLER)).expect("it was filled");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        unmount(self.folder.path());
    }
}

/// Unmounts it even if somebody still has a file open.
fn unmount(folder: &Path) {
    drop(Command::new("umount").arg("-l").arg(folder).status());
}
