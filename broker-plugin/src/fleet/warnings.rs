//! What operators are told of what they ask for: it is carried out, and is probably not what they mean.
//!
//! What devices run is believed of their signed reports alone; what they say without a signature decides nothing here.

use alloc::collections::BTreeSet;

use whimbrel_api::{Warning, WarningKind};
use whimbrel_protocol::ids::GroupName;
use whimbrel_protocol::message::State;

use super::Fleet;
use super::campaign::Campaign;
use super::catalog::Release;
use super::command::Denied;
use crate::store::{Device, Phase};

/// Most names that a warning lists.
const NAMES_MAX: usize = 8;

/// Devices that a release is meant for.
#[derive(Clone, Copy, Debug, Default)]
struct Audience {
    /// Devices in the group.
    in_group: u64,
    /// Those of the release's class among them.
    of_class: u64,
    /// Those of these that will refuse the release: they reported that they run a higher sequence number.
    ahead: u64,
    /// The highest of these numbers.
    highest: u64,
}

impl Audience {
    /// Looks at each of `devices`, which are all in the group.
    fn of<'d>(release: &Release, devices: impl Iterator<Item = &'d Device>) -> Self {
        let mut audience = Self::default();
        for device in devices {
            audience.in_group += 1;
            if device.class != release.class {
                continue;
            }
            audience.of_class += 1;
            let runs = device.reported.sequence;
            if runs > release.sequence {
                audience.ahead += 1;
                audience.highest = audience.highest.max(runs);
            }
        }
        audience
    }
}

/// What to do to go back to an older image.
fn how_to_go_back(highest: u64) -> String {
    let sequence = highest.saturating_add(1);
    format!("to go back on purpose, build the older image again with --sequence {sequence} or higher")
}

impl Fleet {
    /// What is to be said of a release that is published.
    pub(super) fn warnings_of_release(&self, release: &Release) -> Vec<Warning> {
        let of_class = |device: &&Device| device.is_accepted() && device.class == release.class;
        let audience = Audience::of(release, self.registry.devices_after(None).filter(of_class));
        let Audience { of_class: all, ahead, highest, .. } = audience;
        let text = || {
            format!(
                "{ahead} of {all} devices of this class reported sequence numbers up to {highest} and will refuse {}; {}",
                release.sequence,
                how_to_go_back(highest),
            )
        };
        let downgrade = (ahead > 0).then(|| warning(WarningKind::Downgrade, ahead, text()));
        downgrade.into_iter().collect()
    }

    /// Refuses a campaign that every device of its group and class would refuse.
    ///
    /// # Errors
    /// [`Denied::Downgrade`].
    pub(super) fn check_sequence(&self, release: &Release, group: &GroupName) -> Result<(), Denied> {
        let Audience { of_class, ahead, highest, .. } = self.audience(release, group);
        if of_class > 0 && ahead == of_class {
            let (group, sequence) = (group.clone(), release.sequence);
            return Err(Denied::Downgrade { group, devices: ahead, sequence, highest });
        }
        Ok(())
    }

    fn audience(&self, release: &Release, group: &GroupName) -> Audience {
        let in_group = |device: &&Device| device.groups().contains(group);
        Audience::of(release, self.registry.devices_after(None).filter(in_group))
    }

