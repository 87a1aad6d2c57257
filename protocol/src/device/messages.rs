//! What each message is, and which machine takes it.

use super::DeviceSession;
use super::documents::Taken;
use super::ending;
use super::event::{Event, Reason};
use super::fetch::Checked;
use super::release::NotTaken;
use crate::message::{Answer, HelloAnswer, Refusal, RefusalCode};
use crate::topic::Channel;

/// The first bytes of a SUIT envelope: tag 107.
const ENVELOPE_TAG: [u8; 2] = [0xd8, 0x6b];

impl DeviceSession {
    pub(super) fn message(&mut self, channel: Channel, payload: &[u8]) {
        if payload.is_empty() {
            return self.context.reject(channel, Reason::Empty);
        }
        let len = payload.len();
        match channel {
            Channel::Answers => match Answer::decode(payload) {
                Ok(Answer::Chunk(chunks)) => {
                    let checked = self.work.chunks(&mut self.context, &chunks, len);
                    self.checked(checked);
                }
                Ok(Answer::Page(page)) => {
                    let checked = self.work.page(&mut self.context, &page, len);
                    self.checked(checked);
                }
                Ok(Answer::Refusal(refusal)) => self.refused(refusal),
                Ok(Answer::Signed(object)) => self.signed(channel, object),
                Err(error) => self.unsolicited(channel, len, Reason::Malformed(error)),
            },
            Channel::Assignment | Channel::Group(_) | Channel::Beacon => self.signed(channel, payload),
            Channel::Requests | Channel::Reports => self.unsolicited(channel, len, Reason::WrongChannel),
        }
    }

    /// A message of `bytes` arrived on a topic that is none of the device's. The host tells people.
    pub(super) fn foreign(&mut self, bytes: usize) {
        self.link.unasked(&mut self.context, bytes);
    }

    /// A signed object arrived on `channel`.
    fn signed(&mut self, channel: Channel, object: &[u8]) {
        if object.starts_with(&ENVELOPE_TAG) {
            if channel == Channel::Answers {
                return self.envelope(object);
            }
            return self.unsolicited(channel, object.len(), Reason::WrongChannel);
        }
        if let Err(reason) = self.document(&channel, object) {
            self.unsolicited(channel, object.len(), reason);
        }
    }

    /// A SUIT envelope arrived, or is at hand.
    pub(super) fn envelope(&mut self, bytes: &[u8]) {
        let taken = self.work.take_envelope(&mut self.context, &self.documents.root, bytes);
        if let Err(not_taken) = taken {
            self.unsolicited(Channel::Answers, bytes.len(), not_taken.reason());
            if let NotTaken::Ordered(error) = not_taken {
                self.work.not_passed(&mut self.context, error);
            }
        }
    }

    fn document(&mut self, channel: &Channel, bytes: &[u8]) -> Result<(), Reason> {
        let ask_within_ms = match self.documents.take(&mut self.context, channel, bytes)? {
            Taken::Known => {
                self.link.replayed(&mut self.context, channel.clone(), bytes.len());
                None
            }
            Taken::Answer(answer) => {
                self.hello_answer(answer)?;
                None
            }
            Taken::Order { ask_within_ms } => {
                self.compare();
                ask_within_ms
            }
            Taken::Beacon { ask_within_ms } => ask_within_ms,
        };
        if let Some(ms) = ask_within_ms {
            self.link.hello_within(&mut self.context, ms);
        }
        Ok(())
    }

    fn hello_answer(&mut self, answer: HelloAnswer) -> Result<(), Reason> {
        let report = answer.report;
        self.link.take_answer(&mut self.context, answer, self.documents.root.version)?;
        if let Some(report) = report {
            let before = self.context.record().reports.len();
            ending::acknowledged(&mut self.context, report);
            if self.context.record().reports.len() < before {
                self.link.report_arrived();
            }
        }
        self.work.clock_set(self.context.now);
        self.compare();
        Ok(())
    }

    /// Compares what is held with what the last answer said is current. Once nothing is missing, a report that was
    /// not acknowledged is sent again.
    fn compare(&mut self) {
        if self.link.compare(self.context.record())
            && self.work.endings.publish_oldest_report(&mut self.context)
        {
            self.link.ask_for_report(&mut self.context);
        }
    }

    fn refused(&mut self, refusal: Refusal) {
        let Refusal { code, retry_after_s, .. } = refusal;
        self.context.tell(Event::Refused { code, retry_after_s });
        let wait_ms = retry_after_s.map(|seconds| u64::from(seconds) * 1000);
        match code {
            RefusalCode::Unknown | RefusalCode::Pending => {
                self.link.not_accepted(&mut self.context, code, wait_ms);
            }
            RefusalCode::Busy
            | RefusalCode::OverQuota
            | RefusalCode::NotYours
            | RefusalCode::NotFound
            | RefusalCode::Version
            | RefusalCode::Malformed => {
                if let Some(refused) = self.work.refused(&mut self.context, refusal, wait_ms) {
                    self.link.work_refused(&mut self.context, refused);
                }
            }
        }
    }

    /// A message of the download was checked.
    fn checked(&mut self, checked: Checked) {
        if let Some(arrival) = checked.asked {
            self.link.arrived(&mut self.context, arrival);
        }
        if let Some((len, reason)) = checked.unasked {
            self.unsolicited(Channel::Answers, len, reason);
        }
    }

    fn unsolicited(&mut self, channel: Channel, len: usize, reason: Reason) {
        self.link.unsolicited(&mut self.context, channel, len, reason);
    }
}
