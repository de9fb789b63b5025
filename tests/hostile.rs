//! Targets that do everything wrong: each failure has the class of what happened, comes within the
//! timeout, and leaves nothing open behind it.

#[path = "support_http/mod.rs"]
mod support;

use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::sleep;
use std::time::Instant;

use balter_uring::FailureClass;
use balter_uring::http::{Client, Error};
use balter_uring::prelude::*;
use balter_uring::time;

use support::{Peer, Server, answer, descriptors, eventually, finish, ok, on_shard, refusing};

/// For targets that have nothing else to end an exchange.
const SHORT: Duration = Duration::from_millis(400);

/// For all others: what they do is seen at once, and a busy machine must not look like them.
const LONG: Duration = Duration::from_secs(4);

/// What visitors see if all goes well.
const BODY: &str = "all is well";

#[scenario]
async fn visitors(url: String, body: Option<&'static [u8]>) {
    let client = Client::new();
    loop {
        let _ = visit(&client, &url, body).await;
    }
}

#[transaction]
async fn visit(client: &Client, url: &str, body: Option<&'static [u8]>) -> Result<(), Failure> {
    let request = match body {
        Some(body) => client.post(url).body(body),
        None => client.get(url),
    };
    let text = request.send().await?.error_for_status()?.text().await?;
    if text == BODY { Ok(()) } else { Err(Failure::Content) }
}

/// Carries nothing: the class is to come from below, not from an error's type.
enum Failure {
    Http,
    Content,
}

impl From<Error> for Failure {
    fn from(_: Error) -> Self {
        Self::Http
    }
}

fn run(address: SocketAddr, body: Option<&'static [u8]>, timeout: Duration) -> RunStatistics {
    let started = Instant::now();
    let url = format!("http://{address}/");
    let run = visitors(url, body).tps(50).duration(Duration::from_millis(600)).timeout(timeout);
    let statistics = finish(run.grace(Duration::from_secs(10)));
    // The timeout of the last to start bounds it; the rest is for a machine with other work.
    assert!(started.elapsed() < Duration::from_secs(10), "it ended after {:?}", started.elapsed());
    assert!(statistics.counts.completed() > 5, "{:?}", statistics.counts);
    assert_eq!(statistics.counts.cancelled, 0, "a transaction outlived its timeout and the grace");
    statistics
}

/// Every transaction fails, with this class and no other, and nothing stays open.
#[track_caller]
fn fails_as(class: FailureClass, behaviour: impl Fn(&mut Peer) + Send + Sync + 'static) {
    let server = Server::start(behaviour);
    let timeout = if class == FailureClass::Timeout { SHORT } else { LONG };
    let statistics = run(server.address, None, timeout);
    assert_failed(&statistics, class);
    server.assert_left_alone();
}

#[track_caller]
fn assert_failed(statistics: &RunStatistics, class: FailureClass) {
    assert_eq!(statistics.failures, [(class, statistics.counts.failed)]);
    assert_eq!(statistics.counts.succeeded, 0);
    assert_eq!(statistics.error_rate, if class.is_generator() { 0.0 } else { 1.0 });
}

/// Every transaction succeeds in spite of it all, and nothing stays open.
#[track_caller]
fn succeeds(server: &Server, body: Option<&'static [u8]>) -> RunStatistics {
    let statistics = run(server.address, body, LONG);
    assert_eq!(statistics.failures, []);
    server.assert_left_alone();
    statistics
}

/// Answers each request with bytes that are no answer, and holds the connection until the client
/// gives it up.
fn says(bytes: impl Into<Vec<u8>>) -> impl Fn(&mut Peer) + Send + Sync {
    let bytes = bytes.into();
    move |peer| {
        while peer.request().is_some() {
            peer.send(&bytes);
        }
    }
}

/// Answers the first request and ends the connection.
fn says_and_closes(bytes: impl Into<Vec<u8>>) -> impl Fn(&mut Peer) + Send + Sync {
    let bytes = bytes.into();
    move |peer| {
        peer.request();
        peer.send(&bytes);
    }
}

// ---- Connections ---------------------------------------------------------------------------------