    /// What is to be said of a new campaign; asked for before it is in force.
    pub(super) fn warnings_of_campaign(&self, release: &Release, group: &GroupName) -> Vec<Warning> {
        let mut warnings = Vec::new();
        let Audience { in_group, of_class, ahead, highest } = self.audience(release, group);
        if in_group == 0 {
            let known = listed(self.groups_in_use().iter().map(ToString::to_string));
            let text = format!(
                "nobody is in group {group}, so that nothing happens until `whimbrel device groups ID {group}` puts a \
                 device into it; groups with devices: {known}"
            );
            warnings.push(warning(WarningKind::EmptyGroup, 0, text));
        } else if of_class < in_group {
            let others = in_group - of_class;
            let text = format!(
                "{others} of {in_group} devices in group {group} are of another class than the release and get nothing \
                 from this campaign: give them a group of their own, or build the release with their --class"
            );
            warnings.push(warning(WarningKind::OtherClass, others, text));
        }
        if ahead > 0 {
            let text = format!(
                "{ahead} of {of_class} devices in group {group} reported sequence numbers up to {highest} and will refuse \
                 {}; {}",
                release.sequence,
                how_to_go_back(highest),
            );
            warnings.push(warning(WarningKind::Downgrade, ahead, text));
        }
        let before = self.campaigns.of_group(group).filter(|before| before.phase() == Phase::Active);
        warnings.extend(before.map(|before| self.warning_of_replacing(before)));
        warnings
    }

    fn warning_of_replacing(&self, before: &Campaign) -> Warning {
        let document = before.document();
        let tally = before.tally(self.registry.members(document.order.class, &document.group) as u64);
        let confirmed = tally.in_state(State::Confirmed);
        let unfinished = tally.total.saturating_sub(confirmed);
        let (id, group) = (before.id().to_hex(), &document.group);
        let release = document.order.release.to_hex();
        let text = format!(
            "campaign {id} of group {group} does not run any more, {confirmed} of its {} devices had confirmed; `whimbrel \
             campaign create --release {} --group {group}` brings it back",
            tally.total,
            release.get(..12).unwrap_or(&release),
        );
        warning(WarningKind::ReplacesCampaign, unfinished, text)
    }

    /// Groups that a device is in.
    fn groups_in_use(&self) -> BTreeSet<&GroupName> {
        self.registry.devices_after(None).flat_map(Device::groups).collect()
    }

    /// What is to be said of a device that is accepted with these groups; `None` for those that it has.
    pub(super) fn warnings_of_acceptance(
        &self,
        device: &Device,
        groups: Option<&[GroupName]>,
    ) -> Vec<Warning> {
        let leaves = groups.and_then(|groups| warning_of_leaving(device, groups));
        let warnings = leaves.into_iter().chain(self.warning_of_class(device));
        warnings.collect()
    }

    /// A device whose class no release is for waits for ever.
    pub(super) fn warning_of_class(&self, device: &Device) -> Option<Warning> {
        let classes: BTreeSet<_> = self.catalog.releases().map(|release| release.class.to_hex()).collect();
        let class = device.class.to_hex();
        if classes.is_empty() || classes.contains(&class) {
            return None;
        }
        let text = format!(
            "device {} is of class {class}, and every release is for another: {}; compare vendor and class in its \
             configuration with those of `whimbrel release build`",
            device.id,
            listed(classes.into_iter()),
        );
        Some(warning(WarningKind::OtherClass, 1, text))
    }
}

fn warning_of_leaving(device: &Device, groups: &[GroupName]) -> Option<Warning> {
    let left = device.groups().iter().filter(|group| !groups.contains(group));
    let left: Vec<&str> = left.map(GroupName::as_str).collect();
    if left.is_empty() {
        return None;
    }
    let all: Vec<&str> = left.iter().copied().chain(groups.iter().map(GroupName::as_str)).collect();
    let text = format!(
        "device {id} is not in {} any more; `whimbrel device groups {id} {}` puts it into all of them",
        left.join(", "),
        all.join(" "),
        id = device.id,
    );
    Some(warning(WarningKind::LeavesGroup, 1, text))
}

fn warning(kind: WarningKind, devices: u64, text: String) -> Warning {
    Warning { kind, devices, text }
}

/// The first few names; `none` if there are none.
fn listed(names: impl ExactSizeIterator<Item = String>) -> String {
    let more = names.len().saturating_sub(NAMES_MAX);
    let first: Vec<String> = names.take(NAMES_MAX).collect();
    match (first.is_empty(), more) {
        (true, _) => "none".to_owned(),
        (false, 0) => first.join(", "),
        (false, more) => format!("{} and {more} more", first.join(", ")),
    }
}
