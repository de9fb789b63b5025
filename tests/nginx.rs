//! The HTTP client against nginx, which has its own mind about when a connection ends and how a
//! body is delimited.
//!
//! Skipped where nginx is not installed, except in CI.

#[path = "support_http/mod.rs"]
mod support;

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::thread::sleep;

use balter_uring::FailureClass;
use balter_uring::http::{Client, Error, PreparedRequest, StatusCode};
use balter_uring::prelude::*;
use balter_uring::time;

use support::nginx::{Nginx, configured};
use support::{Random, checksum, clients_of, eventually, finish, on_shard};

const LARGE: usize = 5_000_003;

impl Nginx {
    /// `None` where there is none. `more` goes into the configuration's `server`.
    fn start(more: &str) -> Option<Self> {
        let prepare = |root: &Path| {
            fs::write(root.join("html/small.txt"), "hello").expect("it is ours");
            fs::write(root.join("html/before.txt"), "before, ").expect("it is ours");
            fs::write(root.join("html/large.bin"), Random(6).bytes(LARGE)).expect("it is ours");
        };
        Self::launch(prepare, |root, address| configuration(root, address, more))
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}/{path}", self.address)
    }

    /// Lines of the access log of requests for this path, once there are at least so many of them.
    fn logged(&self, path: &str, at_least: u64) -> Vec<Logged> {
        let read = || -> Vec<Logged> {
            let text = fs::read_to_string(self.root.join("access.log")).unwrap_or_default();
            text.lines().filter_map(Logged::parse).filter(|line| line.path == path).collect()
        };
        eventually("the access log is complete", || read().len() as u64 >= at_least);
        // One too many may be on its way.
        sleep(Duration::from_millis(100));
        read()
    }
}

/// One request as nginx saw it.
struct Logged {
    path: String,
    status: u16,
    /// nginx's number of the connection, and of the request on it.
    connection: u64,
    request: u64,
    /// Bytes of the request, head and body.
    length: u64,
}

impl Logged {
    fn parse(line: &str) -> Option<Self> {
        let mut fields = line.split(' ');
        Some(Self {
            path: fields.next()?.to_owned(),
            status: fields.next()?.parse().ok()?,
            connection: fields.next()?.parse().ok()?,
            request: fields.next()?.parse().ok()?,
            length: fields.next()?.parse().ok()?,
        })
    }
}

