//! Contenders that ask the same target for the same 12 bytes, each in its own way, for so long;
//! and a target that costs less than any of them.
//!
//! Each runs on the generator's core alone and answers what it has counted itself, as a check; the
//! figures come from the target's count and from `/proc`.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, RwLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use balter_uring::bench_support::floor::{self, Exchange};
use futures_lite::{AsyncReadExt, AsyncWriteExt};
use glommio::net::TcpStream;
use glommio::{LocalExecutorBuilder, Placement};

use crate::cpu;

/// Names of the generating threads, by which `/proc` tells what they have used.
pub(crate) const FLOOR: &str = "peer-floor";
pub(crate) const GLOMMIO: &str = "peer-glommio";
pub(crate) const BALTER: &str = "peer-balter";

pub(crate) fn request(address: SocketAddr) -> String {
    format!("GET / HTTP/1.1\r\nhost: {address}\r\n\r\n")
}

/// The bare loop. `response_len` is the length of a whole response, its head included.
pub(crate) fn bare(
    address: SocketAddr,
    connections: usize,
    response_len: usize,
    length: Duration,
) -> io::Result<u64> {
    let request = request(address);
    let exchange = Exchange { address, connections, request: request.as_bytes(), response_len };
    floor::ask(&exchange, length)
}

/// glommio's own sockets, one task for each connection, with httparse for the heads.
pub(crate) fn glommio(
    core: usize,
    address: SocketAddr,
    connections: usize,
    length: Duration,
) -> io::Result<u64> {
    let executor = LocalExecutorBuilder::new(Placement::Fixed(core)).name(GLOMMIO);
    let running = executor.spawn(move || async move {
        let end = Instant::now() + length;
        let request: Rc<str> = request(address).into();
        let tasks: Vec<_> = (0..connections)
            .map(|_| glommio::spawn_local(visit(address, Rc::clone(&request), end)))
            .collect();
        let mut responses = 0;
        for task in tasks {
            responses += task.await?;
        }
        Ok(responses)
    });
    let running = running.map_err(|error| io::Error::other(error.to_string()))?;
    running.join().map_err(|error| io::Error::other(error.to_string()))?
}

async fn visit(address: SocketAddr, request: Rc<str>, end: Instant) -> io::Result<u64> {
    let mut stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let mut buffer = vec![0; 16 << 10];
    let mut responses = 0;
    while Instant::now() < end {
        stream.write_all(request.as_bytes()).await?;
        let mut filled = 0;
        loop {
            let read = stream.read(&mut buffer[filled..]).await?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            filled += read;
            if whole(&buffer[..filled])?.is_some_and(|whole| filled >= whole) {
                break;
            }
        }
        responses += 1;
    }
    Ok(responses)
}

/// Length of the whole response, once its head is there.
pub(crate) fn whole(bytes: &[u8]) -> io::Result<Option<usize>> {
    let mut headers = [httparse::EMPTY_HEADER; 16];
    let mut response = httparse::Response::new(&mut headers);
    let head = match response.parse(bytes) {
        Ok(httparse::Status::Complete(head)) => head,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(error) => return Err(io::Error::other(error)),
    };
    let length = response
        .headers
        .iter()
        .find(|header| header.name.eq_ignore_ascii_case("content-length"))
        .and_then(|header| std::str::from_utf8(header.value).ok()?.parse::<usize>().ok())
        .ok_or(io::ErrorKind::InvalidData)?;
    Ok(Some(head + length))
}

/// Where Balter's scenario, which takes no arguments, finds its target.
static URL: RwLock<String> = RwLock::new(String::new());

mod scenario {
    use balter::{scenario, transaction};
    use reqwest::{Client, Error};

    #[scenario]
    pub(crate) async fn visitor() {
        let client = Client::new();
        let url = super::URL.read().expect("nobody panics with it").clone();
        loop {
            let _ = visit(&client, &url).await;
        }
    }

