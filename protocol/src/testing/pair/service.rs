//! The service's half of a [`Pair`]: its data, and how it carries out what its session wants.

use alloc::vec::Vec;

use super::Pair;
use crate::ids::{ChunkIndex, PayloadTag};
use crate::message::{ChunkMessage, PageMessage, PageNumber, Refusal, RefusalCode};
use crate::server::{DeviceView, Document, Event, GroupDocument, Input, Live, LivePayload, Output, Standing};
use crate::testing::fixture::{Part, Release};

/// What the service of a pair publishes and serves.
#[derive(Clone, Debug)]
pub struct ServiceData {
    /// Version of the root that the service says is current.
    pub root_version: u64,
    /// Releases by digest.
    pub releases: Vec<Release>,
    /// The assignment, with its version.
    pub assignment: Option<(u64, Vec<u8>)>,
    /// Campaigns of groups, with their versions.
    pub campaigns: Vec<(GroupDocument, Vec<u8>)>,
    /// The release that may be asked for: index into `releases`.
    pub live: Option<usize>,
    /// Reports that the service has stored.
    pub reports: Vec<crate::message::Report>,
}

impl ServiceData {
    fn part(&self, payload: PayloadTag) -> Option<Part> {
        self.releases.iter().flat_map(Release::parts).find(|part| part.tag() == payload)
    }
}

impl Pair {
    /// Feeds the service one input, then carries out what it wants.
    pub(super) fn serve(&mut self, input: Input<'_>) {
        let key = self.fixture.device_key.public();
        let campaigns: Vec<GroupDocument> = match self.options.accepted {
            true => self.service.campaigns.iter().map(|(head, _)| head.clone()).collect(),
            false => Vec::new(),
        };
        let live = self.service.live.and_then(|live| self.service.releases.get(live));
        let payloads: Vec<LivePayload> = live
            .iter()
            .flat_map(|release| release.parts())
            .map(|part| LivePayload { tag: part.tag(), layout: part.layout })
            .collect();
        let view = DeviceView {
            standing: match (self.options.accepted, &self.service.assignment) {
                (true, _) => Standing::Accepted { key: &key },
                (false, _) => Standing::Unknown,
            },
            root_version: self.service.root_version,
            assignment: self.service.assignment.as_ref().map(|(version, _)| Document { version: *version }),
            campaigns: &campaigns,
            live: live.map(|release| Live { release: release.digest, payloads: &payloads }),
        };
        let today = self.fixture.issued.plus_secs(60 + self.now.as_millis() / 1000);
        self.server.handle_input(self.now, today, &view, input);
        while let Some(output) = self.server.poll_output() {
            self.answer(output);
        }
    }

    fn answer(&mut self, output: Output) {
        match output {
            Output::Answer(answer) => {
                let bytes = self.fixture.answer(&answer);
                self.send_down(bytes);
            }
            Output::Assignment => {
                if let Some((_, bytes)) = self.service.assignment.clone() {
                    self.send_down(bytes);
                }
            }
            Output::Campaign(group) => {
                let found = self.service.campaigns.iter().find(|(head, _)| head.group == group);
                if let Some((_, bytes)) = found.cloned() {
                    self.send_down(bytes);
                }
            }
            Output::Manifest(digest) => {
                let found = self.service.releases.iter().find(|release| release.digest == digest);
                if let Some(bytes) = found.map(|release| release.envelope.clone()) {
                    self.send_down(bytes);
                }
            }
            Output::Chunks { payload, runs, .. } => {
                if self.options.busy_one_in > 0 && self.jitter.below(self.options.busy_one_in) == 0 {
                    let refusal =
                        Refusal { code: RefusalCode::Busy, retry_after_s: Some(5), payload: Some(payload) };
                    return self.send_down(refusal.encode());
                }
                for (first, count) in runs {
                    self.send_chunks(payload, first, count);
                }
            }
            Output::Page { payload, page, .. } => {
                let bytes = self.service.part(payload).map(|part| match page {
                    PageNumber::List => part.index.list.clone(),
                    PageNumber::Page(number) => part.index.page(number).to_vec(),
                });
                if let Some(bytes) = bytes {
                    self.send_down(PageMessage::encode(payload, page, &bytes));
                }
            }
            Output::Refuse(refusal) => self.send_down(refusal.encode()),
            Output::Event(event) => {
                if let Event::Reported { report, digest, .. } = &event {
                    if !self.service.reports.contains(report) {
                        self.service.reports.push(report.clone());
                    }
                    let report = *digest;
                    self.server_events.push(event);
                    return self.serve(Input::ReportStored { report });
                }
                self.server_events.push(event);
            }
        }
    }

    fn send_chunks(&mut self, payload: PayloadTag, first: ChunkIndex, count: u32) {
        let Some(part) = self.service.part(payload) else {
            return;
        };
        let range = part.layout.bytes_of(first, count);
        let range = usize::try_from(range.start).unwrap_or(0)..usize::try_from(range.end).unwrap_or(0);
        let bytes = part.bytes.get(range).unwrap_or_default();
        self.served_bytes += bytes.len() as u64;
        *self.served.entry(payload).or_default() += bytes.len() as u64;
        let message = ChunkMessage::encode(payload, first, bytes);
        self.send_down(message);
    }
}
