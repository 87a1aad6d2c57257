//! The admin API: HTTP with JSON, on loopback, for whoever has the token.
//!
//! Every request is checked for the token before anything of it is read, has a limit on its size and on its time,
//! and only so many are answered at once. Errors are one line that says what, where, and what would be right.
//! The routes, and what they take and answer, are those of `whimbrel_api`.

mod auth;
mod body;
mod campaigns;
mod devices;
mod error;
mod import;
mod releases;

use alloc::sync::Arc;
use core::future::Future;
use core::net::SocketAddr;
use core::time::Duration;

use axum::extract::{Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post, put};
use axum::{Json, Router};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::timeout;
use whimbrel_api::routes;

pub use auth::{AdminToken, TokenError};
pub(crate) use error::ApiError;

use crate::clock::Clock;
use crate::fleet::{Command, Denied, Question, Reply};
use crate::service;
use crate::signing::Authority;
use crate::store::{Payloads, StoreHandle};

/// What every request needs.
#[derive(Clone)]
pub(crate) struct Context {
    pub(crate) requests: mpsc::Sender<service::Request>,
    pub(crate) store: StoreHandle,
    pub(crate) payloads: Arc<dyn Payloads>,
    pub(crate) authority: Arc<Authority>,
    pub(crate) token: Arc<AdminToken>,
    pub(crate) clock: Clock,
    /// One permit for each request that is answered.
    pub(crate) places: Arc<Semaphore>,
    /// Largest payload, in bytes.
    pub(crate) payload_bytes_max: u64,
}

/// A request that has not got a place after this long is turned away.
const PLACE_LIMIT: Duration = Duration::from_secs(10);
/// The service has to answer within this.
const ANSWER_LIMIT: Duration = Duration::from_secs(120);

impl Context {
    /// Has the fleet change something.
    async fn change<T: Send + 'static>(
        &self,
        command: impl FnOnce(Reply<T>) -> Command,
    ) -> Result<T, ApiError> {
        Ok(self.request(|answer| service::Request::Command(command(reply_to(answer)))).await??)
    }

    /// Asks the fleet.
    async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(Reply<T>) -> Question,
    ) -> Result<T, ApiError> {
        Ok(self.request(|answer| service::Request::Question(question(reply_to(answer)))).await??)
    }

    async fn request<T>(
        &self,
        request: impl FnOnce(oneshot::Sender<T>) -> service::Request,
    ) -> Result<T, ApiError> {
        let (reply, answer) = oneshot::channel();
        let stopping = || ApiError::from(Denied::Stopping);
        self.requests.send(request(reply)).await.map_err(|_| stopping())?;
        let answer = timeout(ANSWER_LIMIT, answer).await.map_err(|_| ApiError::too_slow())?;
        answer.map_err(|_| stopping())
    }
}

fn reply_to<T: Send + 'static>(answer: oneshot::Sender<Result<T, Denied>>) -> Reply<T> {
    Reply::new(move |answered| {
        let _nobody_waits = answer.send(answered);
    })
}

/// Answers requests until `stop` is ready; those that have begun are finished.
///
/// # Errors
/// The error that the system gives if connections can't be accepted.
pub(crate) async fn serve(
    listener: TcpListener,
    context: Context,
    stop: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    axum::serve(listener, router(context)).with_graceful_shutdown(stop).await
}

fn router(context: Context) -> Router {
    let routes = [
        (routes::STATUS, get(status)),
        (routes::CLOCK_ACCEPT, post(accept_clock)),
        (routes::STORE_ACCEPT, post(accept_store)),
        (routes::RELEASES, get(releases::list).post(releases::add)),
        (routes::RELEASE, get(releases::one)),
        (routes::BASES, get(releases::bases)),
        (routes::PAYLOAD, put(releases::upload)),
        (routes::CAMPAIGNS, get(campaigns::list).post(campaigns::create)),
        (routes::CAMPAIGN, get(campaigns::one)),
        (routes::CAMPAIGN_ABORT, post(campaigns::abort)),
        (routes::CAMPAIGN_RETRY, post(campaigns::retry)),
        (routes::DEVICES, get(devices::list)),
        (routes::DEVICES_IMPORT, post(import::import)),
        (routes::DEVICE, get(devices::one)),
        (routes::DEVICE_ACCEPT, post(devices::accept)),
        (routes::DEVICE_RESET, post(devices::reset)),
        (routes::DEVICE_GROUPS, put(devices::set_groups)),
    ];
    let with = |router: Router<Context>, (path, methods)| router.route(&pattern(path), methods);
    routes
        .into_iter()
        .fold(Router::new(), with)
        .fallback(nothing_there)
        .method_not_allowed_fallback(no_such_method)
        .layer(middleware::from_fn_with_state(context.clone(), let_in))
        .with_state(context)
}

/// A path as axum wants it: `/v1/devices/:id` for `/v1/devices/{id}`.
fn pattern(path: &str) -> String {
    path.replace('{', ":").replace('}', "")
}

/// Checks the token, then waits for a place.
async fn let_in(State(context): State<Context>, request: Request, next: Next) -> Response {
    if !context.token.is_in(request.headers()) {
        return ApiError::unauthorized().into_response();
    }
    match timeout(PLACE_LIMIT, context.places.acquire()).await {
        Ok(Ok(_place)) => next.run(request).await,
        _ => ApiError::too_many().into_response(),
    }
}

async fn status(State(context): State<Context>) -> Result<Response, ApiError> {
    Ok(Json(context.request(service::Request::Status).await?).into_response())
}

async fn accept_clock(State(context): State<Context>) -> Result<Response, ApiError> {
    Ok(Json(context.request(service::Request::AcceptClock).await?).into_response())
}

async fn accept_store(State(context): State<Context>) -> Result<Response, ApiError> {
    Ok(Json(context.request(service::Request::AcceptStore).await??).into_response())
}

async fn nothing_there(request: Request) -> ApiError {
    ApiError::nothing_there(request.uri().path())
}

async fn no_such_method(request: Request) -> ApiError {
    ApiError::no_such_method(request.method(), request.uri().path())
}

/// Whether the API may listen here: on loopback, so that nobody else reaches it.
#[must_use]
pub fn is_private(address: SocketAddr) -> bool {
    address.ip().is_loopback()
}
