//! Campaigns.

use axum::Json;
use axum::body::Body;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use whimbrel_api as api;
use whimbrel_protocol::ids::GroupName;
use whimbrel_protocol::message::Policy;
use whimbrel_protocol::time::UnixTime;

use super::body::read_json;
use super::devices::device_id;
use super::{ApiError, Desk};
use crate::campaign::{self, LIFE_DEFAULT_S, NewCampaign, Tally};
use crate::service::{CampaignView, Command, DevicesPage};

pub(super) async fn create(State(desk): State<Desk>, body: Body) -> Result<Response, ApiError> {
    let wish: api::CampaignOrder = read_json(body, "the campaign").await?;
    let unprocessable = |error: String| ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, error);
    let group = GroupName::new(&wish.group).map_err(|error| unprocessable(format!("group: {error}")))?;
    let policy = match wish.policy.as_deref() {
        None => Policy::Soft,
        Some(word) => api::policy_named(word).ok_or_else(|| {
            unprocessable(format!("policy {word:?}: expected soft, forced or download-only"))
        })?,
    };
    let release = wish.release;
    let wish = Box::new(NewCampaign {
        group,
        not_before: wish.not_before.map(UnixTime::from_secs),
        spread_s: wish.spread_s,
        life_s: wish.expires_in_s.unwrap_or(LIFE_DEFAULT_S),
        policy,
        priority: wish.priority,
        min_sequence: wish.min_sequence,
    });
    answer(desk.ask(|reply| Command::NewCampaign { release, wish, reply }).await?)
}

pub(super) async fn list(State(desk): State<Desk>) -> Result<Response, ApiError> {
    let mut campaigns = desk.ask(Command::Campaigns).await?;
    if campaigns.iter().any(|campaign| campaign.replaced.is_some()) {
        let rows = desk.store.tally_replaced().await?;
        for campaign in &mut campaigns {
            if let Some(id) = campaign.replaced {
                campaign.count(&Tally::of_rows(rows.iter().filter(|row| row.campaign == id)));
            }
        }
    }
    let shown: Vec<api::Campaign> = campaigns.into_iter().map(|campaign| campaign.shown).collect();
    Ok(Json(shown).into_response())
}

/// Devices listed at once.
const DEVICES_MAX: u16 = 1000;

pub(super) async fn one(
    State(desk): State<Desk>,
    path: Result<Path<String>, PathRejection>,
    query: Result<Query<api::CampaignQuery>, QueryRejection>,
) -> Result<Response, ApiError> {
    let (Path(prefix), Query(query)) = (path?, query?);
    let listed = match query.devices.as_deref() {
        None | Some("0") => false,
        Some("1") => true,
        Some(other) => return Err(ApiError::bad_request(format!("devices={other:?}: expected 0 or 1"))),
    };
    let after = query.after.as_deref().map(device_id).transpose()?;
    let page = listed.then(|| DevicesPage { after: after.clone(), limit: usize::from(DEVICES_MAX) });
    let mut campaign = desk.ask(|reply| Command::Campaign { prefix, devices: page, reply }).await?;
    if let Some(id) = campaign.replaced {
        let rows = desk.store.tally_replaced().await?;
        campaign.count(&Tally::of_rows(rows.iter().filter(|row| row.campaign == id)));
        if listed {
            let rows = desk.store.deployments(id, after, u32::from(DEVICES_MAX)).await?;
            let devices = rows.iter().map(|row| campaign.device(&row.device, &row.deployment, 0)).collect();
            campaign.shown.device_list = Some(devices);
        }
    }
    answer(campaign)
}

pub(super) async fn abort(
    State(desk): State<Desk>,
    path: Result<Path<String>, PathRejection>,
) -> Result<Response, ApiError> {
    let Path(prefix) = path?;
    order(&desk, prefix, campaign::Command::Abort).await
}

pub(super) async fn retry(
    State(desk): State<Desk>,
    path: Result<Path<String>, PathRejection>,
) -> Result<Response, ApiError> {
    let Path(prefix) = path?;
    order(&desk, prefix, campaign::Command::Retry).await
}

async fn order(desk: &Desk, prefix: String, command: campaign::Command) -> Result<Response, ApiError> {
    answer(desk.ask(|reply| Command::ToCampaign { prefix, command, reply }).await?)
}

fn answer(campaign: CampaignView) -> Result<Response, ApiError> {
    Ok(Json(campaign.shown).into_response())
}
