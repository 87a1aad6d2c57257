//! How patches are applied, as the host of the engine chooses it.

/// How a patch is applied, and what of it is kept for after a power cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PatchMode {
    /// The patch is stored whole. After a cut it is decoded again from its start and compared with what is written.
    Replay,
    /// The patch is stored whole, and the decoder's state from time to time. After a cut it goes on from there.
    State,
    /// The patch is applied as it arrives and not stored: only what the saved state has not consumed is.
    Stream,
}

impl PatchMode {
    /// Every one.
    pub const ALL: [Self; 3] = [Self::Replay, Self::State, Self::Stream];

    /// The word for it in the configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Replay => "replay",
            Self::State => "state",
            Self::Stream => "stream",
        }
    }

    /// Whether the decoder's state is kept.
    pub(super) const fn keeps_state(self) -> bool {
        matches!(self, Self::State | Self::Stream)
    }
}

/// How patches are applied.
#[derive(Clone, Copy, Debug)]
pub struct PatchOptions {
    /// What is kept for after a power cut.
    pub mode: PatchMode,
    /// Bytes that streaming keeps of a patch, at most; at least four chunks are kept whatever this says.
    pub buffer_bytes: u64,
    /// Bytes of the image from one note of the progress to the next. `None`: 1 MiB, and if a state is saved with
    /// it 24 times the state, so that few bytes are written beyond what has to be.
    pub flush_bytes: Option<u64>,
}

impl Default for PatchOptions {
    fn default() -> Self {
        Self { mode: PatchMode::Replay, buffer_bytes: 256 * 1024, flush_bytes: None }
    }
}