fn configuration(root: &Path, address: SocketAddr, more: &str) -> String {
    let directory = root.display();
    configured(
        root,
        &format!(
            r#"
    log_format short "$uri $status $connection $connection_requests $request_length";
    access_log {directory}/access.log short;
    default_type text/plain;
    client_max_body_size 32m;
    keepalive_requests 1000000;
    server {{
        listen {address};
        root {directory}/html;
        location = /empty {{ return 204; }}
        location = /text {{ return 200 "some text"; }}
        location = /broken {{ return 500 "broken"; }}
        location = /status {{ stub_status; access_log off; }}
        location = /chunked {{ add_before_body /before.txt; addition_types *; alias {directory}/html/small.txt; }}
        location = /chunked-large {{ add_before_body /before.txt; addition_types *; alias {directory}/html/large.bin; }}
        location = /posted {{ proxy_pass http://{address}/back; }}
        location = /back {{ return 200 "taken"; }}
        location /stored/ {{ dav_methods PUT; create_full_put_path on; }}
        {more}
    }}
"#
        ),
    )
}

#[test]
fn answers_of_every_shape_are_read() {
    let Some(nginx) = Nginx::start("") else { return };
    let address = nginx.address;
    on_shard(async move || {
        let client = Client::new();
        let url = |path: &str| format!("http://{address}/{path}");
        for _ in 0..3 {
            let small = client.get(url("small.txt")).send().await.expect("an answer");
            assert_eq!((small.status(), small.content_length()), (StatusCode::OK, Some(5)));
            let modified = small.headers().expect("headers")["last-modified"].clone();
            assert_eq!(small.text().await.expect("its body"), "hello");

            let head = client.head(url("small.txt")).send().await.expect("an answer");
            assert_eq!(head.status(), StatusCode::OK);
            assert_eq!(head.headers().expect("headers")["content-length"], "5");
            assert_eq!(head.bytes().await.expect("no body"), "");

            let same = client.get(url("small.txt")).header("if-modified-since", modified);
            let same = same.send().await.expect("an answer");
            assert_eq!(same.status(), StatusCode::NOT_MODIFIED);
            assert_eq!(same.bytes().await.expect("no body"), "");

            let empty = client.get(url("empty")).send().await.expect("an answer");
            assert_eq!(empty.status(), StatusCode::NO_CONTENT);
            assert_eq!(empty.bytes().await.expect("no body"), "");

            let text = client.get(url("text")).send().await.expect("an answer");
            assert_eq!(text.text().await.expect("its body"), "some text");

            let missing = client.get(url("missing")).send().await.expect("an answer");
            assert_eq!(missing.status(), StatusCode::NOT_FOUND);
            let error = missing.error_for_status().expect_err("it is missing");
            assert!(matches!(error, Error::Status(StatusCode::NOT_FOUND)), "{error:?}");
        }
    });
    let logged = nginx.logged("/text", 3);
    assert!(logged.iter().all(|line| line.connection == logged[0].connection), "one connection");
    assert_eq!(logged.iter().map(|line| line.request).collect::<Vec<_>>(), [5, 11, 17]);
}

#[test]
fn large_bodies_arrive_whole_by_length_and_in_chunks() {
    let Some(nginx) = Nginx::start("") else { return };
    let address = nginx.address;
    let large = Random(6).bytes(LARGE);
    let chunked = [b"before, ".as_slice(), &large].concat();
    on_shard(async move || {
        let client = Client::new();
        let url = |path: &str| format!("http://{address}/{path}");
        for _ in 0..3 {
            let response = client.get(url("large.bin")).send().await.expect("an answer");
            assert_eq!(response.content_length(), Some(LARGE as u64));
            let body = response.bytes().await.expect("its body");
            assert_eq!((body.len(), checksum(&body)), (LARGE, checksum(&large)));

            let small = client.get(url("chunked")).send().await.expect("an answer");
            assert_eq!(small.headers().expect("headers")["transfer-encoding"], "chunked");
            assert_eq!(small.content_length(), None);
            assert_eq!(small.text().await.expect("its body"), "before, hello");

            let mut response = client.get(url("chunked-large")).send().await.expect("an answer");
            assert_eq!(response.headers().expect("headers")["transfer-encoding"], "chunked");
            let mut body = Vec::new();
            while let Some(piece) = response.chunk().await.expect("its body") {
                body.extend_from_slice(&piece);
            }
            assert_eq!((body.len(), checksum(&body)), (chunked.len(), checksum(&chunked)));
        }
    });
    let logged = nginx.logged("/large.bin", 3);
    assert!(logged.iter().all(|line| line.connection == logged[0].connection), "one connection");
}

#[test]
fn bodies_are_posted_whole() {
    let Some(nginx) = Nginx::start("") else { return };
    let address = nginx.address;
    let sizes = [1_usize, 1000, 100_000, 8_000_000];
    on_shard(async move || {
        let client = Client::new();
        for size in sizes {
            let url = format!("http://{address}/posted");
            let response = client.post(&url).body(vec![b'x'; size]).send().await;
            let response = response.expect("an answer").error_for_status().expect("it is taken");
            assert_eq!(response.text().await.expect("its body"), "taken");
            // What was stored is what was sent.
            let url = format!("http://{address}/stored/{size}");
            let sent = Random(size as u64).bytes(size);
            let expected = checksum(&sent);
            let response = client.put(&url).body(sent).send().await.expect("an answer");
            assert_eq!(response.status(), StatusCode::CREATED);
            response.discard().await.expect("its body");
            let stored = client.get(&url).send().await.expect("an answer").bytes().await;
            assert_eq!(checksum(&stored.expect("its body")), expected, "{size}");
        }
    });
    let logged = nginx.logged("/posted", 4);
    assert!(
        logged.iter().all(|line| line.status == 200 && line.connection == logged[0].connection)
    );
    // What nginx has read of each beside the body is the same but for the digits of the length.
    let heads = logged
        .iter()
        .zip(sizes)
        .map(|(line, size)| line.length - size as u64 - size.to_string().len() as u64);
    let heads: Vec<_> = heads.collect();
    assert!(heads.iter().all(|&head| head == heads[0]), "{heads:?}");
}

#[scenario]
async fn visitor(url: String) {
    let page = Client::new().get(&url).prepare().expect("a good URL");
    loop {
        let _ = visit(&page).await;
    }
}

#[transaction]
async fn visit(page: &PreparedRequest) -> Result<(), Error> {
    page.send().await?.error_for_status()?.discard().await?;
    Ok(())
}

#[test]
fn a_connection_that_ends_after_five_requests_is_replaced() {
    let Some(nginx) = Nginx::start("keepalive_requests 5;") else { return };
    let run = visitor(nginx.url("text")).tps(200).duration(Duration::from_secs(1));
    let statistics = finish(run);
    assert_eq!(statistics.failures, []);
    assert!(statistics.counts.succeeded > 100, "{:?}", statistics.counts);
    let logged = nginx.logged("/text", statistics.counts.succeeded);
    assert_eq!(logged.len() as u64, statistics.counts.succeeded, "none was sent twice");
    assert_eq!(logged.iter().map(|line| line.request).max(), Some(5), "up to the last is used");
}

/// nginx closes what was idle for a second, as the client finds out only when it next looks.
#[test]
fn an_idle_connection_that_was_closed_is_replaced() {
    let Some(nginx) = Nginx::start("keepalive_timeout 1s;") else { return };
    let url = nginx.url("text");
    let port = nginx.address.port();
    on_shard(async move || {
        let client = Client::new();
        for _ in 0..2 {
            for _ in 0..2 {
                let response = client.get(&url).send().await.expect("an answer");
                assert_eq!(response.text().await.expect("its body"), "some text");
            }
            time::sleep(Duration::from_millis(1500)).await;
        }
        // Also what must not be sent twice finds a connection that works.
        let response = client.post(&url).body("data").send().await.expect("an answer");
        assert_eq!(response.text().await.expect("its body"), "some text");
    });
    let logged = nginx.logged("/text", 5);
    let connections: Vec<_> = logged.iter().map(|line| line.connection).collect();
    assert_eq!(connections[0], connections[1]);
    assert_eq!(connections[2], connections[3]);
    assert!(connections[1] < connections[2] && connections[3] < connections[4], "{connections:?}");
    eventually("all are closed", || clients_of(port).is_empty());
}

#[test]
fn bad_statuses_are_failures_of_that_class() {
    let Some(nginx) = Nginx::start("") else { return };
    for (path, status) in [("broken", 500), ("missing", 404)] {
        let run = visitor(nginx.url(path)).tps(200).duration(Duration::from_millis(500));
        let statistics = finish(run);
        let counts = statistics.counts;
        assert_eq!(statistics.failures, [(FailureClass::Status, counts.failed)]);
        assert!(counts.failed > 20 && counts.succeeded == 0, "{counts:?}");
        assert_eq!(statistics.error_rate, 1.0);
        let logged = nginx.logged(&format!("/{path}"), counts.failed);
        assert!(logged.iter().all(|line| line.status == status));
        assert_eq!(logged.len() as u64, counts.failed);
    }
}

/// What the generator counts is what the server counts, to the request.
#[test]
fn nginx_and_the_statistics_agree_on_the_count() {
    let Some(nginx) = Nginx::start("") else { return };
    let before = handled(&nginx);
    let run = visitor(nginx.url("text")).tps(500).duration(Duration::from_millis(1500));
    let statistics = finish(run);
    let counts = statistics.counts;
    assert_eq!(statistics.failures, []);
    assert!(counts.completed() > 400, "{counts:?}");
    assert_eq!((counts.failed, counts.cancelled), (0, 0));
    // The asking is a request, too.
    assert_eq!(handled(&nginx) - before - 1, counts.completed());
    let logged = nginx.logged("/text", counts.completed());
    assert_eq!(logged.len() as u64, counts.completed());
    eventually("all are closed", || clients_of(nginx.address.port()).is_empty());
}

/// Requests that nginx has handled, by its own count.
fn handled(nginx: &Nginx) -> u64 {
    let url = nginx.url("status");
    let text = on_shard(async move || {
        let response = Client::new().get(&url).send().await.expect("an answer");
        response.text().await.expect("its body")
    });
    let line = text.lines().nth(2).expect("accepts, handled, requests");
    line.split_whitespace().nth(2).expect("requests").parse().expect("a number")
}
