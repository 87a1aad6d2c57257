//! A service in memory: one device, one live release, everything signed for real.

use alloc::sync::Arc;

use lzma_rust2::{LzmaOptions, LzmaWriter, Write as _};
use whimbrel_protocol::chunk::{ChunkSalt, Index, Layout};
use whimbrel_protocol::envelope::{Envelope, Unverified};
use whimbrel_protocol::ids::{Digest, PayloadTag};
use whimbrel_protocol::manifest::{
    Codec, DecoderMemory, Filter, Image, ImageId, Images, LzmaHeader, LzmaProperties, PatchSource,
    RUNNING_COMPONENT, ReleaseManifest, TransferDescriptor,
};
use whimbrel_protocol::message::{ChunkMessage, Outcome, PageMessage, PageNumber, Report};
use whimbrel_protocol::server::{
    DeviceView, Document, Event, GroupDocument, Input, Live, LivePayload, Output, ServerSession, Standing,
};
use whimbrel_protocol::testing::{Fixture, OrderOptions};
use whimbrel_protocol::time::Instant;
use whimbrel_protocol::topic::Channel;

/// A release with its payload.
#[derive(Debug)]
pub(crate) struct Release {
    pub(crate) envelope: Vec<u8>,
    pub(crate) digest: Digest,
    pub(crate) sequence: u64,
    pub(crate) image: Vec<u8>,
    pub(crate) payload: Vec<u8>,
    pub(crate) transfer: TransferDescriptor,
    pub(crate) index: Index,
    /// For a patch the image that it starts from.
    pub(crate) base: Option<ImageId>,
    /// For a patch the image as it is.
    pub(crate) full: Option<Carried>,
}

/// What is transferred for an image, cut and indexed.
#[derive(Debug)]
pub(crate) struct Carried {
    pub(crate) payload: Vec<u8>,
    pub(crate) transfer: TransferDescriptor,
    pub(crate) index: Index,
}

impl Carried {
    fn new(image: &[u8], payload: Payload) -> Self {
        let Payload { bytes: payload, decoder, chunk_size_log2 } = payload;
        let salt = ChunkSalt { image: Digest::of(image), transfer_size: payload.len() as u64 };
        let layout = Layout::new(chunk_size_log2, payload.len() as u64).unwrap();
        let index = Index::build(salt, layout, &payload);
        let transfer = match decoder {
            Some(decoder) => TransferDescriptor::lzma(layout, index.digest, decoder),
            None => TransferDescriptor::raw(layout, index.digest),
        };
        Self { payload, transfer, index }
    }
}

fn envelope(fixture: &Fixture, image: Image, sequence: u64) -> (Vec<u8>, Digest) {
    let manifest = ReleaseManifest {
        vendor: fixture.vendor,
        class: fixture.class,
        version: vec![1, 0, i64::try_from(sequence).unwrap()],
        sequence,
        images: Images::Any(image),
        text: None,
    };
    let mut envelope = Envelope::<Unverified>::unsigned(&manifest.build().unwrap()).unwrap();
    envelope.sign(&fixture.release_key).unwrap();
    (envelope.bytes().to_vec(), envelope.claimed_digest())
}

/// What is transferred for an image.
#[derive(Clone, Debug)]
pub(crate) struct Payload {
    pub(crate) bytes: Vec<u8>,
    /// For codec lzma.
    pub(crate) decoder: Option<DecoderMemory>,
    pub(crate) chunk_size_log2: u64,
}

impl Release {
    /// A release of `image`, cut into chunks of 1 KiB.
    pub(crate) fn new(fixture: &Fixture, codec: Codec, image: Vec<u8>, sequence: u64) -> Self {
        Self::cut(fixture, codec, image, sequence, 10)
    }

    /// A release of `image`, cut into chunks of `2^chunk_size_log2` bytes.
    pub(crate) fn cut(
        fixture: &Fixture,
        codec: Codec,
        image: Vec<u8>,
        sequence: u64,
        chunk_size_log2: u64,
    ) -> Self {
        let (payload, decoder) = match codec {
            Codec::Lzma => {
                let (payload, header) = compress(&image, Filter::None);
                (payload, Some(header.decoder()))
            }
            Codec::Raw | Codec::Patch => (image.clone(), None),
        };
        let payload = Payload { bytes: payload, decoder, chunk_size_log2 };
        Self::with_payload(fixture, image, payload, sequence)
    }

    /// A release whose payload is what one likes it to be.
    pub(crate) fn with_payload(fixture: &Fixture, image: Vec<u8>, payload: Payload, sequence: u64) -> Self {
        let Carried { payload, transfer, index } = Carried::new(&image, payload);
        let source = Image::new(Digest::of(&image), image.len() as u64, transfer);
        let (envelope, digest) = envelope(fixture, source, sequence);
        Self { envelope, digest, sequence, image, payload, transfer, index, base: None, full: None }
    }