#[test]
fn a_closed_port_refuses() {
    let (_socket, address) = refusing();
    assert_failed(&run(address, None, LONG), FailureClass::Refused);
    eventually("no connection is left", || support::clients_of(address.port()).is_empty());
}

#[test]
fn a_reset_before_the_answer_is_a_reset() {
    fails_as(FailureClass::Reset, |peer| {
        peer.request();
        peer.reset();
    });
}

#[test]
fn a_reset_in_the_body_is_a_reset() {
    fails_as(FailureClass::Reset, |peer| {
        peer.request();
        peer.send("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nthe beginning");
        // Enough for the client to have read the head and to wait for the rest.
        sleep(Duration::from_millis(20));
        peer.reset();
    });
}

#[test]
fn a_close_right_after_the_accept_is_a_reset() {
    fails_as(FailureClass::Reset, |_| {});
}

#[test]
fn a_close_instead_of_an_answer_is_a_reset() {
    fails_as(FailureClass::Reset, |peer| drop(peer.request()));
}

#[test]
fn a_target_that_never_answers_times_out_and_is_let_go() {
    let before = descriptors();
    fails_as(FailureClass::Timeout, Peer::until_closed);
    // Those of other tests in this process come and go; a leak of this run's fifty would stay.
    eventually("the descriptors are back", || descriptors() < before + 40);
}

#[test]
fn a_target_that_does_not_even_read_times_out() {
    static BODY: [u8; 8 << 20] = [7; 8 << 20];
    let server = Server::start(|peer| {
        // Longer than any timeout here; then what was sent is read, to see the client's end.
        sleep(Duration::from_secs(3));
        peer.until_closed();
    });
    let statistics = run(server.address, Some(&BODY), SHORT);
    assert_failed(&statistics, FailureClass::Timeout);
    server.assert_left_alone();
}

// ---- Pace ----------------------------------------------------------------------------------------

#[test]
fn an_answer_of_one_byte_every_200_ms_times_out() {
    fails_as(FailureClass::Timeout, |peer| {
        peer.request();
        for byte in ok(BODY) {
            if !peer.send([byte]) {
                return;
            }
            sleep(Duration::from_millis(200));
        }
    });
}

#[test]
fn a_body_without_end_times_out() {
    fails_as(FailureClass::Timeout, |peer| {
        peer.request();
        peer.send("HTTP/1.1 200 OK\r\n\r\n");
        while peer.send("and so on, ") {
            sleep(Duration::from_millis(5));
        }
    });
}

#[test]
fn where_an_answer_is_cut_makes_no_difference() {
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\
                   4\r\nall \r\n7;x=y\r\nis well\r\n0\r\nTrailer: t\r\n\r\n";
    let answers = [ok(BODY), chunked.into()];
    let places: Vec<_> = answers
        .iter()
        .flat_map(|answer| (1..answer.len()).map(|at| (answer.clone(), at)))
        .collect();
    let (count, next) = (places.len(), AtomicUsize::new(0));
    let server = Server::start(move |peer| {
        while peer.request().is_some() {
            let (answer, at) = &places[next.fetch_add(1, Ordering::SeqCst) % count];
            peer.send(&answer[..*at]);
            // The first part is to be read by itself.
            sleep(Duration::from_millis(2));
            peer.send(&answer[*at..]);
        }
    });
    let run = visitors(server.url(), None).tps(400).duration(Duration::from_millis(800));
    let statistics = finish(run.grace(Duration::from_secs(10)));
    assert_eq!(statistics.failures, []);
    assert!(statistics.counts.succeeded >= count as u64, "{count} cuts, {:?}", statistics.counts);
    server.assert_left_alone();
}

#[test]
fn an_answer_in_single_bytes_is_an_answer() {
    let server = Server::start(|peer| {
        while peer.request().is_some() {
            for byte in ok(BODY) {
                peer.send([byte]);
                sleep(Duration::from_micros(100));
            }
        }
    });
    succeeds(&server, None);
}

// ---- Status and heads ----------------------------------------------------------------------------

