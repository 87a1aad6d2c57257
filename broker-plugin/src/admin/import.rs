//! Lists of devices. A list is taken as it comes, a thousand lines after the other, so that neither its size nor the
//! time that its signatures take are in the way of anybody else, and whoever sends it sees how far it is.

use axum::Json;
use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::response::{IntoResponse as _, Response};
use whimbrel_api as api;

use super::body::next_piece;
use super::{ApiError, Context};
use crate::fleet::registry::{IMPORT_LINE_BYTES_MAX, IMPORT_LINES_MAX, ImportReader};
use crate::fleet::{Command, Denied, Question};

/// Lines that are taken together: all of them or none. Signing them takes some tenths of a second.
const LINES_AT_ONCE: usize = 1000;

/// An import that is under way.
struct Import {
    context: Context,
    /// Whether nothing is to be taken.
    check: bool,
    done: api::Imported,
}

pub(super) async fn import(
    State(context): State<Context>,
    query: Result<Query<api::ImportQuery>, QueryRejection>,
    mut body: Body,
) -> Result<Response, ApiError> {
    let Query(query) = query?;
    let check = match query.check.as_deref() {
        None | Some("0") => false,
        Some("1") => true,
        Some(other) => return Err(ApiError::bad_request(format!("check={other:?}: expected 0 or 1"))),
    };
    let mut import = Import { context, check, done: api::Imported { imported: 0, unchanged: 0 } };
    let ended = import.run(&mut body).await;
    import.log(ended.as_ref().err());
    if ended.is_err() {
        // Whoever is still sending would otherwise be cut off before the answer was read.
        pass_over(&mut body).await;
    }
    ended.map(|()| Json(import.done).into_response())
}

impl Import {
    async fn run(&mut self, body: &mut Body) -> Result<(), ApiError> {
        let mut reader = ImportReader::default();
        loop {
            let piece = next_piece(body).await?;
            let ended = piece.is_none();
            // Keys are looked at.
            let read = tokio::task::spawn_blocking(move || {
                let read = match &piece {
                    Some(bytes) => reader.push(bytes),
                    None => reader.end(),
                };
                (reader, read)
            });
            let (back, read) = read.await.map_err(|_| ApiError::too_slow())?;
            reader = back;
            read.map_err(Denied::Import)?;
            while reader.len() >= LINES_AT_ONCE || (ended && !reader.is_empty()) {
                let lines = reader.take(LINES_AT_ONCE);
                let done = if self.check {
                    self.context.ask(|reply| Question::Import { lines, reply }).await?
                } else {
                    self.context.change(|reply| Command::Import { lines, reply }).await?
                };
                self.done.imported += done.imported;
                self.done.unchanged += done.unchanged;
            }
            if ended {
                return Ok(());
            }
        }
    }

    /// One line for the whole list.
    fn log(&self, error: Option<&ApiError>) {
        let api::Imported { imported, unchanged } = self.done;
        match error {
            _ if self.check => {}
            None => tracing::info!(imported, unchanged, "devices imported"),
            Some(error) => {
                let reason = error.reason();
                tracing::warn!(imported, unchanged, reason, "import ended early, the rest was not taken");
            }
        }
    }
}

/// Reads what is left of a list that is refused, up to what a list can have.
async fn pass_over(body: &mut Body) {
    let mut room = IMPORT_LINES_MAX.saturating_mul(IMPORT_LINE_BYTES_MAX);
    while let Ok(Some(piece)) = next_piece(body).await {
        match room.checked_sub(piece.len()) {
            Some(left) => room = left,
            None => return,
        }
    }
}
