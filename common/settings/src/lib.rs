//! The settings of a program: a flag counts before the environment, that before one file, and that before the
//! default.
//!
//! A setting is declared once, with its name, its documentation, its type, its default and how it is read.
//! The struct that the program uses, the documented example file, and the table that `config show` prints are
//! all made from this.
//!
//! ```
//! use core::time::Duration;
//! use whimbrel_settings::{Program, Sources, read, settings};
//!
//! settings! {
//!     /// How the broker is reached.
//!     #[derive(Debug)]
//!     ["broker"] pub struct Broker {
//!         /// Longest silence towards the broker, 5s to 18h.
//!         pub keepalive: Duration = "60s" => read::duration(Duration::from_secs(5)..=Duration::from_secs(64_800));
//!         /// The user name, if the broker wants one.
//!         pub user: Option<String>, such as "meter-17" => read::optional(read::text());
//!     }
//! }
//!
//! const PROGRAM: Program = Program {
//!     name: "example",
//!     variables: "EXAMPLE__",
//!     set: "broker.keepalive=30s",
//!     tables: &[Broker::TABLE],
//!     others: &[],
//! };
//!
//! let sources = Sources { sets: vec!["broker.keepalive=30s".to_owned()], ..Sources::default() };
//! let values = PROGRAM.values(&sources)?;
//! let broker = Broker::read(&values)?;
//! assert_eq!((broker.keepalive, broker.user), (Duration::from_secs(30), None));
//!
//! let wrong = Sources { sets: vec!["broker.keepalive=1s".to_owned()], ..Sources::default() };
//! let error = Broker::read(&PROGRAM.values(&wrong)?).unwrap_err();
//! assert_eq!(error.to_string(), r#"--set: broker.keepalive = "1s": must be between 5s and 18h"#);
//! # Ok::<(), whimbrel_settings::ConfigError>(())
//! ```
//!
//! A variable is the prefix, the table, two underscores and the key: `EXAMPLE__BROKER__KEEPALIVE=30s`. Checks that
//! relate two settings stand in the program, which refuses one of them with [`Values::refuse`].

//! What programs that run for years need besides, to log and to end, is in [`daemon`].

extern crate alloc;

pub mod complaint;
pub mod daemon;
mod error;
mod file;
mod layers;
mod program;
pub mod read;
mod secret;
mod show;
pub mod units;

pub use error::ConfigError;
pub use layers::{Origin, Setting, Sources, Values};
pub use program::{Key, Kind, Program, Table};
pub use secret::{Secret, SecretError};
pub use show::Shown;
