//! `whimbrel release bases ...`

use clap::Args;
use whimbrel_protocol::ids::GroupName;

/// Whose images to look at.
#[derive(Debug, Args)]
pub struct BasesFlags {
    /// The release: its folder, or its digest or at least 4 digits of it
    #[arg(value_name = "DIR|HEX")]
    pub release: String,
    /// Only the devices of this group
    #[arg(long, value_name = "GROUP")]
    pub group: Option<GroupName>,
}
