//! The hooks folder: which hooks are in it, and what keeps one from running.
//!
//! A hook is started by its path. That is safe because the path was found good by the rules of [`crate::local_trust`]:
//! nobody but root and the agent's own user can put another file in its place, so that nothing can change between the
//! look and the start. To start it by its descriptor would not do for scripts, since their interpreter opens the name that
//! it is given after the kernel has closed that descriptor.

use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;

use rustix::fs::{Access, AtFlags, accessat};

use super::{HookError, Hooks, is_hook_name};
use crate::local_trust::Folder;

/// What is in the folder.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Hooks that can run, in the order of their names.
    pub(super) hooks: Vec<Hook>,
    /// What keeps others from running, a line each.
    pub(super) problems: Vec<String>,
}

/// A hook that can run.
#[derive(Debug)]
pub(super) struct Hook {
    pub(super) name: String,
    pub(super) path: PathBuf,
}

/// Most hooks of a folder, and names that are told.
const HOOKS_MAX: usize = 256;
const NAMES_MAX: usize = 64;
/// Most problems that are told.
const PROBLEMS_MAX: usize = 8;

impl Hooks {
    /// What keeps hooks from running, a line each; none if all can run.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        self.look().problems
    }

    /// Says what keeps a hook from running.
    ///
    /// # Errors
    /// [`HookError::Unrunnable`].
    pub fn check(&self) -> Result<(), HookError> {
        self.problems().into_iter().next().map_or(Ok(()), |problem| Err(HookError::Unrunnable { problem }))
    }

    pub(super) fn look(&self) -> Found {
        let mut found = Found::default();
        let Some(path) = &self.folder else {
            return found;
        };
        if let Err(problem) = found.read(path) {
            found.problems.push(problem);
        }
        found.hooks.sort_by(|one, other| one.name.cmp(&other.name));
        found.problems.sort();
        found.problems.truncate(PROBLEMS_MAX);
        found
    }

    /// Names of files in the folder that are not hooks' names, for a word at the start.
    ///
    /// # Errors
    /// [`HookError::Folder`] where there should be a folder and none can be read.
    pub fn misnamed(&self) -> Result<Vec<String>, HookError> {
        let Some(folder) = &self.folder else {
            return Ok(Vec::new());
        };
        let entries =
            fs::read_dir(folder).map_err(|error| HookError::Folder { path: folder.clone(), error })?;
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        Ok(names.filter(|name| !is_hook_name(name)).take(NAMES_MAX).collect())
    }
}

impl Found {
    fn read(&mut self, path: &PathBuf) -> Result<(), String> {
        let folder = Folder::open(path).map_err(|error| error.to_string())?;
        let unreadable = |error| format!("cannot read {}: {error}", path.display());
        for entry in fs::read_dir(path).map_err(unreadable)? {
            let name: OsString = entry.map_err(unreadable)?.file_name();
            let Some(name) = name.to_str().filter(|name| is_hook_name(name)) else {
                continue;
            };
            if self.hooks.len() + self.problems.len() >= HOOKS_MAX {
                return Err(format!("{} has more than {HOOKS_MAX} hooks", path.display()));
            }
            let hook = Hook { name: name.to_owned(), path: path.join(name) };
            match hook.check(&folder) {
                Ok(true) => self.hooks.push(hook),
                // It went away since the folder was read.
                Ok(false) => {}
                Err(problem) => self.problems.push(problem),
            }
        }
        Ok(())
    }
}

impl Hook {
    /// Whether it is there. Says what keeps it from running.
    fn check(&self, folder: &Folder) -> Result<bool, String> {
        let mode = match folder.mode_of(self.name.as_ref()) {
            Err(error) if error.is_missing() => return Ok(false),
            mode => mode.map_err(|error| error.to_string())?,
        };
        let is_executable = mode & 0o111 != 0
            && accessat(folder.descriptor(), &self.name, Access::EXEC_OK, AtFlags::empty()).is_ok();
        if is_executable {
            return Ok(true);
        }
        let path = self.path.display();
        Err(format!("{path} has mode {mode:04o} and cannot run: chmod 755 {path}, or give it no hook's name"))
    }
}
