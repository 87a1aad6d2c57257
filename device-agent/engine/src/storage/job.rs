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
    /// Look whether there is room by now for the payload that had none, and take it.
    FindRoom,
}

/// What became of a [`Job`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Done {
    /// Of [`Job::Store`].
    Stored(OpId, StoreAnswer),
    /// Of [`Job::Install`].
    Installed(OpId, Result<(), InstallFailure>),
    /// Of [`Job::FindRoom`]: whether there is room now.
    Looked(bool),
}

impl Done {
    /// The operation of the session, if it was one.
    #[must_use]
    pub const fn op(&self) -> Option<OpId> {
        match self {
            Self::Stored(op, _) | Self::Installed(op, _) => Some(*op),
            Self::Looked(_) => None,
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

    /// The answer as the session takes it; `None` if it says nothing new.
    pub(crate) fn as_input(&self) -> Option<Input<'_>> {
        match self {
            Self::Stored(op, answer) => Some(answer.as_input(*op)),
            Self::Installed(op, result) => Some(Input::Installed { op: *op, result: *result }),
            Self::Looked(true) => Some(Input::RoomFound),
            Self::Looked(false) => None,
        }
    }
}

impl<D: Disk, B: BootControl> Storage<D, B> {
    /// Does a job.
    pub fn work(&mut self, job: Job) -> Done {
        match job {
            Job::Store(op, what) => Done::Stored(op, self.carry_out(what)),
            Job::Install(op, what) => Done::Installed(op, self.install(what)),
            Job::FindRoom => Done::Looked(self.find_room()),
        }
    }
}
