//! Sends HTTP requests to the service, one at a time.

use core::time::Duration;
use std::io::{self, Read};
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;
use ureq::http::{Response, StatusCode};
use ureq::{Agent, Body, SendBody};
use whimbrel_api::{ErrorBody, ImportQuery, Imported, Release, StoredPayload, routes};
use zeroize::Zeroizing;

use super::ServiceError;
use crate::files;
use crate::output::plain;

/// Longest time that connecting may take.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// Longest time that the service may take for a request. It is long because the service checks a whole
/// payload.
const ANSWER_LIMIT: Duration = Duration::from_secs(600);
/// Most bytes of an answer.
const ANSWER_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// Most bytes of the token's file.
const TOKEN_FILE_BYTES_MAX: u64 = 1024;
/// Most characters of the service's refusal that are shown.
const MESSAGE_CHARS_MAX: usize = 400;

/// A connection to one service.
#[derive(Debug)]
pub struct Client {
    agent: Agent,
    /// Host and port.
    address: String,
    authorization: Authorization,
}

/// The value of the authorization header. It is never printed.
struct Authorization(Zeroizing<String>);

impl core::fmt::Debug for Authorization {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Authorization(...)")
    }
}

/// Called with the number of bytes that were sent since the last call.
pub type UploadProgress<'p> = &'p mut dyn FnMut(u64);

