//! Which slot starts, and what is remembered of it across a restart.
//!
//! One kind for now: a plain file that our own loader's step reads ([`file`]).

mod file;

pub(crate) use file::{BootControl, BootEnvironment, TrialBoot};
