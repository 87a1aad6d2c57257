//! Explains unsigned messages, as they travel on the topics `q` and `c`.

use whimbrel_protocol::codec::DecodeError;
use whimbrel_protocol::ids::Digest;
use whimbrel_protocol::message::{
    Answer, ChunkRequest, DeferReason, DocumentRequest, FailureCode, Hello, PageNumber, PageRequest, Request,
    Status,
};

use super::Explained;
use super::document::groups;
use crate::output::{Fields, Value};

/// Explains a message; `None` if this version has no message with its first byte.
pub(super) fn explain(message: &[u8]) -> Option<Explained> {
    let first = *message.first()?;
    let kind = match first {
        0x11 => "hello",
        0x12 => "chunk request",
        0x13 => "page request",
        0x14 => "document request",
        0x15 => "status",
        0x18 => "chunk message",
        0x19 => "page message",
        0x1a => "refusal",
        _ => return None,
    };
    let fields = match first {
        ..=0x17 => Request::decode(message).map(|request| match request {
            Request::Hello(hello) => describe_hello(&hello),
            Request::Chunks(request) => chunk_request(&request),
            Request::Page(request) => page_request(&request),
            Request::Document(request) => document_request(request),
            Request::Status(status) => describe_status(&status),
        }),
        _ => Answer::decode(message).and_then(|answer| describe_answer(&answer, message)),
    };
    Some(Explained::of(
        kind,
        fields.map(|fields| fields.with("message_size", Value::Bytes(message.len() as u64))),
    ))
}

fn describe_hello(hello: &Hello) -> Fields {
    Fields::new()
        .with("protocol_version_max", Value::Count(hello.version_max))
        .with("class_tag", hello.class.to_hex())
        .with("running", hello.running.to_hex())
        .with("sequence", Value::Count(hello.sequence))
        .with("root_version", Value::Count(hello.root))
        .with("assignment_version", Value::Count(hello.assignment))
        .with("groups", groups(&hello.groups))
        .with("nonce", hello.nonce.to_hex())
        .with("oldest_report", hello.report.map(|digest| digest.to_hex()))
}

fn chunk_request(request: &ChunkRequest) -> Fields {
    let wanted = request.runs().map(|(first, count)| span(first.0, count).into()).collect::<Vec<Value>>();
    Fields::new()
        .with("payload_tag", request.payload.to_hex())
        .with("first_chunk", request.first.0)
        .with("chunks", request.count)
        .with("chunks_per_message", request.per_message)
        .with("messages", wanted)
}

/// Writes the numbers of the first and the last chunk.
fn span(first: u32, count: u32) -> String {
    if count == 1 { first.to_string() } else { format!("{first}-{}", first + count - 1) }
}

fn page_request(request: &PageRequest) -> Fields {
    Fields::new().with("payload_tag", request.payload.to_hex()).with("page", page_name(request.page))
}

fn page_name(page: PageNumber) -> String {
    match page {
        PageNumber::List => "the list of page digests".into(),
        PageNumber::Page(number) => number.to_string(),
    }
}

fn document_request(request: DocumentRequest) -> Fields {
    match request {
        DocumentRequest::Manifest(release) => {
            Fields::new().with("document", "manifest").with("release", release.to_hex())
        }
        DocumentRequest::Root(version) => {
            Fields::new().with("document", "root").with("version", Value::Count(version))
        }
    }
}

fn describe_status(status: &Status) -> Fields {
    let percent = u64::from(status.chunks_held) * 100 / u64::from(status.chunks.max(1));
    Fields::new()
        .with("campaign", status.campaign.to_hex())
        .with("attempt", Value::Count(status.attempt))
        .with("state", status.state.name())
        .with("deferred_for", status.deferred.map(DeferReason::name))
        .with("failure", status.failure.map(FailureCode::name))
        .with("chunks_held", status.chunks_held)
        .with("chunks", status.chunks)
        .with("percent", Value::Count(percent))
        .with("bytes_received", Value::Bytes(status.bytes_received))
        .with("bytes_twice", Value::Bytes(status.bytes_twice))
}

/// The first two bytes of the payload's tag stand after the message's first byte.
fn describe_answer(answer: &Answer<'_>, message: &[u8]) -> Result<Fields, DecodeError> {
    let tag = message.get(1..3).map(hex::encode);
    let carried = |fields: Fields, bytes: &[u8]| {
        fields.with("carries", Value::Bytes(bytes.len() as u64)).with("sha256", Digest::of(bytes).to_hex())
    };
    Ok(match answer {
        Answer::Chunk(chunk) => {
            let fields = Fields::new().with("payload_tag_start", tag).with("first_chunk", chunk.first.0);
            carried(fields, chunk.bytes)
        }
        Answer::Page(page) => {
            let fields = Fields::new().with("payload_tag_start", tag).with("page", page_name(page.page));
            carried(fields, page.bytes).with("digests", page.bytes.len() / digest_bytes(page.page))
        }
        Answer::Refusal(refusal) => Fields::new()
            .with("reason", refusal.code.name())
            .with("retry_after_s", refusal.retry_after_s.map(|seconds| Value::Seconds(seconds.into())))
            .with("payload_tag", refusal.payload.map(|tag| tag.to_hex())),
        Answer::Signed(_) => return Err(DecodeError::Value { what: "message" }),
    })
}

const fn digest_bytes(page: PageNumber) -> usize {
    match page {
        PageNumber::List => whimbrel_protocol::limits::PAGE_DIGEST_BYTES,
        PageNumber::Page(_) => whimbrel_protocol::limits::CHUNK_DIGEST_BYTES,
    }
}