impl Client {
    /// Names the service at `address` (`HOST:PORT`, perhaps with `http://` before it) and the file of its token.
    /// Nothing is sent yet.
    ///
    /// # Errors
    /// [`ServiceError::Address`], [`ServiceError::File`], [`ServiceError::Token`].
    pub fn new(address: &str, token_file: &Path) -> Result<Self, ServiceError> {
        let authority = address.strip_prefix("http://").unwrap_or(address).trim_end_matches('/');
        let (host, port) = authority.rsplit_once(':').unwrap_or_default();
        let plausible = |c: char| c.is_ascii_alphanumeric() || "-._[]:".contains(c);
        if host.is_empty() || !host.chars().all(plausible) || !port.parse::<u16>().is_ok_and(|port| port > 0)
        {
            return Err(ServiceError::Address { got: address.into() });
        }
        let bytes = Zeroizing::new(files::read(token_file, "a token", TOKEN_FILE_BYTES_MAX)?);
        let token = core::str::from_utf8(&bytes).unwrap_or_default().trim();
        if !(8..=256).contains(&token.len()) || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(ServiceError::Token { path: token_file.into() });
        }
        let agent = Agent::config_builder()
            .http_status_as_error(false)
            // The service is on this machine, and a proxy must not see the token.
            .proxy(None)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .timeout_connect(Some(CONNECT_LIMIT))
            .timeout_recv_response(Some(ANSWER_LIMIT))
            .timeout_recv_body(Some(ANSWER_LIMIT))
            .build()
            .new_agent();
        let authorization = Authorization(Zeroizing::new(format!("Bearer {token}")));
        Ok(Self { agent, address: authority.into(), authorization })
    }

    /// Asks for `path`, which is one of [`whimbrel_api::routes`].
    ///
    /// # Errors
    /// [`ServiceError`].
    pub fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ServiceError> {
        let request = self.agent.get(self.url(path)).header("Authorization", self.authorization());
        self.answer(request.call())
    }

    /// Sends JSON.
    ///
    /// # Errors
    /// [`ServiceError`].
    pub fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, ServiceError> {
        let request = self.agent.post(self.url(path)).header("Authorization", self.authorization());
        self.answer(request.send_json(body))
    }

    /// Sends a request without a body.
    ///
    /// # Errors
    /// [`ServiceError`].
    pub fn post_empty<T: DeserializeOwned>(&self, path: &str) -> Result<T, ServiceError> {
        let request = self.agent.post(self.url(path)).header("Authorization", self.authorization());
        self.answer(request.send_empty())
    }

    /// Sends bytes of another type than JSON.
    ///
    /// # Errors
    /// [`ServiceError`].
    pub fn post_bytes<T: DeserializeOwned>(
        &self,
        path: &str,
        content_type: &str,
        bytes: &[u8],
    ) -> Result<T, ServiceError> {
        let request = self.agent.post(self.url(path)).header("Authorization", self.authorization());
        self.answer(request.header("Content-Type", content_type).send(bytes))
    }

    /// Sends a list of devices, telling `progress` as it goes: the service takes it as fast as it carries it out.
    ///
    /// # Errors
    /// [`ServiceError`].
    pub fn post_devices(
        &self,
        query: &ImportQuery,
        list: &[u8],
        progress: UploadProgress<'_>,
    ) -> Result<Imported, ServiceError> {
        let request = self
            .agent
            .post(self.url(&routes::devices_import(query)))
            .header("Authorization", self.authorization())
            .header("Content-Type", "text/csv")
            .header("Content-Length", list.len().to_string());
        let mut body = Metered { bytes: list, progress };
        self.answer(request.send(SendBody::from_reader(&mut body)))
    }

    /// Puts JSON.
    ///
    /// # Errors
    /// [`ServiceError`].
    pub fn put<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, ServiceError> {
        let request = self.agent.put(self.url(path)).header("Authorization", self.authorization());
        self.answer(request.send_json(body))
    }

    /// Sends an envelope; the same one again changes nothing.
    ///
    /// # Errors
    /// [`ServiceError`].
    pub fn post_release(&self, envelope: &[u8]) -> Result<Release, ServiceError> {
        self.post_bytes(routes::RELEASES, "application/cbor", envelope)
    }

    /// Sends the payload with this index digest, telling `progress` as it goes.
    ///
    /// # Errors
    /// [`ServiceError`].
    pub fn put_payload(
        &self,
        index_digest: &str,
        bytes: &[u8],
        progress: UploadProgress<'_>,
    ) -> Result<StoredPayload, ServiceError> {
        let request = self
            .agent
            .put(self.url(&routes::payload(index_digest)))
            .header("Authorization", self.authorization())
            .header("Content-Type", "application/octet-stream")
            // With this header the service can refuse before the payload is sent.
            .header("Expect", "100-continue")
            .header("Content-Length", bytes.len().to_string());
        let mut body = Metered { bytes, progress };
        self.answer(request.send(SendBody::from_reader(&mut body)))
    }

    /// The error for an answer that is not as the API has it.
    #[must_use]
    pub fn wrong(&self, reason: String) -> ServiceError {
        ServiceError::Answer { address: self.address.clone(), reason }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    fn authorization(&self) -> &str {
        &self.authorization.0
    }

    fn answer<T: DeserializeOwned>(
        &self,
        response: Result<Response<Body>, ureq::Error>,
    ) -> Result<T, ServiceError> {
        let mut response = response.map_err(|error| self.failure(error))?;
        let status = response.status();
        let body = response.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_vec();
        let body = body.map_err(|error| self.failure(error))?;
        if status.is_success() {
            return serde_json::from_slice(&body).map_err(|error| self.wrong(error.to_string()));
        }
        if status == StatusCode::UNAUTHORIZED {
            return Err(ServiceError::Unauthorised { address: self.address.clone() });
        }
        Err(ServiceError::Refused { status: status.as_u16(), message: refusal(status, &body) })
    }

    fn failure(&self, error: ureq::Error) -> ServiceError {
        let address = self.address.clone();
        let reason = match &error {
            ureq::Error::Io(error) => plain(&error.to_string()),
            other => plain(&other.to_string()),
        };
        match error {
            ureq::Error::Io(error) if is_unreachable(error.kind()) => {
                ServiceError::Unreachable { address, reason }
            }
            ureq::Error::HostNotFound
            | ureq::Error::ConnectionFailed
            | ureq::Error::Timeout(ureq::Timeout::Connect | ureq::Timeout::Resolve) => {
                ServiceError::Unreachable { address, reason }
            }
            ureq::Error::Protocol(_) | ureq::Error::Http(_) => ServiceError::Answer { address, reason },
            _ => ServiceError::Broken { address, reason },
        }
    }
}

fn is_unreachable(kind: io::ErrorKind) -> bool {
    matches!(
        kind,
        io::ErrorKind::ConnectionRefused
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::AddrNotAvailable
    )
}

/// The line of `{"error": "line"}`; if there is none, the status in words.
fn refusal(status: StatusCode, body: &[u8]) -> String {
    match serde_json::from_slice::<ErrorBody>(body) {
        Ok(refusal) => refusal.error.chars().take(MESSAGE_CHARS_MAX).collect(),
        Err(_) => status.canonical_reason().unwrap_or("without a reason").to_lowercase(),
    }
}

/// Reports the bytes that are read from it to `progress`.
struct Metered<'b> {
    bytes: &'b [u8],
    progress: UploadProgress<'b>,
}

impl Read for Metered<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.bytes.read(into)?;
        (self.progress)(count as u64);
        Ok(count)
    }
}