    #[transaction]
    async fn visit(client: &Client, url: &str) -> Result<(), Error> {
        client.get(url).send().await?.error_for_status()?.bytes().await?;
        Ok(())
    }
}

/// How Balter is run. The rate is out of reach in each way, so that its limiter never waits.
#[derive(Clone, Copy, Debug)]
pub(crate) enum BalterRun {
    /// As it costs least: one thread, and as many instances as there are to be connections from
    /// the beginning. It adds up to a hundred each second that the rate is not reached.
    AtBest { connections: usize },
    /// As its guide writes it: tokio's default runtime, which has a worker for each core that it
    /// may use (here one), and no hint.
    AsInGuide,
}

/// Balter 0.8.2 with reqwest, on the calling thread's core.
pub(crate) fn balter(url: &str, run: BalterRun, length: Duration) -> io::Result<()> {
    use balter::prelude::ConfigurableScenario as _;
    url.clone_into(&mut URL.write().expect("nobody panics with it"));
    let mut builder = match run {
        BalterRun::AtBest { .. } => tokio::runtime::Builder::new_current_thread(),
        BalterRun::AsInGuide => tokio::runtime::Builder::new_multi_thread(),
    };
    let runtime = builder.thread_name(BALTER).enable_all().build()?;
    runtime.block_on(async {
        let endless = Duration::from_secs(3_600);
        let scenario = scenario::visitor().tps(1_000_000_000).duration(endless);
        let scenario = match run {
            BalterRun::AtBest { connections } => {
                scenario.hint(balter::Hint::Concurrency(connections))
            }
            BalterRun::AsInGuide => scenario,
        };
        // It ends only with a whole second; what is left is dropped with the runtime.
        let _ = tokio::time::timeout(length, scenario).await;
    });
    Ok(())
}

/// `wrk` with one thread on one core; `None` where it is not installed.
pub(crate) fn wrk(
    core: usize,
    url: &str,
    connections: usize,
    length: Duration,
) -> io::Result<Option<Wrk>> {
    let child = Command::new("taskset")
        .args(["-c", &core.to_string(), "wrk", "-t1"])
        .arg(format!("-c{connections}"))
        // Whole seconds; it is ended when it has been watched.
        .arg(format!("-d{}s", length.as_secs() + 1))
        .arg(url)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    match child {
        Ok(child) => Ok(Some(Wrk { child })),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// A running `wrk`, which ends with this at the latest.
pub(crate) struct Wrk {
    child: Child,
}

impl Wrk {
    pub(crate) fn used(&self) -> cpu::Used {
        cpu::of_process(self.child.id())
    }
}

impl Drop for Wrk {
    fn drop(&mut self) {
        // It may have ended by itself; either way it is waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whether `wrk` and `taskset` can be run at all.
pub(crate) fn has_wrk() -> bool {
    ["wrk", "taskset"].iter().all(|program| {
        let mut command = Command::new(program);
        command.arg("--version").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        // wrk answers its version with exit code 1.
        command.status().is_ok()
    })
}

/// A target that does nothing but answer, by the bare loop, so that the clients are what is
/// measured. It ends with this.
pub(crate) struct Responder {
    pub(crate) address: SocketAddr,
    served: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<io::Result<()>>>,
}

impl Responder {
    pub(crate) fn start(core: usize) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let (served, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (counts, stopped) = (Arc::clone(&served), Arc::clone(&stop));
        let thread = cpu::on_core("bare-responder", core, move || {
            let response = b"HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\nHello world\n";
            floor::answer(&listener, response, &counts, &stopped)
        });
        Ok(Self { address, served, stop, thread: Some(thread) })
    }

    pub(crate) fn served(&self) -> u64 {
        self.served.load(Ordering::Relaxed)
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(Ok(Err(error))) = self.thread.take().map(JoinHandle::join) {
            println!("the bare responder has ended early: {error}");
        }
    }
}
