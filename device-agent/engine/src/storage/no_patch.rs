//! What stands in for `apply` in a build without the feature `patch`: a patch is never opened, so that there is no
//! value of this type, and the compiler leaves out whatever works on one.

use whimbrel_protocol::chunk::{ChunkSet, Layout};
use whimbrel_protocol::disk::{Area, Disk, DiskError};
use whimbrel_protocol::ids::{ChunkIndex, Digest};

use super::patch_options::PatchOptions;
use super::progress::Owner;
use crate::image::{Applying, PayloadFailure};

#[derive(Debug)]
pub(super) enum Apply {}

impl Apply {
    pub(super) fn new(_: Applying, _: Layout, _: Owner, _: &PatchOptions) -> Option<Self> {
        None
    }

    pub(super) fn needs(&self) -> [(Area, u64); 2] {
        match *self {}
    }

    pub(super) fn place(&self, _: u64) -> u64 {
        match *self {}
    }

    pub(super) fn is_streaming(&self) -> bool {
        match *self {}
    }

    pub(super) fn is_whole(&self) -> bool {
        match *self {}
    }

    pub(super) fn floor(&self) -> u32 {
        match *self {}
    }

    pub(super) fn is_restored(&self) -> bool {
        match *self {}
    }

    pub(super) fn reach(&self) -> u32 {
        match *self {}
    }

    pub(super) fn may_hold(&self, _: ChunkIndex) -> bool {
        match *self {}
    }

    pub(super) fn resume(&mut self, _: &mut impl Disk) -> Result<(), DiskError> {
        match *self {}
    }

    pub(super) fn start_again(&mut self, _: &mut impl Disk) -> Result<(), DiskError> {
        match *self {}
    }

    pub(super) fn finish(&mut self, _: &mut impl Disk) -> Result<Digest, PayloadFailure> {
        match *self {}
    }

    pub(super) fn holds(&mut self, _: &ChunkSet) {
        match *self {}
    }

    pub(super) fn take_chunks(
        &mut self,
        _: &mut impl Disk,
        _: ChunkIndex,
        _: &[u8],
    ) -> Result<(), DiskError> {
        match *self {}
    }
}
