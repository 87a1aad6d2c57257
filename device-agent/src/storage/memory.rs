//! A medium in memory.

/// A medium in memory, as simulated devices have it.
#[derive(Clone, Debug, Default)]
pub struct MemoryDisk {}
