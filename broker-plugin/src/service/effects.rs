//! What the two machines put out, carried out. Nothing here decides.

use alloc::sync::Arc;

use super::{Done, Service};
use crate::attach::{BrokerLink, Outgoing};
use crate::fleet::{self, Document, Job};
use crate::metrics::Counters;
use crate::serving::{self, Extent};
use crate::store::{Change, PayloadRow, Series, SignedMark, StoreError, StoreHandle};

/// Inputs of the serving half for which room is kept while there are none.
const INPUTS_KEPT: usize = 1024;

impl<L: BrokerLink> Service<L> {
    /// Feeds the serving, and carries out all that comes of it.
    pub(super) fn serve(&mut self, input: serving::Input<'_>) {
        self.serving.handle_input(self.now, self.today, &self.fleet, input);
        self.settle();
    }

    /// Feeds the fleet, and carries out all that comes of it.
    pub(super) fn decide(&mut self, input: fleet::Input) {
        self.fleet.handle_input(self.now, self.today, input);
        self.settle();
    }

    /// Carries out what the machines put out until neither has anything more to say.
    pub(super) fn settle(&mut self) {
        loop {
            while let Some(output) = self.serving.poll_output() {
                self.carry_out_serving(output);
            }
            while let Some(output) = self.fleet.poll_output() {
                self.carry_out_fleet(output);
            }
            if let Some(input) = self.for_fleet.pop_front() {
                self.fleet.handle_input(self.now, self.today, input);
            } else if let Some(input) = self.for_serving.pop_front() {
                self.serving.handle_input(self.now, self.today, &self.fleet, input);
            } else {
                // An import of many devices passes through here at once; what it needed is given back.
                self.for_serving.shrink_to(INPUTS_KEPT);
                return;
            }
        }
    }

    fn carry_out_serving(&mut self, output: serving::Output) {
        match output {
            serving::Output::Publish(message) => self.publish(message),
            // The answer would say what time it is, with a signature. Documents that were signed before go out.
            serving::Output::Answer { .. } if self.doubt.is_some() || self.store_doubt.is_some() => {
                Counters::count(&self.counters.answers_withheld);
            }
            serving::Output::Answer { topic, answer } => {
                let payload = self.authority.answer(&answer);
                self.publish(Outgoing::to_device(topic, payload));
            }
            serving::Output::Read { extent, payload } => self.read(extent, payload),
            serving::Output::Fleet(input) => self.for_fleet.push_back(input),
            serving::Output::Event(event) => super::events::of_serving(&event),
        }
    }

    fn carry_out_fleet(&mut self, output: fleet::Output) {
        match output {
            fleet::Output::NextVersions(of) => {
                let (store, mark, done) = (self.store.clone(), Arc::clone(&self.mark), self.done.clone());
                self.elsewhere.spawn(async move {
                    let versions = next_versions(&store, mark, of).await.map_err(Arc::new);
                    let _stopping = done.send(Done::Fleet(fleet::Input::Versions(versions)));
                });
            }
            fleet::Output::Sign(documents) => self.sign(documents),
            fleet::Output::Store { job, changes } => self.store(job, changes),
            fleet::Output::Changed(device) => {
                if let Some(known) = self.fleet.registry().device(&device) {
                    self.membership.enter(known);
                    self.link.device_is(&device, known.assignment());
                }
                self.for_serving.push_back(serving::Input::Changed(device));
            }
            fleet::Output::Publish(publication) => {
                self.for_serving.push_back(serving::Input::Publish(publication));
            }
            fleet::Output::ReportStored { device, digest } => {
                self.for_serving.push_back(serving::Input::ReportStored { device, digest });
            }
            fleet::Output::Answer(answer) => answer.deliver(),
            fleet::Output::ShowDevice { device, reply } => {
                let heard = |device: &_| self.serving.heard(device);
                self.fleet.show_device(self.now, self.today, &device, reply, &heard).deliver();
            }
            fleet::Output::Event(event) => super::events::of_fleet(&event, &self.counters),
        }
    }

    fn publish(&mut self, message: Outgoing) {
        match self.link.publish(message) {
            Ok(()) => Counters::count(&self.counters.messages_out),
            Err(error) => {
                Counters::count(&self.counters.publish_failures);
                tracing::warn!(reason = %error, "message not sent");
            }
        }
    }

    fn read(&self, extent: Extent, payload: PayloadRow) {
        let (payloads, done) = (Arc::clone(&self.payloads), self.done.clone());
        self.elsewhere.spawn_blocking(move || {
            let result = extent.read(&*payloads, &payload);
            let _stopping = done.send(Done::Serving(serving::Input::Read { extent, result }));
        });
    }

    fn sign(&self, documents: Vec<Document>) {
        let (authority, done) = (Arc::clone(&self.authority), self.done.clone());
        self.elsewhere.spawn(async move {
            let sign = move || documents.iter().map(|document| authority.sign(document)).collect();
            // None if the thread panicked: the fleet then refuses the change.
            let signed = tokio::task::spawn_blocking(sign).await.unwrap_or_default();
            let _stopping = done.send(Done::Fleet(fleet::Input::Signed(signed)));
        });
    }

    /// An operator's change waits for its place in the queue; whatever else finds no place is given up.
    fn store(&mut self, job: Job, changes: Vec<Change>) {
        let done = self.done.clone();
        if job == Job::Change {
            let store = self.store.clone();
            self.elsewhere.spawn(async move {
                let applied = store.apply(changes).await;
                let _stopping = done.send(Done::Fleet(fleet::Input::Stored { job, applied }));
            });
            return;
        }
        let back = job.clone();
        let taken = self.store.submit(changes, move |applied| {
            let _stopping = done.send(Done::Fleet(fleet::Input::Stored { job, applied }));
        });
        if !taken {
            self.for_fleet.push_back(fleet::Input::NotTaken(back));
        }
    }
}

/// Takes versions from the store, and notes in the mark that they were handed out. Only then they are used.
async fn next_versions(
    store: &StoreHandle,
    mark: Arc<SignedMark>,
    of: Vec<Series>,
) -> Result<Vec<u64>, StoreError> {
    let versions = store.next_versions(of.clone()).await?;
    let marked = tokio::task::spawn_blocking(move || mark.raise(&of, &versions).map(|()| versions)).await;
    let versions = marked.unwrap_or(Err(StoreError::Closed));
    versions.inspect_err(|error| tracing::error!(reason = %error, "mark not written"))
}