    /// A release whose payload says that it is a patch on `base`, with the image as it is for devices without that.
    pub(crate) fn with_patch(
        fixture: &Fixture,
        image: Vec<u8>,
        payload: Payload,
        base: ImageId,
        sequence: u64,
    ) -> Self {
        let full = Carried::new(&image, Payload { bytes: image.clone(), decoder: None, chunk_size_log2: 10 });
        let mut patch = Carried::new(&image, payload);
        let Carried { transfer, .. } = &mut patch;
        let decoder = transfer.decoder.expect("a patch has a decoder");
        *transfer =
            TransferDescriptor::patch(transfer.layout, transfer.index_digest, RUNNING_COMPONENT, decoder);
        let way = PatchSource::new(base, patch.transfer);
        let source =
            Image { patches: vec![way], ..Image::new(Digest::of(&image), image.len() as u64, full.transfer) };
        let (envelope, digest) = envelope(fixture, source, sequence);
        let Carried { payload, transfer, index } = patch;
        Self {
            envelope,
            digest,
            sequence,
            image,
            payload,
            transfer,
            index,
            base: Some(base),
            full: Some(full),
        }
    }

    /// The payload with this tag.
    fn carried(&self, tag: PayloadTag) -> (&[u8], &TransferDescriptor, &Index) {
        match &self.full {
            Some(full) if full.transfer.tag() == tag => (&full.payload, &full.transfer, &full.index),
            _ => (&self.payload, &self.transfer, &self.index),
        }
    }

    pub(crate) fn tag(&self) -> PayloadTag {
        self.transfer.tag()
    }
}

/// Compresses as the publisher does.
pub(crate) fn compress(image: &[u8], filter: Filter) -> (Vec<u8>, LzmaHeader) {
    let properties = LzmaProperties { lc: 3, lp: 0, pb: 2 };
    let header =
        LzmaHeader { filter, properties, dictionary_bytes: 64 * 1024, image_size: image.len() as u64 };
    let mut options = LzmaOptions::with_preset(1);
    (options.dict_size, options.lc, options.lp, options.pb) = (header.dictionary_bytes, 3, 0, 2);
    let filtered = match filter {
        Filter::None => image.to_vec(),
        Filter::Arm64 => {
            let mut writer = lzma_rust2::filter::bcj::BcjWriter::new_arm64(Vec::new(), 0);
            writer.write_all(image).unwrap();
            writer.finish().unwrap()
        }
        other => panic!("{} is not used here", other.name()),
    };
    let mut writer = LzmaWriter::new_no_header(header.encode().to_vec(), &options, false).unwrap();
    writer.write_all(&filtered).unwrap();
    (writer.finish().unwrap(), header)
}

/// What the service has and counts. Cuts of the device's power leave it alone.
#[derive(Clone, Debug)]
pub(crate) struct Service {
    pub(crate) fixture: Arc<Fixture>,
    pub(crate) releases: Vec<Arc<Release>>,
    /// The release that is rolled out.
    pub(crate) live: usize,
    /// Attempt of the live campaign.
    pub(crate) attempt: u64,
    /// Once this many payload bytes were served, the next release is rolled out.
    pub(crate) next_release_after: Option<u64>,
    pub(crate) reports: Vec<Report>,
    /// Payload bytes sent, of the live release.
    pub(crate) served: u64,
    /// Payload bytes sent of the image as it is, where there is a patch.
    pub(crate) served_full: u64,
    /// Index pages sent, of the live release.
    pub(crate) pages: u64,
    version: u64,
    assignment: Arc<[u8]>,
    campaign: Arc<[u8]>,
}

impl Service {
    pub(crate) fn new(fixture: Arc<Fixture>, releases: Vec<Arc<Release>>) -> Self {
        let assignment = fixture.assignment(1, core::slice::from_ref(&fixture.group), None).into();
        let mut service = Self {
            fixture,
            releases,
            live: 0,
            attempt: 1,
            next_release_after: None,
            reports: Vec::new(),
            served: 0,
            served_full: 0,
            pages: 0,
            version: 0,
            assignment,
            campaign: Arc::from([]),
        };
        service.publish();
        service
    }

    pub(crate) fn release(&self) -> &Arc<Release> {
        &self.releases[self.live]
    }

    /// Rolls out the next release.
    pub(crate) fn next_release(&mut self) {
        self.live += 1;
        self.attempt = 1;
        self.served = 0;
        self.served_full = 0;
        self.pages = 0;
        self.next_release_after = None;
        self.publish();
    }

