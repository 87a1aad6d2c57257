//! What a request gets that is not carried out: a status and one line.

use axum::Json;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use whimbrel_api::ErrorBody;

use crate::fleet::Denied;
use crate::fleet::catalog::{CatalogError, ReleaseError};
use crate::fleet::registry::{ImportError, RegistryError};
use crate::store::{StoreError, UploadError};

/// A status and one line: what, where, what would be right.
#[derive(Debug)]
pub(crate) struct ApiError {
    status: StatusCode,
    error: String,
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        if self.status.is_server_error() {
            tracing::warn!(status = self.status.as_u16(), reason = self.error, "request failed");
        }
        (self.status, Json(ErrorBody { error: self.error })).into_response()
    }
}

impl ApiError {
    pub(super) fn new(status: StatusCode, error: impl ToString) -> Self {
        // Whatever a library or a person has put into it: one line.
        let error = error.to_string().replace(['\n', '\r'], " ");
        Self { status, error }
    }

    /// The line.
    pub(super) fn reason(&self) -> &str {
        &self.error
    }

    pub(super) fn bad_request(error: impl ToString) -> Self {
        Self::new(StatusCode::BAD_REQUEST, error)
    }

    pub(super) fn unauthorized() -> Self {
        Self::new(
            StatusCode::UNAUTHORIZED,
            "this needs the header `Authorization: Bearer TOKEN` with the token from service.token-file",
        )
    }

    pub(super) fn too_many() -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "too many requests are being answered (limits.admin-requests), try again",
        )
    }

    pub(super) fn too_slow() -> Self {
        Self::new(StatusCode::GATEWAY_TIMEOUT, "the service does not answer in time, try again")
    }

    pub(super) fn too_large(what: &str, limit: u64) -> Self {
        Self::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("{what} is larger than {limit} bytes, which is the most that is taken"),
        )
    }

    pub(super) fn nothing_there(path: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, format!("there is nothing at {path:?}"))
    }

    pub(super) fn no_such_method(method: &Method, path: &str) -> Self {
        Self::new(StatusCode::METHOD_NOT_ALLOWED, format!("{path:?} does not take {method}"))
    }
}

impl From<Denied> for ApiError {
    fn from(denied: Denied) -> Self {
        let status = match &denied {
            Denied::Catalog(error) => of_catalog(error),
            Denied::NoSuchPayload { .. } => StatusCode::NOT_FOUND,
            Denied::Incomplete { .. }
            | Denied::Downgrade { .. }
            | Denied::Command { .. }
            | Denied::TooManyGroups { .. }
            | Denied::TooManyCampaigns { .. } => StatusCode::CONFLICT,
            Denied::Plan(_) => StatusCode::UNPROCESSABLE_ENTITY,
            Denied::Registry(error) => of_registry(error),
            Denied::Import(ImportError::OtherKey { .. } | ImportError::Full { .. }) => StatusCode::CONFLICT,
            Denied::Import(ImportError::Lines { .. }) => StatusCode::PAYLOAD_TOO_LARGE,
            Denied::Import(_) => StatusCode::UNPROCESSABLE_ENTITY,
            Denied::Store(error) => of_store(error),
            Denied::Random { .. } => StatusCode::INTERNAL_SERVER_ERROR,
            Denied::Clock { .. } | Denied::Database { .. } | Denied::Stopping => {
                StatusCode::SERVICE_UNAVAILABLE
            }
        };
        Self::new(status, denied)
    }
}

fn of_catalog(error: &CatalogError) -> StatusCode {
    match error {
        CatalogError::Prefix { .. } => StatusCode::BAD_REQUEST,
        CatalogError::None { .. } => StatusCode::NOT_FOUND,
        CatalogError::Sequence { .. } | CatalogError::Full { .. } | CatalogError::Several { .. } => {
            StatusCode::CONFLICT
        }
    }
}

fn of_registry(error: &RegistryError) -> StatusCode {
    match error {
        RegistryError::Unknown { .. } => StatusCode::NOT_FOUND,
        RegistryError::TooManyGroups { .. } | RegistryError::GroupTwice { .. } => {
            StatusCode::UNPROCESSABLE_ENTITY
        }
        RegistryError::NotAccepted { .. }
        | RegistryError::Fingerprint { .. }
        | RegistryError::Full { .. } => StatusCode::CONFLICT,
    }
}

fn of_store(error: &StoreError) -> StatusCode {
    match error {
        StoreError::Full { .. } => StatusCode::INSUFFICIENT_STORAGE,
        StoreError::Closed => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        Self::new(of_store(&error), error)
    }
}

impl From<UploadError> for ApiError {
    fn from(error: UploadError) -> Self {
        match error {
            UploadError::Store(error) => error.into(),
            error => Self::new(StatusCode::UNPROCESSABLE_ENTITY, error),
        }
    }
}

impl From<ReleaseError> for ApiError {
    fn from(error: ReleaseError) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, error)
    }
}

impl From<PathRejection> for ApiError {
    fn from(rejection: PathRejection) -> Self {
        Self::bad_request(rejection.body_text())
    }
}

impl From<QueryRejection> for ApiError {
    fn from(rejection: QueryRejection) -> Self {
        Self::bad_request(rejection.body_text())
    }
}
