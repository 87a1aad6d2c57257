//! What a medium is to do, and what became of it.

use whimbrel_protocol::device::{Input, InstallFailure, InstallOp, StoreFailure, StoreOp};
use whimbrel_protocol::disk::Disk;
use whimbrel_protocol::ids::OpId;

use super::{Storage, StoreAnswer};
use crate::boot::BootControl;

/// Something to do on the medium. Jobs are done one after the other, in the order in which they come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Job {
    /// Something to store or to load.
    Store(OpId, StoreOp),
    /// Something to do with images or the boot control. It may take long.
    Install(OpId, InstallOp),
}

/// What became of a [`Job`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Done {
    /// Of [`Job::Store`].
    Stored(OpId, StoreAnswer),
    /// Of [`Job::Install`].
    Installed(OpId, Result<(), InstallFailure>),
}

impl Done {
    /// The operation.
    #[must_use]
    pub const fn op(&self) -> OpId {
        match self {
            Self::Stored(op, _) | Self::Installed(op, _) => *op,
        }
    }

    /// Whether the medium or the boot control failed.
    #[must_use]
    pub const fn is_failure(&self) -> bool {
        matches!(
            self,
            Self::Stored(
                _,
                StoreAnswer::Stored(Err(StoreFailure::Failed | StoreFailure::NoRoom))
                    | StoreAnswer::Opened(Err(_))
            ) | Self::Installed(
                _,
                Err(InstallFailure::Failed | InstallFailure::NoRoom | InstallFailure::Boot)
            )
        )
    }

    pub(crate) const fn is_store(&self) -> bool {
        matches!(self, Self::Stored(..))
    }

    /// The answer as the session takes it.
    pub(crate) fn as_input(&self) -> Input<'_> {
        match self {
            Self::Stored(op, answer) => answer.as_input(*op),
            Self::Installed(op, result) => Input::Installed { op: *op, result: *result },
        }
    }
}

impl<D: Disk, B: BootControl> Storage<D, B> {
    /// Does a job.
    pub fn work(&mut self, job: Job) -> Done {
        match job {
            Job::Store(op, what) => Done::Stored(op, self.carry_out(what)),
            Job::Install(op, what) => Done::Installed(op, self.install(what)),
        }
    }
}
