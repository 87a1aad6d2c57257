//! A small HTTP server that answers as a test says, and keeps the requests that it got.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use serde_json::Value as Json;

/// A request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Request {
    /// Method and path, such as `GET /v1/status`.
    pub(crate) line: String,
    /// Names in lower case.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn json(&self) -> Json {
        serde_json::from_slice(&self.body).unwrap()
    }
}

/// What to answer: bytes to send, perhaps none at all.
pub(crate) enum Answer {
    /// Status and JSON.
    Json(u16, Json),
    /// These bytes, then the connection is closed.
    Raw(Vec<u8>),
}

/// What happens before the body of a request has come.
pub(crate) enum Early {
    /// The connection is closed after so many bytes of it.
    HangUpAfter(usize),
    /// The server answers without reading the body.
    Refuse(u16, Json),
}

/// A server that runs until it is dropped.
pub(crate) struct Server {
    pub(crate) address: String,
    requests: Arc<Mutex<Vec<Request>>>,
    stop: Arc<std::sync::atomic::AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Starts a server whose answers `answer` gives.
    pub(crate) fn start(answer: impl Fn(&Request) -> Answer + Send + 'static) -> Self {
        Self::start_fragile(|_| None, answer)
    }

    /// As [`Server::start`], with something that may happen before the body has come.
    pub(crate) fn start_fragile(
        early: impl Fn(&Request) -> Option<Early> + Send + 'static,
        answer: impl Fn(&Request) -> Answer + Send + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let thread = std::thread::spawn({
            let (requests, stop) = (Arc::clone(&requests), Arc::clone(&stop));
            move || {
                for stream in listener.incoming() {
                    if stop.load(std::sync::atomic::Ordering::SeqCst) {
                        return;
                    }
                    // A client that hangs up in between is what some tests are about.
                    drop(serve(stream.unwrap(), &requests, &early, &answer));
                }
            }
        });
        Self { address, requests, stop, thread: Some(thread) }
    }

    /// A server with one answer for everything.
    pub(crate) fn always(status: u16, json: Json) -> Self {
        Self::start(move |_| Answer::Json(status, json.clone()))
    }

    /// The requests so far.
    pub(crate) fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }

    /// Methods and paths of the requests so far.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.requests().into_iter().map(|request| request.line).collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, std::sync::atomic::Ordering::SeqCst);
        drop(TcpStream::connect(&self.address));
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

/// Every connection carries one request, and the answer says so.
fn serve(
    stream: TcpStream,
    requests: &Mutex<Vec<Request>>,
    early: &impl Fn(&Request) -> Option<Early>,
    answer: &impl Fn(&Request) -> Answer,
) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut stream = stream;
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let line = line.trim_end().strip_suffix(" HTTP/1.1").unwrap_or_default().to_owned();
    let mut headers = Vec::new();
    loop {
        let mut header = String::new();
        reader.read_line(&mut header)?;
        match header.trim_end().split_once(": ") {
            Some((name, value)) => headers.push((name.to_lowercase(), value.to_owned())),
            None => break,
        }
    }
    let mut request = Request { line, headers, body: Vec::new() };
    assert_eq!(request.header("transfer-encoding"), None, "bodies have a length");
    let length: usize = request.header("content-length").map_or(0, |length| length.parse().unwrap());
    let early = early(&request);
    if let Some(Early::Refuse(status, json)) = early {
        requests.lock().unwrap().push(request);
        return stream.write_all(&response(status, &json));
    }
    if request.header("expect") == Some("100-continue") {
        stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
    }
    if let Some(Early::HangUpAfter(bytes)) = early {
        request.body.resize(bytes.min(length), 0);
        reader.read_exact(&mut request.body)?;
        requests.lock().unwrap().push(request);
        return Ok(());
    }
    request.body.resize(length, 0);
    reader.read_exact(&mut request.body)?;
    let what = answer(&request);
    let bytes = match what {
        Answer::Json(status, json) => response(status, &json),
        Answer::Raw(bytes) => bytes,
    };
    requests.lock().unwrap().push(request);
    stream.write_all(&bytes)
}

fn response(status: u16, json: &Json) -> Vec<u8> {
    let body = if json.is_null() { String::new() } else { json.to_string() };
    format!(
        "HTTP/1.1 {status} x\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}
