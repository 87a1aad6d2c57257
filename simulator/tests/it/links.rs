//! The shaped link on real sockets. Nothing here measures speed: a slow machine delivers later, never more.

use core::time::Duration;
use std::process::Command;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use whimbrel_sim::clock::{Clock, Moment};
use whimbrel_sim::link::{Link, WasCut};
use whimbrel_sim::shape::{Cut, Path};

use crate::support::{PATIENCE, UNSHAPED, clock, shaped};

/// A link and the service's end of it.
async fn connected(path: &Path, clock: &Clock) -> (Link, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (link, accepted) = tokio::join!(Link::connect(address, path, clock.clone()), listener.accept());
    (link.unwrap(), accepted.unwrap().0)
}

/// A service that sends as much as it is let.
fn send_for_ever(mut service: TcpStream) -> tokio::task::JoinHandle<std::io::Error> {
    tokio::spawn(async move {
        loop {
            if let Err(error) = service.write_all(&[0xaa; 8192]).await {
                return error;
            }
        }
    })
}

fn was_cut(error: &std::io::Error) -> bool {
    error.get_ref().is_some_and(|cause| cause.is::<WasCut>())
}

#[tokio::test]
async fn no_byte_reaches_the_device_before_the_rate_allows_it() {
    for scale in [1, 10] {
        let clock = clock(scale);
        let path = shaped(40_000 / u64::from(scale), 0);
        let path = Path { quantum: clock.virtual_time(Duration::from_millis(50)), ..path };
        let (mut link, service) = connected(&path, &clock).await;
        let began = clock.now();
        let sender = send_for_ever(service);
        let mut buffer = [0; 700];
        let (mut received, mut wakes_allowed) = (0, 0);
        while received < 40_000 {
            let read = timeout(PATIENCE, link.read(&mut buffer)).await.unwrap().unwrap();
            received += read as u64;
            let elapsed = clock.now().since(began) + path.quantum;
            let allowed = path.rates.unwrap().down_bytes_s as f64 * elapsed.as_secs_f64();
            assert!(received as f64 <= allowed, "{received} bytes, {allowed} allowed");
            wakes_allowed = clock.now().since(began).as_micros() / path.quantum.as_micros() + 2;
        }
        assert_eq!(link.received(), received);
        assert!(u128::from(link.wakes()) <= wakes_allowed, "{} wakes, {wakes_allowed} allowed", link.wakes());
        sender.abort();
    }
}

#[tokio::test]
async fn a_cut_by_bytes_delivers_exactly_those_and_resets_the_connection() {
    let clock = clock(1);
    let path = Path { cut: Some(Cut::AfterBytes(10_001)), ..shaped(1_000_000, 0) };
    let (mut link, service) = connected(&path, &clock).await;
    let sender = send_for_ever(service);
    let mut all = Vec::new();
    let error = timeout(PATIENCE, link.read_to_end(&mut all)).await.unwrap().unwrap_err();
    assert!(was_cut(&error), "{error}");
    assert_eq!((all.len(), link.received()), (10_001, 10_001));
    assert!(link.was_cut());
    let seen = timeout(PATIENCE, sender).await.unwrap().unwrap().kind();
    assert!(matches!(seen, std::io::ErrorKind::ConnectionReset | std::io::ErrorKind::BrokenPipe), "{seen}");
    let error = link.write(b"x").await.unwrap_err();
    assert!(was_cut(&error), "a cut link takes nothing: {error}");
}

#[tokio::test]
async fn a_cut_by_time_comes_while_nothing_is_sent() {
    let clock = clock(1);
    let at = Moment::START + Duration::from_millis(80);
    let path = Path { cut: Some(Cut::At(at)), ..UNSHAPED };
    let (mut link, mut service) = connected(&path, &clock).await;
    let error = timeout(PATIENCE, link.read(&mut [0; 10])).await.unwrap().unwrap_err();
    assert!(was_cut(&error) && clock.now() >= at);
    let seen = timeout(PATIENCE, service.read(&mut [0; 10])).await.unwrap().unwrap_err();
    assert_eq!(seen.kind(), std::io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn what_the_device_sends_arrives_a_round_trip_later_while_it_waits_to_read() {
    let clock = clock(1);
    let path = shaped(1_000_000, 150);
    let before = clock.now();
    let (mut link, mut service) = connected(&path, &clock).await;
    assert!(clock.now().since(before) >= path.round_trip, "a handshake takes one round trip");
    let sent = clock.now();
    link.write_all(b"request").await.unwrap();
    let service = async {
        let mut request = [0; 7];
        service.read_exact(&mut request).await.unwrap();
        let arrived = clock.now();
        service.write_all(b"answer").await.unwrap();
        assert_eq!(&request, b"request");
        arrived
    };
    let mut answer = [0; 6];
    let (arrived, read) =
        timeout(PATIENCE, async { tokio::join!(service, link.read_exact(&mut answer)) }).await.unwrap();
    read.unwrap();
    assert_eq!(&answer, b"answer");
    assert!(arrived.since(sent) >= path.round_trip, "{:?}", arrived.since(sent));
}

/// Reading and writing share one timer: waiting for one must not put the other to sleep.
#[tokio::test]
async fn a_slow_uplink_is_used_while_the_device_waits_to_read() {
    let clock = clock(20);
    let path = Path { quantum: Duration::from_secs(1), ..shaped(2_000, 300) };
    let (link, mut service) = connected(&path, &clock).await;
    let (mut reader, mut writer) = tokio::io::split(link);
    let upload = vec![0x55; 20_000];
    let device = async {
        let waits = reader.read_u8();
        let (first, ()) = tokio::join!(waits, async { writer.write_all(&upload).await.unwrap() });
        first.unwrap()
    };
    let service = async {
        let mut all = vec![0; upload.len()];
        service.read_exact(&mut all).await.unwrap();
        service.write_u8(7).await.unwrap();
        all
    };
    let (first, all) = timeout(PATIENCE, async { tokio::join!(device, service) }).await.unwrap();
    assert_eq!((first, all), (7, upload));
}

#[tokio::test]
async fn a_flush_waits_until_the_kernel_has_everything() {
    let clock = clock(1);
    let (mut link, mut service) = connected(&shaped(1_000_000, 60), &clock).await;
    link.write_all(b"good-bye").await.unwrap();
    timeout(PATIENCE, link.shutdown()).await.unwrap().unwrap();
    let mut all = Vec::new();
    timeout(PATIENCE, service.read_to_end(&mut all)).await.unwrap().unwrap();
    assert_eq!(all, b"good-bye");
}

/// What a device has not read yet waits in a queue of fixed length, and beyond that at the service.
#[tokio::test]
async fn the_kernels_queue_for_a_device_fits_a_window_or_four_quanta() {
    let clock = clock(1);
    // The kernel doubles what it is asked for; a quantum of 1 MB/s is 50,000 bytes.
    for (bytes_s, kernel_bytes) in
        [(1000, 2 * 64 * 1024), (1_000_000, 2 * 200_000), (100_000_000, 2 * 256 * 1024)]
    {
        let (link, _service) = connected(&shaped(bytes_s, 0), &clock).await;
        assert_eq!(receive_buffer(link.local_addr().unwrap().port()), kernel_bytes, "{bytes_s} B/s");
    }
}

/// Size of the receive buffer of the socket with this local port.
fn receive_buffer(port: u16) -> u64 {
    let output = Command::new("ss").args(["-tmnH", "sport", "=", &format!(":{port}")]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let field = text.split([',', '(']).find_map(|field| field.strip_prefix("rb"));
    field.unwrap().parse().unwrap()
}