#[test]
fn a_bad_status_is_a_status() {
    for status in ["500 Internal Server Error", "503 Service Unavailable", "404 Not Found"] {
        fails_as(FailureClass::Status, says(answer(status, "", "sorry")));
    }
}

#[test]
fn what_is_not_http_breaks_the_protocol() {
    for bytes in [
        "SSH-2.0-OpenSSH_9.9\r\n",
        "\x16\x03\x01\x02\x00\x01\x00\x01\u{fc}\x03\x03",
        "HTTP/2.0 200 OK\r\n\r\n",
        "HTTP/1.1 2000 OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\nno colon here\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
        "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nabcd",
    ] {
        fails_as(FailureClass::Protocol, says(bytes));
    }
}

#[test]
fn a_head_without_end_breaks_the_protocol() {
    fails_as(FailureClass::Protocol, |peer| {
        peer.request();
        peer.send("HTTP/1.1 200 OK\r\n");
        while peer.send([b"X-Filler: ".as_slice(), &[b'a'; 500], b"\r\n"].concat()) {}
    });
}

#[test]
fn a_header_line_without_end_breaks_the_protocol() {
    fails_as(FailureClass::Protocol, |peer| {
        peer.request();
        peer.send("HTTP/1.1 200 OK\r\nX-Filler: ");
        while peer.send([b'a'; 500]) {}
    });
}

#[test]
fn interim_answers_for_ever_break_the_protocol() {
    fails_as(FailureClass::Protocol, |peer| {
        peer.request();
        while peer.send("HTTP/1.1 100 Continue\r\n\r\n") {}
    });
}

#[test]
fn a_few_interim_answers_are_skipped() {
    let interim = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n";
    let server = Server::answering([interim.repeat(3).as_bytes(), &ok(BODY)].concat());
    let statistics = succeeds(&server, None);
    assert!((server.accepted() as u64) < statistics.counts.completed(), "connections are reused");
}

// ---- Bodies --------------------------------------------------------------------------------------

#[test]
fn a_body_shorter_than_its_length_is_a_reset() {
    let short = "HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\nall is well";
    fails_as(FailureClass::Reset, says_and_closes(short));
}

#[test]
fn a_body_shorter_than_its_length_on_an_open_connection_times_out() {
    fails_as(
        FailureClass::Timeout,
        says("HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\nall is well"),
    );
}

/// What comes after the body cannot be an answer to the next request.
#[test]
fn a_body_longer_than_its_length_costs_the_connection_and_nothing_else() {
    let server = Server::answering([ok(BODY).as_slice(), b" or is it?"].concat());
    let statistics = succeeds(&server, None);
    assert_eq!(server.accepted() as u64, statistics.counts.completed());
}

#[test]
fn a_body_that_would_never_fit_breaks_the_protocol() {
    fails_as(
        FailureClass::Protocol,
        says("HTTP/1.1 200 OK\r\nContent-Length: 1099511627776\r\n\r\n"),
    );
}

#[test]
fn broken_chunks_break_the_protocol() {
    for chunks in ["x\r\n", "-1\r\n", "\r\n", "5\r\nall iXX", "fffffffffffffffff\r\n", "5 5\r\n"] {
        let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        fails_as(FailureClass::Protocol, says(format!("{head}{chunks}")));
    }
}

#[test]
fn chunks_that_end_early_are_a_reset() {
    for chunks in ["5\r\nal", "5\r\nall i", "5\r\nall i\r\n", "5\r\nall i\r\n0\r\n", ""] {
        let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        fails_as(FailureClass::Reset, says_and_closes(format!("{head}{chunks}")));
    }
}

#[test]
fn a_body_that_ends_with_the_connection_is_complete() {
    let server = Server::start(says_and_closes(format!("HTTP/1.1 200 OK\r\n\r\n{BODY}")));
    let statistics = succeeds(&server, None);
    assert_eq!(server.accepted() as u64, statistics.counts.completed());
}

// ---- Answers out of turn -------------------------------------------------------------------------

