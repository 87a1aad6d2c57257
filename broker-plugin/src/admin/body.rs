//! Bodies of requests: read whole up to a limit, or piece by piece.

use core::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, StatusCode};
use http_body_util::BodyExt as _;
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use super::ApiError;

/// The next bytes of a body must come within this.
const PIECE_LIMIT: Duration = Duration::from_secs(30);

/// The next piece of a body; `None` at its end.
pub(super) async fn next_piece(body: &mut Body) -> Result<Option<Bytes>, ApiError> {
    loop {
        let frame = timeout(PIECE_LIMIT, body.frame()).await.map_err(|_| {
            let error = format!("the rest of the body did not come within {} s", PIECE_LIMIT.as_secs());
            ApiError::new(StatusCode::REQUEST_TIMEOUT, error)
        })?;
        match frame {
            None => return Ok(None),
            Some(Err(error)) => return Err(ApiError::bad_request(format!("the body ended early: {error}"))),
            Some(Ok(frame)) => {
                if let Ok(piece) = frame.into_data() {
                    return Ok(Some(piece));
                }
            }
        }
    }
}

/// A body whole.
pub(super) async fn read(mut body: Body, what: &str, limit: usize) -> Result<Vec<u8>, ApiError> {
    let mut whole = Vec::new();
    while let Some(piece) = next_piece(&mut body).await? {
        if whole.len() + piece.len() > limit {
            return Err(ApiError::too_large(what, limit as u64));
        }
        whole.extend_from_slice(&piece);
    }
    Ok(whole)
}

/// A JSON object.
pub(super) async fn read_json<T: DeserializeOwned>(body: Body, what: &str) -> Result<T, ApiError> {
    const JSON_BYTES_MAX: usize = 16 * 1024;
    let bytes = read(body, what, JSON_BYTES_MAX).await?;
    serde_json::from_slice(&bytes).map_err(|error| ApiError::bad_request(format!("{what}: {error}")))
}

/// What the request says about the length of its body.
pub(super) fn announced_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(axum::http::header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}
