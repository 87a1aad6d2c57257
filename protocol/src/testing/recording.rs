//! Records the inputs of a session, and feeds them again. So a bug in the field becomes a test.

use alloc::vec::Vec;

use crate::codec::{DecodeError, Reader, Writer};
use crate::device::Input;
use crate::time::{Instant, UnixTime};
use crate::topic::Channel;

/// One input with its time, in a form that can be kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Recorded {
    /// [`Input::Connected`].
    Connected,
    /// [`Input::Disconnected`].
    Disconnected,
    /// [`Input::Message`].
    Message(Channel, Vec<u8>),
    /// [`Input::Activity`].
    Activity,
    /// [`Input::Foreign`].
    Foreign(u64),
    /// [`Input::NotSubscribed`].
    NotSubscribed,
    /// [`Input::WallClock`].
    WallClock(u64),
    /// [`Input::Check`].
    Check,
    /// [`Input::Timeout`].
    Timeout,
}

/// Inputs from outside, in order. Answers of the medium are not among them, because a medium gives them again
/// when the recording is replayed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recording {
    /// Each input with its time.
    pub inputs: Vec<(Instant, Recorded)>,
}

/// Notes every input that passes through it.
#[derive(Clone, Debug, Default)]
pub struct Recorder {
    recording: Recording,
}

impl Recorder {
    /// Notes an input, and ignores answers of the medium.
    pub fn note(&mut self, now: Instant, input: &Input<'_>) {
        let recorded = match input {
            Input::Connected => Recorded::Connected,
            Input::Disconnected => Recorded::Disconnected,
            Input::Message { channel, payload } => Recorded::Message(channel.clone(), payload.to_vec()),
            Input::Activity => Recorded::Activity,
            Input::Foreign { bytes } => Recorded::Foreign(*bytes as u64),
            Input::NotSubscribed => Recorded::NotSubscribed,
            Input::WallClock(time) => Recorded::WallClock(time.as_secs()),
            Input::Check => Recorded::Check,
            Input::Timeout => Recorded::Timeout,
            Input::Stored { .. }
            | Input::Opened { .. }
            | Input::Loaded { .. }
            | Input::Installed { .. }
            | Input::RoomFound
            | Input::Said(_) => return,
        };
        self.recording.inputs.push((now, recorded));
    }

    /// The recording so far.
    #[must_use]
    pub fn finish(self) -> Recording {
        self.recording
    }
}

impl Recorded {
    /// The input to feed again.
    #[must_use]
    pub fn as_input(&self) -> Input<'_> {
        match self {
            Self::Connected => Input::Connected,
            Self::Disconnected => Input::Disconnected,
            Self::Message(channel, payload) => Input::Message { channel: channel.clone(), payload },
            Self::Activity => Input::Activity,
            Self::Foreign(bytes) => Input::Foreign { bytes: usize::try_from(*bytes).unwrap_or(usize::MAX) },
            Self::NotSubscribed => Input::NotSubscribed,
            Self::WallClock(seconds) => Input::WallClock(UnixTime::from_secs(*seconds)),
            Self::Check => Input::Check,
            Self::Timeout => Input::Timeout,
        }
    }
}

impl Recording {
    /// The recording as bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        for (at, recorded) in &self.inputs {
            writer.array(4).uint(at.as_millis());
            let (kind, topic, payload) = match recorded {
                Recorded::Connected => (0, "", &[][..]),
                Recorded::Disconnected => (1, "", &[][..]),
                Recorded::Message(channel, payload) => (2, name(channel), &payload[..]),
                Recorded::Activity => (3, "", &[][..]),
                Recorded::WallClock(seconds) => {
                    writer.uint(4).text("").bytes(&seconds.to_be_bytes());
                    continue;
                }
                Recorded::Foreign(bytes) => {
                    writer.uint(7).text("").bytes(&bytes.to_be_bytes());
                    continue;
                }
                Recorded::Check => (5, "", &[][..]),
                Recorded::Timeout => (6, "", &[][..]),
                Recorded::NotSubscribed => (8, "", &[][..]),
            };
            writer.uint(kind).text(topic).bytes(payload);
        }
        writer.into_bytes()
    }

    /// Reads a recording back.
    ///
    /// # Errors
    /// Any [`DecodeError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new("recording", bytes, usize::MAX)?;
        let mut inputs = Vec::new();
        while !reader.is_at_end() {
            reader.array_of("recorded input", 4)?;
            let at = Instant::from_millis(reader.uint("time")?);
            let kind = reader.uint("kind")?;
            let topic = reader.text("channel", 64)?;
            let payload = reader.bytes("payload", usize::MAX)?;
            let bad = DecodeError::value("recorded input");
            let recorded = match kind {
                0 => Recorded::Connected,
                1 => Recorded::Disconnected,
                2 => Recorded::Message(channel(topic).ok_or(bad)?, payload.to_vec()),
                3 => Recorded::Activity,
                4 => Recorded::WallClock(u64::from_be_bytes(payload.try_into().map_err(|_| bad)?)),
                5 => Recorded::Check,
                6 => Recorded::Timeout,
                8 => Recorded::NotSubscribed,
                7 => Recorded::Foreign(u64::from_be_bytes(payload.try_into().map_err(|_| bad)?)),
                _ => return Err(bad),
            };
            inputs.push((at, recorded));
        }
        Ok(Self { inputs })
    }
}

fn name(channel: &Channel) -> &str {
    match channel {
        Channel::Requests => "/q",
        Channel::Answers => "/c",
        Channel::Reports => "/r",
        Channel::Assignment => "/s",
        Channel::Beacon => "/t",
        Channel::Group(group) => group.as_str(),
    }
}

fn channel(name: &str) -> Option<Channel> {
    Some(match name {
        "/q" => Channel::Requests,
        "/c" => Channel::Answers,
        "/r" => Channel::Reports,
        "/s" => Channel::Assignment,
        "/t" => Channel::Beacon,
        group => Channel::Group(crate::ids::GroupName::new(group).ok()?),
    })
}
