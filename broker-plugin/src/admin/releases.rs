//! Releases and their payloads.

use alloc::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse as _, Response};
use tokio::sync::mpsc;
use whimbrel_api as api;
use whimbrel_protocol::ids::{Digest, GroupName};
use whimbrel_protocol::limits::ENVELOPE_BYTES_MAX;

use super::body::{announced_length, next_piece, read};
use super::{ApiError, Context};
use crate::fleet::catalog::Release;
use crate::fleet::{Command, Question};
use crate::store::{PayloadRow, PayloadSpec, UploadError};

pub(super) async fn list(State(context): State<Context>) -> Result<Response, ApiError> {
    Ok(Json(context.ask(Question::Releases).await?).into_response())
}

pub(super) async fn one(
    State(context): State<Context>,
    path: Result<Path<String>, PathRejection>,
) -> Result<Response, ApiError> {
    let Path(prefix) = path?;
    Ok(Json(context.ask(|reply| Question::Release { prefix, reply }).await?).into_response())
}

pub(super) async fn bases(
    State(context): State<Context>,
    path: Result<Path<String>, PathRejection>,
    query: Result<Query<api::BasesQuery>, QueryRejection>,
) -> Result<Response, ApiError> {
    let (Path(prefix), Query(query)) = (path?, query?);
    let group = query.group.as_deref().map(GroupName::new).transpose();
    let group = group.map_err(|error| ApiError::bad_request(format!("group: {error}")))?;
    Ok(Json(context.ask(|reply| Question::Bases { prefix, group, reply }).await?).into_response())
}

pub(super) async fn add(State(context): State<Context>, body: Body) -> Result<Response, ApiError> {
    let envelope = read(body, "the envelope", ENVELOPE_BYTES_MAX).await?;
    let release = Box::new(Release::read(&envelope, context.authority.root(), context.clock.today())?);
    Ok(Json(context.change(|reply| Command::AddRelease { release, reply }).await?).into_response())
}

pub(super) async fn upload(
    State(context): State<Context>,
    path: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let Path(hex) = path?;
    let mut index = [0; 32];
    hex::decode_to_slice(&hex, &mut index).map_err(|_| {
        ApiError::bad_request("a payload is named by the 64 hexadecimal digits of its index digest")
    })?;
    let index = Digest(index);
    let spec = context.ask(|reply| Question::PayloadSpec { index, reply }).await?;
    let want = spec.layout.transfer_size();
    if want > context.payload_bytes_max {
        return Err(ApiError::too_large("the payload", context.payload_bytes_max));
    }
    if let Some(got) = announced_length(&headers).filter(|got| *got != want) {
        return Err(UploadError::Size { got, want }.into());
    }
    let row = receive(&context, spec, body).await?;
    context.change(|reply| Command::AddPayload { row, reply }).await?;
    let stored = api::StoredPayload { index_digest: index.to_hex(), transfer_size: want };
    Ok(Json(stored).into_response())
}

/// Pieces of a payload that wait for the disk.
const PIECES: usize = 16;

/// Writes a body to the payload folder as it comes. If it breaks off, nothing of it is kept.
async fn receive(context: &Context, spec: PayloadSpec, mut body: Body) -> Result<PayloadRow, ApiError> {
    let (pieces, mut to_write) = mpsc::channel::<axum::body::Bytes>(PIECES);
    let (payloads, added) = (Arc::clone(&context.payloads), context.clock.today());
    let writer = tokio::task::spawn_blocking(move || {
        let mut upload = payloads.begin(spec)?;
        while let Some(piece) = to_write.blocking_recv() {
            upload.write(&piece)?;
        }
        upload.finish(added)
    });
    while let Some(piece) = next_piece(&mut body).await? {
        if pieces.send(piece).await.is_err() {
            break; // The writer has given up; it says why.
        }
    }
    drop(pieces);
    let written = writer.await.map_err(|_| ApiError::too_slow())?;
    Ok(written?)
}
