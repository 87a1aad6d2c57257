//! Devices.

use axum::Json;
use axum::body::Body;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use whimbrel_api as api;
use whimbrel_protocol::cose::Fingerprint;
use whimbrel_protocol::ids::{DeviceId, GroupName};

use super::body::read_json;
use super::{ApiError, Context};
use crate::fleet::{Command, DevicesPage, Listed, Question};

/// Devices listed if the request says nothing, and at most.
const DEVICES_DEFAULT: u64 = 100;
const DEVICES_MAX: u64 = 1000;

/// A device id from a path or a query.
pub(super) fn device_id(text: &str) -> Result<DeviceId, ApiError> {
    DeviceId::new(text).map_err(|error| ApiError::bad_request(format!("device {text:?}: {error}")))
}

fn groups(names: &[String]) -> Result<Vec<GroupName>, ApiError> {
    let read = |name: &String| {
        GroupName::new(name).map_err(|error| {
            ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, format!("group {name:?}: {error}"))
        })
    };
    names.iter().map(read).collect()
}

pub(super) async fn list(
    State(context): State<Context>,
    query: Result<Query<api::DevicesQuery>, QueryRejection>,
) -> Result<Response, ApiError> {
    let Query(query) = query?;
    let state = match query.state.as_deref() {
        None => None,
        Some("pending") => Some(Listed::Pending),
        Some("accepted") => Some(Listed::Accepted),
        Some("rekeyed") => Some(Listed::Rekeyed),
        Some(other) => {
            return Err(ApiError::bad_request(format!(
                "state={other:?}: expected pending, accepted or rekeyed"
            )));
        }
    };
    let limit = query.limit.unwrap_or(DEVICES_DEFAULT);
    if !(1..=DEVICES_MAX).contains(&limit) {
        return Err(ApiError::bad_request(format!("limit={limit}: expected 1 to {DEVICES_MAX}")));
    }
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let page = DevicesPage { after: query.after.as_deref().map(device_id).transpose()?, limit };
    Ok(Json(context.ask(|reply| Question::Devices { state, page, reply }).await?).into_response())
}

pub(super) async fn one(
    State(context): State<Context>,
    path: Result<Path<String>, PathRejection>,
) -> Result<Response, ApiError> {
    let Path(id) = path?;
    let id = device_id(&id)?;
    Ok(Json(context.ask(|reply| Question::Device { id, reply }).await?).into_response())
}

pub(super) async fn accept(
    State(context): State<Context>,
    path: Result<Path<String>, PathRejection>,
    body: Body,
) -> Result<Response, ApiError> {
    let Path(id) = path?;
    let id = device_id(&id)?;
    let acceptance: api::Acceptance = read_json(body, "the acceptance").await?;
    let fingerprint: Fingerprint = acceptance.fingerprint.parse().map_err(|error| {
        let given: String = acceptance.fingerprint.chars().take(80).collect();
        ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, format!("fingerprint {given:?}: {error}"))
    })?;
    let groups = acceptance.groups.as_deref().map(groups).transpose()?;
    Ok(Json(context.change(|reply| Command::Accept { id, fingerprint, groups, reply }).await?)
        .into_response())
}

pub(super) async fn reset(
    State(context): State<Context>,
    path: Result<Path<String>, PathRejection>,
) -> Result<Response, ApiError> {
    let Path(id) = path?;
    let id = device_id(&id)?;
    Ok(Json(context.change(|reply| Command::Reset { id, reply }).await?).into_response())
}

pub(super) async fn set_groups(
    State(context): State<Context>,
    path: Result<Path<String>, PathRejection>,
    body: Body,
) -> Result<Response, ApiError> {
    let Path(id) = path?;
    let id = device_id(&id)?;
    let wanted: api::Groups = read_json(body, "the groups").await?;
    let groups = groups(&wanted.groups)?;
    Ok(Json(context.change(|reply| Command::SetGroups { id, groups, reply }).await?).into_response())
}