    /// Signs the campaign anew.
    fn publish(&mut self) {
        self.version += 1;
        let options = OrderOptions {
            version: self.version,
            attempt: self.attempt,
            campaign: u8::try_from(self.live + 1).unwrap(),
            ..OrderOptions::default()
        };
        let release = self.release();
        let mut order = self.fixture.order(&sketch(release), options);
        order.image_size = release.image.len() as u64;
        self.campaign = self.fixture.campaign_of(&self.fixture.group, order, options).into();
    }

    /// What a broker delivers to somebody who subscribes to `channel`.
    pub(crate) fn retained(&self, channel: &Channel) -> Option<Vec<u8>> {
        match channel {
            Channel::Assignment => Some(self.assignment.to_vec()),
            Channel::Group(_) => Some(self.campaign.to_vec()),
            _ => None,
        }
    }

    /// Feeds the session one message of the device and returns what goes to the device.
    pub(crate) fn serve(
        &mut self,
        session: &mut ServerSession,
        now: Instant,
        input: Input<'_>,
    ) -> Vec<(Channel, Vec<u8>)> {
        let mut down = Vec::new();
        self.feed(session, now, input);
        while let Some(output) = session.poll_output() {
            match output {
                Output::Answer(answer) => down.push((Channel::Answers, self.fixture.answer(&answer))),
                Output::Assignment => down.push((Channel::Answers, self.assignment.to_vec())),
                Output::Campaign(_) => down.push((Channel::Answers, self.campaign.to_vec())),
                Output::Manifest(_) => down.push((Channel::Answers, self.release().envelope.clone())),
                Output::Refuse(refusal) => down.push((Channel::Answers, refusal.encode())),
                Output::Chunks { payload, runs, .. } => {
                    let release = Arc::clone(self.release());
                    let (content, transfer, _) = release.carried(payload);
                    let is_full = payload != release.tag();
                    for (first, count) in runs {
                        let range = transfer.layout.bytes_of(first, count);
                        let range =
                            usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap();
                        *(if is_full { &mut self.served_full } else { &mut self.served }) +=
                            range.len() as u64;
                        let bytes = &content[range];
                        down.push((Channel::Answers, ChunkMessage::encode(payload, first, bytes)));
                    }
                }
                Output::Page { payload, page, .. } => {
                    self.pages += 1;
                    let (_, _, index) = self.release().carried(payload);
                    let bytes = match page {
                        PageNumber::List => &index.list[..],
                        PageNumber::Page(number) => index.page(number),
                    };
                    down.push((Channel::Answers, PageMessage::encode(payload, page, bytes)));
                }
                Output::Event(Event::Reported { report, digest, .. }) => {
                    self.take_report(report);
                    self.feed(session, now, Input::ReportStored { report: digest });
                }
                Output::Event(_) => {}
            }
        }
        if self.next_release_after.is_some_and(|after| self.served >= after) {
            self.next_release();
        }
        down
    }

    fn take_report(&mut self, report: Report) {
        if self.reports.contains(&report) {
            return;
        }
        let current = report.release == self.release().digest && report.attempt == self.attempt;
        if current && report.outcome != Outcome::Confirmed {
            self.attempt += 1;
            self.publish();
        }
        self.reports.push(report);
    }

    fn feed(&self, session: &mut ServerSession, now: Instant, input: Input<'_>) {
        let key = self.fixture.device_key.public();
        let release = self.release();
        let full = release.full.as_ref().map(|full| &full.transfer);
        let payloads: Vec<_> = [Some(&release.transfer), full]
            .into_iter()
            .flatten()
            .map(|transfer| LivePayload { tag: transfer.tag(), layout: transfer.layout })
            .collect();
        let campaigns = [GroupDocument {
            group: self.fixture.group.clone(),
            document: Document { version: self.version },
        }];
        let view = DeviceView {
            standing: Standing::Accepted { key: &key },
            root_version: 1,
            assignment: Some(Document { version: 1 }),
            campaigns: &campaigns,
            live: Some(Live { release: release.digest, payloads: &payloads }),
        };
        let today = self.fixture.issued.plus_secs(60 + now.as_millis() / 1000);
        session.handle_input(now, today, &view, input);
    }
}

/// As much of a release as an order is made from.
fn sketch(release: &Release) -> whimbrel_protocol::testing::Release {
    whimbrel_protocol::testing::Release {
        envelope: release.envelope.clone(),
        digest: release.digest,
        sequence: release.sequence,
        image: Vec::new(),
        payload: Vec::new(),
        layout: release.transfer.layout,
        index: release.index.clone(),
        patches: Vec::new(),
    }
}
