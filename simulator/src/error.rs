//! What can go wrong at the edges: link profiles, the broker's address, the MQTT connection, the service process.

use std::io;
use std::path::PathBuf;

use rumqttc::mqttbytes;

use crate::link::WasCut;

/// Why an MQTT connection ended or did not come about.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The stream below failed; the link was cut where the cause is [`WasCut`].
    #[error("the connection to the broker failed")]
    Io(#[from] io::Error),
    /// The broker ended the connection.
    #[error("the broker closed the connection")]
    Closed,
    /// The broker does not want this device.
    #[error("the broker refused the login with code {code}")]
    Refused {
        /// Return code of the CONNACK (MQTT 3.1.1, 3.2.2.3).
        code: u8,
    },
    /// What arrived is not MQTT 3.1.1, or larger than a packet may be.
    #[error("the broker sent what is no packet that we take")]
    Packet(#[source] mqttbytes::Error),
    /// The broker does not answer.
    #[error("the broker said nothing for {waited_s} s")]
    Silent {
        /// For how long, in virtual time.
        waited_s: u64,
    },
    /// A packet that a broker does not send at this point.
    #[error("the broker sent an unexpected packet: {0}")]
    Unexpected(&'static str),
    /// A message cannot be sent, whatever the link does.
    #[error("{what} has {got} bytes, at most {limit} are allowed")]
    TooLong {
        /// Which part of it.
        what: &'static str,
        /// How long it is.
        got: usize,
        /// How long it may be.
        limit: usize,
    },
    /// The link is slower than what is written to it; try again when some of it has gone.
    #[error("{queued} {what} are waited for, at most {limit} may be")]
    Full {
        /// Of what.
        what: &'static str,
        /// How many wait.
        queued: usize,
        /// How many may.
        limit: usize,
    },
}

impl ClientError {
    /// Whether the plan of the run cut the link.
    #[must_use]
    pub fn is_cut(&self) -> bool {
        matches!(self, Self::Io(error) if error.get_ref().is_some_and(|cause| cause.is::<WasCut>()))
    }
}

/// Why a broker's address cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Not what `--broker` takes.
    #[error("{text:?} is no broker: write mqtt://HOST or mqtt://USER:PASSWORD@HOST:PORT ({why})")]
    Form {
        /// What was given, without its password.
        text: String,
        /// What is wrong with it.
        why: &'static str,
    },
}

/// Why the service process could not be started, or ended.
#[derive(Debug, thiserror::Error)]
pub enum ChildError {
    /// The process could not be started at all.
    #[error("cannot start {program}")]
    Start {
        /// What was to be run.
        program: String,
        /// What the system says.
        source: io::Error,
    },
    /// Its log could not be written.
    #[error("cannot write the log {}", path.display())]
    Log {
        /// Which file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// It ended before it said that it is ready, or while it was needed.
    #[error("{program} ended {status}; it said: {said}")]
    Ended {
        /// Which process.
        program: String,
        /// How it ended.
        status: String,
        /// The last lines of its log.
        said: String,
    },
    /// It did not say in time that it is ready.
    #[error("{program} was not ready after {waited_s} s; it said: {said}")]
    NotReady {
        /// Which process.
        program: String,
        /// How long it had.
        waited_s: u64,
        /// The last lines of its log.
        said: String,
    },
    /// Its first line is not the one expected.
    #[error("{program} began with {line:?}, which is not the JSON object expected: {why}")]
    Line {
        /// Which process.
        program: String,
        /// What it wrote.
        line: String,
        /// What is wrong with it.
        why: String,
    },
    /// It could not be watched or stopped.
    #[error("lost hold of {program}")]
    Lost {
        /// Which process.
        program: String,
        /// What the system says.
        source: io::Error,
    },
}

/// Why a profile cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    /// No profile has this name.
    #[error("no link profile is called {name:?}: choose one of {known}")]
    Unknown {
        /// What was asked for.
        name: String,
        /// The names there are.
        known: String,
    },
    /// The file cannot be read.
    #[error("cannot read the link profiles in {}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The file can be read but not used.
    #[error("{} holds no usable link profiles", path.display())]
    InFile {
        /// Which file.
        path: PathBuf,
        /// What is wrong in it.
        source: Box<Self>,
    },
    /// The text is no table of profiles.
    #[error("not a table of [[profile]]: {0}")]
    Toml(String),
    /// The text has no profile at all.
    #[error("no [[profile]] in it")]
    Empty,
    /// A figure that no link can have.
    #[error("profile {profile:?}: {what}")]
    Range {
        /// Which profile.
        profile: String,
        /// What would be right.
        what: &'static str,
    },
}