#[test]
fn an_answer_before_the_request_is_taken_for_its_answer() {
    let server = Server::start(|peer| {
        peer.send(answer("200 OK", "Connection: close\r\n", BODY));
        peer.until_closed();
    });
    let statistics = succeeds(&server, None);
    assert_eq!(server.accepted() as u64, statistics.counts.completed());
}

/// One that arrives on an idle connection must not be taken for the answer to the next request.
#[test]
fn an_answer_that_nobody_asked_for_costs_the_connection() {
    const ROUNDS: usize = 5;
    let sent = Arc::new(AtomicUsize::new(0));
    let sender = Arc::clone(&sent);
    let server = Server::start(move |peer| {
        while peer.request().is_some() {
            peer.send(ok(BODY));
            peer.send(ok("an answer to something else"));
            sender.fetch_add(1, Ordering::SeqCst);
        }
    });
    let url = server.url();
    on_shard(async move || {
        let client = Client::new();
        for round in 1..=ROUNDS {
            let answer = client.get(&url).send().await.expect("the server is there");
            assert_eq!(answer.text().await.expect("a body"), BODY);
            while sent.load(Ordering::SeqCst) < round {
                time::sleep(Duration::from_millis(1)).await;
            }
            // What was sent over loopback has arrived; the ring has yet to turn.
            time::sleep(Duration::from_millis(20)).await;
        }
    });
    assert_eq!(server.accepted(), ROUNDS);
    server.assert_left_alone();
}

/// The rest of the request is never read: the next one must not wait behind it.
#[test]
fn an_answer_to_half_a_request_costs_the_connection_and_not_the_next_request() {
    static BODY_SENT: [u8; 16 << 20] = [7; 16 << 20];
    let server = Server::start(|peer| {
        let mut first = [0; 100];
        let _ = std::io::Read::read(&mut peer.stream, &mut first);
        peer.send(ok(BODY));
        // Holds the connection, and its end is seen only by reading what was sent.
        sleep(Duration::from_secs(2));
        peer.until_closed();
    });
    let statistics = succeeds(&server, Some(&BODY_SENT));
    assert_eq!(server.accepted() as u64, statistics.counts.completed());
}

// ---- The generator's own limits ------------------------------------------------------------------

/// Where the child process finds the server.
const CHILD_URL: &str = "BALTER_TEST_HOSTILE_URL";

#[test]
fn descriptors_that_run_out_are_no_failure_of_the_target() {
    const NAME: &str = "descriptors_that_run_out_are_no_failure_of_the_target";
    if let Ok(url) = std::env::var(CHILD_URL) {
        return run_out_of_descriptors(url);
    }
    // Answers so late that all instances need a connection at the same time.
    let server = Server::start(|peer| {
        while peer.request().is_some() {
            sleep(Duration::from_millis(100));
            peer.send(ok(BODY));
        }
    });
    let test = std::env::current_exe().expect("a test is a file");
    let output = Command::new(test)
        .args(["--exact", NAME, "--nocapture"])
        .env(CHILD_URL, server.url())
        .env("BALTER_CORES", first_core().to_string())
        .output()
        .expect("it runs");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("1 passed"), "the child has run no test: {text}");
    server.assert_left_alone();
}

fn first_core() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    let list = list.expect("the kernel tells").trim();
    list.split([',', '-']).next().expect("a core").parse().expect("a number")
}

fn run_out_of_descriptors(url: String) {
    use rustix::process::{Resource, Rlimit, setrlimit};

    // Preflight keeps 48 of them for the process and its only shard.
    let limit = Rlimit { current: Some(80), maximum: Some(80) };
    setrlimit(Resource::Nofile, limit).expect("lowering it is allowed");
    let run = visitors(url, None).concurrency(200).duration(Duration::from_secs(1));
    let statistics = finish(run.timeout(Duration::from_secs(20)));
    println!("{statistics}");
    let classes: Vec<_> = statistics.failures.iter().map(|&(class, _)| class).collect();
    assert_eq!(classes, [FailureClass::Descriptors]);
    assert!(statistics.counts.succeeded > 0, "connections within the limit work");
    assert_eq!(statistics.error_rate, 0.0, "it is not the target's fault");
}
