//! What the two machines tell, logged and counted.

use whimbrel_protocol::ids::Digest;
use whimbrel_protocol::message::FailureCode;

use crate::fleet::Event;
use crate::metrics::Counters;
use crate::serving;

pub(super) fn of_fleet(event: &Event, counters: &Counters) {
    match event {
        Event::ReleaseLeftOut { release, error } => {
            tracing::error!(%release, reason = %error, "stored release left out");
        }
        Event::CampaignLeftOut { campaign, error } => {
            tracing::error!(%campaign, reason = %error, "stored campaign left out");
        }
        Event::OtherClass { device, class } => {
            tracing::warn!(%device, %class, "device says it is of another class than it enrolled with");
        }
        Event::OtherRoot { device } => {
            tracing::warn!(%device, "device does not take its assignment, its root.cbor is probably another one");
        }
        Event::Ended { device, campaign, outcome, failure, said } => {
            let reason = failure.map(FailureCode::name);
            let said = (!said.is_empty()).then_some(said.as_str());
            tracing::info!(%device, %campaign, outcome = outcome.name(), reason, said, "deployment ended");
        }
        Event::Ignored { device, campaign, why } => {
            tracing::debug!(%device, %campaign, reason = ?why, "progress ignored");
        }
        Event::OtherKey { device } => {
            Counters::count(&counters.enrolled_with_other_key);
            tracing::debug!(%device, "device enrols with another key than it is known with");
        }
        Event::Rekeyed { device, accepted, brought, devices } => {
            tracing::warn!(
                %device, %accepted, %brought, rekeyed = devices,
                "device brings another key than the accepted one, and its reports do not count: if it is the right \
                 device, `whimbrel device reset {device}`, then `whimbrel device accept {device} --fingerprint \
                 {brought}`; if two devices have this id, give one of them another"
            );
        }
        Event::Ahead { device, devices } => {
            tracing::warn!(
                %device, devices_ahead = devices,
                "devices say that they hold newer documents than this service has signed: its database is probably an \
                 old copy; put the newest one back, or run `whimbreld store accept` if there is none newer"
            );
        }
        Event::Pending { device, fingerprint } => {
            Counters::count(&counters.enrolled);
            tracing::info!(%device, fingerprint, "device pending");
        }
        Event::PendingDropped { device } => {
            Counters::count(&counters.pending_dropped);
            tracing::debug!(%device, "pending device made room");
        }
        Event::ReportOfNothing => Counters::count(&counters.reports_of_nothing),
        Event::ReportNew => Counters::count(&counters.reports),
        Event::ReportAgain => Counters::count(&counters.reports_again),
        Event::StoreFailed => Counters::count(&counters.store_failures),
        Event::StoreOverrun => Counters::count(&counters.store_overruns),
        Event::ReleaseStored { release, version } => {
            tracing::info!(%release, version, "release stored");
        }
        Event::PayloadStored { index, bytes } => {
            tracing::info!(payload = %index, bytes, "payload stored");
        }
        Event::CampaignInForce { campaign, group, version, phase } => {
            tracing::info!(%campaign, %group, version, phase = phase.name(), "campaign in force");
        }
        Event::DeviceAccepted { device, version } => {
            tracing::info!(%device, version, "device accepted");
        }
        Event::DeviceReset { device } => tracing::info!(%device, "device reset"),
    }
}

pub(super) fn of_serving(event: &serving::Event) {
    match event {
        serving::Event::Rejected { device, reason } => {
            tracing::debug!(%device, reason = ?reason, "message rejected");
        }
        serving::Event::PayloadDamaged { index } => {
            let index = index.as_ref().map(Digest::to_hex);
            tracing::error!(payload = index, "payload on the disk is damaged, upload it again");
        }
        serving::Event::NotRead { error } => tracing::error!(reason = %error, "payload not read"),
    }
}
