//! Campaigns.

use axum::Json;
use axum::body::Body;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use whimbrel_api as api;
use whimbrel_protocol::ids::{CampaignId, GroupName};
use whimbrel_protocol::message::Policy;
use whimbrel_protocol::time::UnixTime;

use super::body::read_json;
use super::devices::device_id;
use super::{ApiError, Context};
use crate::fleet::campaign::{self, LIFE_DEFAULT_S, NewCampaign, Tally};
use crate::fleet::{CampaignView, Command, Denied, DevicesPage, Question};
use crate::store::Terms;

pub(super) async fn create(State(context): State<Context>, body: Body) -> Result<Response, ApiError> {
    let order: api::CampaignOrder = read_json(body, "the campaign").await?;
    let unprocessable = |error: String| ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, error);
    let group = GroupName::new(&order.group).map_err(|error| unprocessable(format!("group: {error}")))?;
    let policy = match order.policy.as_deref() {
        None => Policy::Soft,
        Some(word) => api::policy_named(word).ok_or_else(|| {
            unprocessable(format!("policy {word:?}: expected soft, forced or download-only"))
        })?,
    };
    let release = order.release;
    let new = Box::new(NewCampaign {
        group,
        not_before: order.not_before.map(UnixTime::from_secs),
        spread_s: order.spread_s,
        terms: Terms::lasting(order.expires_in_s.unwrap_or(LIFE_DEFAULT_S)),
        policy,
        priority: order.priority,
        min_sequence: order.min_sequence,
    });
    let id = random_id()?;
    answer(context.change(|reply| Command::NewCampaign { release, new, id, reply }).await?)
}

fn random_id() -> Result<CampaignId, Denied> {
    let mut id = [0; 8];
    getrandom::fill(&mut id).map_err(|error| Denied::Random { reason: error.to_string() })?;
    Ok(CampaignId(id))
}

pub(super) async fn list(State(context): State<Context>) -> Result<Response, ApiError> {
    let mut campaigns = context.ask(Question::Campaigns).await?;
    if campaigns.iter().any(|campaign| campaign.replaced.is_some()) {
        let rows = context.store.tally_replaced().await?;
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
    State(context): State<Context>,
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
    let mut campaign = context.ask(|reply| Question::Campaign { prefix, devices: page, reply }).await?;
    if let Some(id) = campaign.replaced {
        let rows = context.store.tally_replaced().await?;
        campaign.count(&Tally::of_rows(rows.iter().filter(|row| row.campaign == id)));
        if listed {
            let rows = context.store.deployments(id, after, u32::from(DEVICES_MAX)).await?;
            let devices = rows.iter().map(|row| campaign.device(&row.device, &row.deployment, 0)).collect();
            campaign.shown.device_list = Some(devices);
        }
    }
    answer(campaign)
}

pub(super) async fn abort(
    State(context): State<Context>,
    path: Result<Path<String>, PathRejection>,
) -> Result<Response, ApiError> {
    let Path(prefix) = path?;
    order(&context, prefix, campaign::Command::Abort).await
}

pub(super) async fn retry(
    State(context): State<Context>,
    path: Result<Path<String>, PathRejection>,
) -> Result<Response, ApiError> {
    let Path(prefix) = path?;
    order(&context, prefix, campaign::Command::Retry).await
}

async fn order(context: &Context, prefix: String, command: campaign::Command) -> Result<Response, ApiError> {
    answer(context.change(|reply| Command::ToCampaign { prefix, command, reply }).await?)
}

fn answer(campaign: CampaignView) -> Result<Response, ApiError> {
    Ok(Json(campaign.shown).into_response())
}
