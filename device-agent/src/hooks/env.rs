//! What hooks are told: these variables and no others.

use std::path::PathBuf;

use whimbrel_protocol::ids::{CampaignId, DeviceId, Digest};

use super::Moment;

/// What a hook may want to know.
#[derive(Clone, Debug)]
pub struct HookContext {
    /// The device.
    pub device: DeviceId,
    /// The campaign and its attempt; none for an installation by hand.
    pub campaign: Option<(CampaignId, u64)>,
    /// The release and its sequence number.
    pub release: Option<(Digest, u64)>,
    /// The slot that the new image is in, `a` or `b`, and the file that is the slot.
    pub slot: (&'static str, PathBuf),
    /// Why the deployment failed or waits, in one word.
    pub reason: Option<&'static str>,
    /// An image on trial was given up: a reboot goes back to the old one, which no hook that cannot run holds up.
    pub goes_back: bool,
}

/// Where hooks find the tools of the system.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

impl HookContext {
    /// The whole environment of a hook at `moment`.
    pub(super) fn variables(&self, moment: Moment) -> Vec<(&'static str, String)> {
        let (slot, path) = &self.slot;
        let mut variables = vec![
            ("PATH", PATH.to_owned()),
            ("WHIMBREL_STATE", moment.state.name().to_owned()),
            ("WHIMBREL_EDGE", moment.edge.name().to_ascii_lowercase()),
            ("WHIMBREL_DEVICE", self.device.to_string()),
            ("WHIMBREL_SLOT", (*slot).to_owned()),
            ("WHIMBREL_SLOT_FILE", path.display().to_string()),
        ];
        if let Some((campaign, attempt)) = self.campaign {
            variables.push(("WHIMBREL_CAMPAIGN", campaign.to_hex()));
            variables.push(("WHIMBREL_ATTEMPT", attempt.to_string()));
        }
        if let Some((release, sequence)) = self.release {
            variables.push(("WHIMBREL_RELEASE", release.to_hex()));
            variables.push(("WHIMBREL_SEQUENCE", sequence.to_string()));
        }
        if let Some(reason) = self.reason {
            variables.push(("WHIMBREL_REASON", reason.to_owned()));
        }
        variables
    }
}
