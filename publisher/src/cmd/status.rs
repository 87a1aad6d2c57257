//! `whimbrel status`

use anyhow::Result;
use whimbrel_api::{Attachment, Status, routes};

use super::{Context, Progress, Screen};
use crate::output::{Fields, Value};

pub(super) fn run(context: &Context) -> Result<Screen> {
    let client = context.client()?;
    let _waiting = Progress::open_ended("waiting for the service");
    let status: Status = client.get(routes::STATUS)?;
    let counters = status.counters.iter().filter(|(_, count)| **count > 0);
    let counters = counters.map(|(name, count)| format!("{name} {count}").into()).collect::<Vec<Value>>();
    let mut fields = Fields::new()
        .with("service", status.version.as_str())
        .with(
            "broker",
            match status.attached {
                Attachment::Embedded => "its own",
                elsewhere => elsewhere.name(),
            },
        )
        .with("broker_up", status.broker_up)
        .with("prefix", status.prefix.as_str())
        .with("devices_accepted", Value::Count(status.devices.accepted))
        .with("devices_pending", Value::Count(status.devices.pending))
        .with("releases", Value::Count(status.releases))
        .with("campaigns", Value::Count(status.campaigns));
    if let Some(doubt) = &status.clock {
        fields.add("signing", format!("stopped: {}", doubt.text));
    }
    if let Some(doubt) = &status.store {
        fields.add("signing", format!("stopped: {}", doubt.text));
    }
    let fields = fields.with("counters", counters);
    Ok(Screen::of(fields.human(), &status))
}
