//! Measures the shaped link itself: does each device get its rate, and what does that cost here?
//!
//! ```sh
//! cargo run --release -p whimbrel-sim --example link_rate -- ltem 1000 10
//! ```
//!
//! A child process answers each request of a device with 4 KiB; each device keeps two
//! round trips of its rate and 16 KiB requested, as an update would.
//! The rates are timed, so this is a benchmark for people and no test.
#![allow(clippy::indexing_slicing, clippy::disallowed_methods)]

use core::net::SocketAddr;
use core::num::NonZeroU32;
use core::time::Duration;
use std::io::Write as _;

use anyhow::Context as _;
use serde::Deserialize;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use whimbrel_sim::child::{Child, ChildOptions, end_with_parent, own_command};
use whimbrel_sim::clock::Clock;
use whimbrel_sim::link::Link;
use whimbrel_sim::process::{own_usage, raise_open_files};
use whimbrel_sim::profile::Profiles;
use whimbrel_sim::seed::Seed;
use whimbrel_sim::shape::Path;

const ANSWER_BYTES: usize = 4096;

#[derive(Deserialize)]
struct Ready {
    address: SocketAddr,
}

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    match arguments.first().map(String::as_str) {
        Some("serve") => runtime.block_on(serve()),
        _ => runtime.block_on(measure(&arguments)),
    }
}

/// The child: answers each byte of a device with 4 KiB.
async fn serve() -> anyhow::Result<()> {
    end_with_parent();
    raise_open_files(19_000).ok();
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("{{\"address\": \"{}\"}}", listener.local_addr()?);
    std::io::stdout().flush()?;
    loop {
        let (mut device, _) = listener.accept().await?;
        device.set_nodelay(true)?;
        tokio::spawn(async move {
            let mut requests = [0; 64];
            while let Ok(count) = device.read(&mut requests).await {
                for _ in 0..count {
                    if device.write_all(&[0xaa; ANSWER_BYTES]).await.is_err() {
                        return;
                    }
                }
                if count == 0 {
                    return;
                }
            }
        });
    }
}

async fn measure(arguments: &[String]) -> anyhow::Result<()> {
    let argument = |at: usize, default: &'static str| arguments.get(at).map_or(default, String::as_str);
    let profile = Profiles::builtin().named(argument(0, "ltem"))?.clone();
    let devices: u32 = argument(1, "1000").parse()?;
    let seconds: u64 = argument(2, "10").parse()?;
    let scale: NonZeroU32 = argument(3, "1").parse()?;
    raise_open_files(u64::from(devices) + 100)
        .ok()
        .context("too many devices for this machine's open files")?;
    let folder = std::env::temp_dir().join(format!("link_rate_{}.log", std::process::id()));
    let options = ChildOptions {
        name: "the sender",
        log: folder,
        ready_within: Duration::from_secs(10),
        stop_within: Duration::from_secs(2),
    };
    let (child, ready) = Child::start::<Ready>(own_command("serve")?, options).await?;

    let clock = Clock::start(scale);
    let quantum = clock.virtual_time(Duration::from_millis(50));
    let before = own_usage()?;
    let mut tasks = Vec::new();
    for device in 0..devices {
        let rates = profile.rates(Seed(1), device).context("an unshaped link has no rate to measure")?;
        let path = Path {
            rates: Some(rates),
            round_trip: profile.round_trip(Seed(1), device, 0),
            cut: None,
            quantum,
        };
        let in_flight = rates.down_bytes_s as f64 * path.round_trip.as_secs_f64() / ANSWER_BYTES as f64;
        #[expect(clippy::cast_possible_truncation, reason = "a few hundred at most")]
        let outstanding = 4 + 2 * in_flight.ceil() as u64;
        let (clock, address) = (clock.clone(), ready.address);
        tasks.push(tokio::spawn(async move {
            let mut link = Link::connect(address, &path, clock.clone()).await?;
            let began = clock.now();
            let until = began + clock.virtual_time(Duration::from_secs(seconds));
            let (mut reads, mut requested) = (0u64, 0u64);
            while clock.now() < until {
                // By way of the stack, as the MQTT client does: a waiting device has no buffer.
                let answered = link.received() / ANSWER_BYTES as u64;
                while requested < answered + outstanding {
                    link.write_all(b"r").await?;
                    requested += 1;
                }
                read_some(&mut link).await?;
                reads += 1;
            }
            let elapsed = clock.now().since(began).as_secs_f64();
            let ratio = link.received() as f64 / elapsed / rates.down_bytes_s as f64;
            anyhow::Ok((ratio, link.wakes(), reads))
        }));
    }
    let (mut ratios, mut wakes, mut reads) = (Vec::new(), 0, 0);
    for task in tasks {
        let (ratio, woken, read) = task.await??;
        ratios.push(ratio);
        wakes += woken;
        reads += read;
    }
    let (after, service) = (own_usage()?, child.usage()?);
    child.stop().await?;

    ratios.sort_by(f64::total_cmp);
    let at = |fraction: f64| {
        #[expect(clippy::cast_possible_truncation, reason = "a place in a slice")]
        let place = ((ratios.len() - 1) as f64 * fraction) as usize;
        ratios[place]
    };
    let each_second = f64::from(devices) * seconds as f64;
    println!("{profile}, {devices} devices, {seconds} s, time x{scale}");
    println!(
        "measured / drawn rate: min {:.3}  p10 {:.3}  p50 {:.3}  max {:.3}",
        at(0.0),
        at(0.1),
        at(0.5),
        at(1.0)
    );
    println!(
        "wakes {:.1} and reads {:.1} per device and second",
        wakes as f64 / each_second,
        reads as f64 / each_second
    );
    let cpu = (after.cpu - before.cpu).as_secs_f64();
    println!("cpu {:.2} cores here, {:.2} s at the sender", cpu / seconds as f64, service.cpu.as_secs_f64());
    let memory = after.peak_rss_bytes.saturating_sub(before.peak_rss_bytes) as f64 / f64::from(devices);
    println!("memory {:.1} KiB per device", memory / 1024.0);
    Ok(())
}

async fn read_some(link: &mut Link) -> std::io::Result<()> {
    core::future::poll_fn(|cx| {
        let mut scratch = [core::mem::MaybeUninit::uninit(); 16 * 1024];
        let mut scratch = tokio::io::ReadBuf::uninit(&mut scratch);
        tokio::io::AsyncRead::poll_read(core::pin::Pin::new(link), cx, &mut scratch)
    })
    .await
}
