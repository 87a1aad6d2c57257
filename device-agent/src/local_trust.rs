//! Which files and folders of its own machine the agent believes: those that nobody else can change.
//!
//! Whoever may write the agent's configuration, its data or its hooks has the rights of the agent, which is mostly root.
//! Therefore every file and folder that it is told to use must pass these rules, and the first that does not is an error
//! that names it:
//!
//! - It belongs to root or to the user that the agent runs as, and neither its group nor others may write it. That holds
//!   for a configured file, for a configured folder, and for every file in such a folder that the agent uses. A group
//!   counts as others also if it is the user's own, because a file does not tell who else is in its group.
//! - Each folder above belongs to root or to that user, too. It may be written by others only if it has the sticky bit,
//!   as `/tmp` has: then they can add names, and neither remove nor replace those that are there.
//! - No link is followed, neither on the way nor at its end. Whoever wants another place names that.
//!
//! The way to a file is walked folder by folder: each name is opened relative to the descriptor of the folder that was
//! looked at before, and what is looked at is what was opened. After that nobody but root and the agent's own user can
//! put something else in its place, so that a name that was found good stays good: this is what lets [`crate::hooks`]
//! start a program by its path.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{FileType, Mode, OFlags, Stat, fstat, openat};
use rustix::io::Errno;
use rustix::process::geteuid;
use thiserror::Error;

/// Why a file or folder is not used.
#[derive(Debug, Error)]
pub enum Untrusted {
    /// It cannot be opened.
    #[error("cannot open {path}: {error}", path = .path.display())]
    Open {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// It is a link.
    #[error("{path} is a link, and links are not followed: name what it leads to", path = .path.display())]
    Link {
        /// The link.
        path: PathBuf,
    },
    /// It is something else.
    #[error("{path} is not a {wanted}", path = .path.display())]
    Kind {
        /// The file or folder.
        path: PathBuf,
        /// What it should be.
        wanted: &'static str,
    },
    /// Somebody else owns it.
    #[error(
        "{path} belongs to user {owner}, who could change it: it must belong to root or to user {user}, \
         as whom this runs: run it as user {owner}, or chown {user} {path}",
        path = .path.display()
    )]
    Owner {
        /// The file or folder.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
        /// Who we are.
        user: u32,
    },
    /// Somebody else may write it.
    #[error(
        "{path} has mode {mode:04o} and may be written by others than its owner: chmod go-w {path}",
        path = .path.display()
    )]
    Writable {
        /// The file or folder.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
}

impl Untrusted {
    /// Whether the file or folder is simply not there.
    #[must_use]
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Open { error, .. } if error.kind() == io::ErrorKind::NotFound)
    }
}

/// A folder that nobody else can change, opened.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    folder: OwnedFd,
}

/// Who may write a folder that something trusted lies in or below.
#[derive(Clone, Copy)]
enum Rule {
    /// Its owner.
    Strict,
    /// Its owner, and everybody if it is sticky.
    Above,
}

const PERMISSIONS: u32 = 0o7777;
const WRITABLE_BY_OTHERS: u32 = 0o022;
const STICKY: u32 = 0o1000;

impl Folder {
    /// Opens the folder at `path`.
    ///
    /// # Errors
    /// [`Untrusted`].
    pub fn open(path: &Path) -> Result<Self, Untrusted> {
        let path = absolute(path)?;
        let folder = match split(&path) {
            None => walk(&path)?,
            Some((above, name)) => step(&walk(above)?, name, &path, OFlags::RDONLY)?,
        };
        check(&stat(&folder, &path)?, &path, Rule::Strict)?;
        Ok(Self { path, folder })
    }

    /// Opens a file in it; `None` if there is none of that name.
    ///
    /// # Errors
    /// [`Untrusted`].
    pub fn file(&self, name: impl AsRef<OsStr>, flags: OFlags) -> Result<Option<File>, Untrusted> {
        let name = name.as_ref();
        file_in(&self.folder, name, &self.path.join(name), flags)
    }

    /// The folder itself, to make names in it durable, and to read them.
    #[must_use]
    pub fn descriptor(&self) -> &OwnedFd {
        &self.folder
    }

    /// What [`Folder::file`] does, for who wants to know about a file without opening it: its permissions.
    ///
    /// # Errors
    /// [`Untrusted`].
    pub fn mode_of(&self, name: &OsStr) -> Result<u32, Untrusted> {
        let path = self.path.join(name);
        let fd = open_at(&self.folder, name, OFlags::PATH, &path)?;
        let stat = stat(&fd, &path)?;
        check_file(&stat, &path)?;
        Ok(stat.st_mode & PERMISSIONS)
    }
}

/// Opens a file to read it; `None` if there is none. The folder that it is in counts as one above it.
///
/// # Errors
/// [`Untrusted`].
pub fn open_file(path: &Path) -> Result<Option<File>, Untrusted> {
    let path = absolute(path)?;
    let Some((above, name)) = split(&path) else {
        return Err(Untrusted::Kind { path, wanted: "file" });
    };
    match walk(above) {
        Ok(folder) => file_in(&folder, name, &path, OFlags::RDONLY),
        Err(error) if error.is_missing() => Ok(None),
        Err(error) => Err(error),
    }
}

/// Looks whether a file may be used, for whoever opens it afterwards. One that is not there may.
///
/// # Errors
/// [`Untrusted`].
pub fn check_path(path: &Path) -> Result<(), Untrusted> {
    open_file(path).map(drop)
}

/// Looks whether a new folder may be made at `path`: whether all that is there of the way to it is trusted.
///
/// # Errors
/// [`Untrusted`].
pub fn check_way(path: &Path) -> Result<(), Untrusted> {
    match split(&absolute(path)?).map(|(above, _)| walk(above)) {
        Some(Err(error)) if !error.is_missing() => Err(error),
        _ => Ok(()),
    }
}

fn absolute(path: &Path) -> Result<PathBuf, Untrusted> {
    std::path::absolute(path).map_err(|error| Untrusted::Open { path: path.to_owned(), error })
}

/// The folder that `path` is in, and its name there; `None` if it is no name in a folder.
fn split(path: &Path) -> Option<(&Path, &OsStr)> {
    Some((path.parent()?, path.file_name()?))
}

/// Opens a folder that others may own things in, from the root on.
fn walk(path: &Path) -> Result<OwnedFd, Untrusted> {
    let mut reached = PathBuf::from("/");
    let root = rustix::fs::open("/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    let mut folder = root.map_err(|errno| failed(&reached, errno))?;
    check(&stat(&folder, &reached)?, &reached, Rule::Above)?;
    for component in path.components() {
        if matches!(component, Component::RootDir | Component::CurDir | Component::Prefix(_)) {
            continue;
        }
        reached.push(component);
        folder = step(&folder, component.as_os_str(), &reached, OFlags::PATH)?;
        check(&stat(&folder, &reached)?, &reached, Rule::Above)?;
    }
    Ok(folder)
}

/// Opens a folder in a folder.
fn step(above: &OwnedFd, name: &OsStr, path: &Path, flags: OFlags) -> Result<OwnedFd, Untrusted> {
    // What it is comes first, since the error of an open that wants a folder does not tell a link from a file.
    let found = open_at(above, name, OFlags::PATH, path)?;
    match FileType::from_raw_mode(stat(&found, path)?.st_mode) {
        FileType::Directory if flags == OFlags::PATH => Ok(found),
        FileType::Directory => open_at(above, name, flags | OFlags::DIRECTORY, path),
        FileType::Symlink => Err(Untrusted::Link { path: path.to_owned() }),
        _ => Err(Untrusted::Kind { path: path.to_owned(), wanted: "folder" }),
    }
}

fn file_in(folder: &OwnedFd, name: &OsStr, path: &Path, flags: OFlags) -> Result<Option<File>, Untrusted> {
    // Without waiting for whoever opens the other end of a pipe that lies there.
    let file = match open_at(folder, name, flags | OFlags::NONBLOCK, path) {
        Err(error) if error.is_missing() => return Ok(None),
        file => file?,
    };
    check_file(&stat(&file, path)?, path)?;
    Ok(Some(file.into()))
}

fn open_at(folder: &OwnedFd, name: &OsStr, flags: OFlags, path: &Path) -> Result<OwnedFd, Untrusted> {
    let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(folder, name.as_bytes(), flags, Mode::RUSR | Mode::WUSR).map_err(|errno| failed(path, errno))
}

fn failed(path: &Path, errno: Errno) -> Untrusted {
    let path = path.to_owned();
    if errno == Errno::LOOP {
        Untrusted::Link { path }
    } else {
        Untrusted::Open { path, error: errno.into() }
    }
}

fn stat(fd: impl AsFd, path: &Path) -> Result<Stat, Untrusted> {
    fstat(fd).map_err(|errno| failed(path, errno))
}

fn check_file(stat: &Stat, path: &Path) -> Result<(), Untrusted> {
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => check(stat, path, Rule::Strict),
        FileType::Symlink => Err(Untrusted::Link { path: path.to_owned() }),
        _ => Err(Untrusted::Kind { path: path.to_owned(), wanted: "file" }),
    }
}

fn check(stat: &Stat, path: &Path, rule: Rule) -> Result<(), Untrusted> {
    let (owner, user, mode) = (stat.st_uid, geteuid().as_raw(), stat.st_mode & PERMISSIONS);
    if owner != 0 && owner != user {
        return Err(Untrusted::Owner { path: path.to_owned(), owner, user });
    }
    let is_sticky = matches!(rule, Rule::Above) && mode & STICKY != 0;
    if mode & WRITABLE_BY_OTHERS != 0 && !is_sticky {
        return Err(Untrusted::Writable { path: path.to_owned(), mode });
    }
    Ok(())
}
