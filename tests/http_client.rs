//! The HTTP client as its user meets it: what goes over the wire, what comes back, and which
//! connection it goes on.

#[path = "support_http/mod.rs"]
mod support;

use std::error::Error as _;
use std::io::Read;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::sleep;

use balter_uring::FailureClass;
use balter_uring::http::{
    Client, CodecError, Error, HeaderMap, HeaderValue, Method, PreparedRequest, StatusCode,
    Version, header,
};
use balter_uring::prelude::*;
use balter_uring::target::Target;
use balter_uring::time;
use futures_lite::future;

use support::{
    Random, Request, Server, answer, checksum, eventually, finish, has_ipv6, ok, on_shard,
};

/// A server that keeps what it was asked, and answers `200` with an empty body.
fn recording() -> (Server, Arc<Mutex<Vec<Request>>>) {
    let requests = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&requests);
    let server = Server::start(move |peer| {
        while let Some(request) = peer.request() {
            kept.lock().expect("nothing panics while it is locked").push(request);
            peer.send(ok(""));
        }
    });
    (server, requests)
}

// ---- Requests ------------------------------------------------------------------------------------

#[test]
fn a_request_arrives_as_it_was_made() {
    let (server, requests) = recording();
    let (url, host) = (server.url(), server.address.to_string());
    on_shard(async move || {
        let client = Client::new();
        let url = format!("{url}a/b?c=d%20e#fragment");
        for request in [
            client.get(&url),
            client.head(&url),
            client.delete(&url),
            client.post(&url).body("posted"),
            client.put(&url).body(vec![0, 159, 146, 150]),
            client.patch(&url).body(""),
            client.request(Method::OPTIONS, &url),
        ] {
            let response = request.send().await.expect("an answer");
            assert_eq!(response.status(), StatusCode::OK);
            assert_eq!(response.bytes().await.expect("its body"), "");
        }
    });
    let requests = requests.lock().expect("nobody panicked");
    let expected: [(&str, &[u8], Option<&str>); 7] = [
        ("GET", b"", None),
        ("HEAD", b"", None),
        ("DELETE", b"", None),
        ("POST", b"posted", Some("6")),
        ("PUT", &[0, 159, 146, 150], Some("4")),
        ("PATCH", b"", Some("0")),
        ("OPTIONS", b"", None),
    ];
    assert_eq!(requests.len(), expected.len());
    for (request, (method, body, length)) in requests.iter().zip(expected) {
        assert_eq!(request.line(), format!("{method} /a/b?c=d%20e HTTP/1.1"));
        assert_eq!(request.header("host"), [&host]);
        assert_eq!(request.header("content-length").first().copied(), length, "{method}");
        assert_eq!(request.header("transfer-encoding"), [""; 0]);
        assert_eq!(request.body, body);
    }
    assert_eq!(server.accepted(), 1, "one client, one request at a time");
}

#[test]
fn the_test_target_answers_head_without_a_body() {
    let target = Target::start().expect("a core");
    let url = format!("{}bytes/1000", target.url());
    on_shard(async move || {
        let client = Client::new();
        for _ in 0..3 {
            let head = client.head(&url).send().await.expect("an answer");
            let headers = head.headers().expect("well formed");
            assert_eq!(headers[header::CONTENT_LENGTH], "1000");
            assert_eq!(head.bytes().await.expect("no body"), "");
        }
        let whole = client.get(&url).send().await.expect("an answer");
        assert_eq!(whole.bytes().await.expect("its body").len(), 1_000);
    });
    assert_eq!(target.connections(), 1, "a body would have broken the connection's framing");
}

#[test]
fn a_requests_own_headers_replace_the_clients() {
    let (server, requests) = recording();
    let url = server.url();
    on_shard(async move || {
        let mut defaults = HeaderMap::new();
        defaults.insert(header::USER_AGENT, HeaderValue::from_static("tests"));
        defaults.insert(header::ACCEPT, HeaderValue::from_static("text/html"));
        let client = Client::builder().default_headers(defaults).build();
        let plain = client.get(&url);
        let own = client.get(&url).header("accept", "image/png").header("x-twice", "1");
        let own = own.header("x-twice", "2");
        let mut replacing = HeaderMap::new();
        replacing.append("x-twice", HeaderValue::from_static("3"));
        replacing.append("x-twice", HeaderValue::from_static("4"));
        let replaced = client.get(&url).header("x-twice", "1").headers(replacing);
        for request in [plain, own, replaced] {
            request.send().await.expect("an answer").discard().await.expect("its body");
        }
    });
    let requests = requests.lock().expect("nobody panicked");
    let [plain, own, replaced] = &requests[..] else { panic!("{} requests", requests.len()) };
    assert_eq!(
        (plain.header("user-agent"), plain.header("accept")),
        (vec!["tests"], vec!["text/html"])
    );
    assert_eq!(
        (own.header("user-agent"), own.header("accept")),
        (vec!["tests"], vec!["image/png"])
    );
    assert_eq!(own.header("x-twice"), ["1", "2"]);
    assert_eq!(replaced.header("x-twice"), ["3", "4"]);
}

#[test]
fn what_is_wrong_with_a_request_is_said_before_anything_is_sent() {
    let (server, requests) = recording();
    let (url, address) = (server.url(), server.address);
    on_shard(async move || {
        let client = Client::new();
        for text in
            ["", "/path", "http://", "http:///path", "127.0.0.1", "http://a b/", "http://a:99999/"]
        {
            let error = client.get(text).send().await.expect_err(text);
            assert!(matches!(error, Error::Url { .. }), "{text:?}: {error:?}");
            assert!(error.to_string().contains(text), "{error}");
        }
        let error = client.get(format!("ftp://{address}/")).send().await.expect_err("no HTTP");
        assert!(matches!(&error, Error::Scheme { scheme } if scheme == "ftp"), "{error:?}");
        #[cfg(not(feature = "tls"))]
        {
            let error = client.get(format!("https://{address}/")).send().await.expect_err("no TLS");
            assert!(matches!(error, Error::HttpsDisabled), "{error:?}");
        }
        for (name, value) in [("x", "a\r\nSmuggled: yes"), ("x\r\nSmuggled: yes", "a"), ("", "a")] {
            let error = client.get(&url).header(name, value).send().await.expect_err(value);
            assert!(matches!(error, Error::Header { .. }), "{error:?}");
        }
        let request = client.post(&url).header("content-length", "3").body("four");
        let error = request.send().await.expect_err("the length is a lie");
        assert!(matches!(error, Error::Encode(CodecError::ConflictingHeader { .. })), "{error:?}");
        let error = client.get(&url).header("x", "a\nb").prepare().expect_err("a line break");
        assert!(matches!(error, Error::Header { .. }), "{error:?}");
    });
    assert_eq!((server.accepted(), requests.lock().expect("nobody panicked").len()), (0, 0));
}

#[test]
fn a_large_body_arrives_whole() {
    const SIZE: usize = 9_000_001;
    let server = Server::start(|peer| {
        while let Some(request) = peer.request() {
            // Late to read the first bytes, so that the client's send has to wait.
            peer.send(ok(format!("{} {}", request.body.len(), checksum(&request.body))));
        }
    });
    let url = server.url();
    on_shard(async move || {
        let client = Client::new();
        let body = Random(7).bytes(SIZE);
        let expected = format!("{SIZE} {}", checksum(&body));
        let prepared = client.post(&url).body(body.clone()).prepare().expect("a good request");
        for round in 0..3 {
            let response = match round {
                0 => client.post(&url).body(body.clone()).send().await,
                _ => prepared.send().await,
            };
            let text = response.expect("an answer").text().await.expect("its body");
            assert_eq!(text, expected);
        }
    });
    assert_eq!(server.accepted(), 1, "a large request does not cost the connection");
}

// ---- Answers -------------------------------------------------------------------------------------

#[test]
fn an_answer_tells_all_of_its_head() {
    let server = Server::answering(
        "HTTP/1.1 201 Created\r\nX-One: 1\r\nSet-Cookie: a=b\r\nSet-Cookie: c=d\r\nContent-Length: 5\r\n\r\nhello",
    );
    let url = server.url();
    on_shard(async move || {
        let response = Client::new().get(&url).send().await.expect("an answer");
        assert_eq!(response.status(), StatusCode::CREATED);
        assert_eq!(response.version(), Version::HTTP_11);
        assert_eq!(response.content_length(), Some(5));
        let headers = response.headers().expect("they were accepted");
        assert_eq!(headers["x-one"], "1");
        let cookies: Vec<_> = headers.get_all(header::SET_COOKIE).iter().collect();
        assert_eq!(cookies, ["a=b", "c=d"]);
        assert_eq!(response.bytes().await.expect("its body"), "hello");
    });
}

#[test]
fn the_headers_are_there_after_the_body() {
    let server = Server::answering(answer("200 OK", "X-One: 1\r\n", "hello"));
    let url = server.url();
    on_shard(async move || {
        let client = Client::new();
        let mut response = client.get(&url).send().await.expect("an answer");
        while response.chunk().await.expect("its body").is_some() {}
        assert_eq!(response.headers().expect("they were accepted")["x-one"], "1");
    });
}

#[test]
fn a_body_is_text_or_says_that_it_is_not() {
    let server = Server::start(|peer| {
        while let Some(request) = peer.request() {
            peer.send(match request.line().contains("/good") {
                true => ok("grüß Gott"),
                false => ok(b"gr\xfc\xdf Gott"),
            });
        }
    });
    let url = server.url();
    on_shard(async move || {
        let client = Client::new();
        let good = client.get(format!("{url}good")).send().await.expect("an answer");
        assert_eq!(good.text().await.expect("UTF-8"), "grüß Gott");
        let bad = client.get(&url).send().await.expect("an answer");
        let error = bad.text().await.expect_err("Latin-1");
        assert!(matches!(error, Error::Text(_)), "{error:?}");
        assert!(error.source().is_some());
    });
    assert_eq!(server.accepted(), 1, "what a body means does not concern its connection");
}

#[cfg(feature = "json")]
#[test]
fn json_goes_both_ways() {
    let server = Server::start(|peer| {
        while let Some(request) = peer.request() {
            assert_eq!(request.header("content-type"), ["application/json"]);
            peer.send(ok(request.body));
        }
    });
    let url = server.url();
    on_shard(async move || {
        let client = Client::new();
        let sent = serde_json::json!({"name": "a \"name\"", "numbers": [1, 2.5, null]});
        let response = client.post(&url).json(&sent).send().await.expect("an answer");
        assert_eq!(response.json::<serde_json::Value>().await.expect("JSON"), sent);
        let response = client.post(&url).json("text").send().await.expect("an answer");
        let error = response.json::<u64>().await.expect_err("it is text");
        assert!(matches!(error, Error::Json(_)), "{error:?}");
    });
}

#[test]
fn a_bad_status_is_an_error_only_when_asked() {
    let server = Server::start(|peer| {
        while let Some(request) = peer.request() {
            let status = request.line().split(['/', ' ']).nth(2).expect("a path").to_owned();
            peer.send(answer(&format!("{status} Whatever"), "", "the body"));
        }
    });
    let url = server.url();
    on_shard(async move || {
        let client = Client::new();
        for status in [200, 302, 399, 400, 404, 500, 599] {
            let url = format!("{url}{status}");
            let response = client.get(&url).send().await.expect("an answer");
            assert_eq!(response.status(), status);
            match response.error_for_status() {
                Ok(response) => {
                    assert!(status < 400, "{status}");
                    assert_eq!(response.text().await.expect("its body"), "the body");
                }
                Err(Error::Status(told)) => {
                    assert!(status >= 400, "{status}");
                    assert_eq!(told, status);
                }
                Err(error) => panic!("{error:?}"),
            }
            let response = client.get(&url).send().await.expect("an answer");
            assert_eq!(response.text().await.expect("its body"), "the body");
        }
    });
    assert_eq!(server.accepted(), 1, "their bodies are short enough to read them");
}

#[test]
fn a_body_comes_in_pieces_as_they_arrive() {
    let (go_on, wait) = std::sync::mpsc::channel::<()>();
    let wait = Mutex::new(wait);
    let server = Server::start(move |peer| {
        peer.request();
        peer.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n");
        // The client has the first piece while the second has not been sent yet.
        let _ = wait.lock().expect("one connection").recv();
        peer.send("3\r\ntwo\r\n0\r\n\r\n");
        peer.until_closed();
    });
    let url = server.url();
    on_shard(async move || {
        let mut response = Client::new().get(&url).send().await.expect("an answer");
        assert_eq!(response.content_length(), None);
        assert_eq!(response.chunk().await.expect("a piece").expect("not the end"), "one");
        go_on.send(()).expect("the server waits");
        assert_eq!(response.chunk().await.expect("a piece").expect("not the end"), "two");
        for _ in 0..3 {
            assert_eq!(response.chunk().await.expect("the end, again and again"), None);
        }
    });
}

#[test]
fn bodies_of_all_sizes_are_read_whole() {
    let target = Target::start().expect("a core");
    let url = target.url();
    let before = target.connections();
    on_shard(async move || {
        let client = Client::new();
        for size in [0, 1, 16_383, 16_384, 16_385, 1_000_000, 10_000_000] {
            let url = format!("{url}bytes/{size}");
            let response = client.get(&url).send().await.expect("an answer");
            assert_eq!(response.content_length(), Some(size));
            assert_eq!(response.discard().await.expect("its body"), size);
            let response = client.get(&url).send().await.expect("an answer");
            let body = response.bytes().await.expect("its body");
            assert_eq!(body.len() as u64, size);
            assert!(body.iter().all(|&byte| byte == b'x'));
        }
    });
    assert_eq!(target.connections() - before, 1);
}

#[test]
fn a_body_above_the_limit_is_not_collected() {
    let server = Server::start(|peer| {
        while let Some(request) = peer.request() {
            let body = [b'x'; 1001];
            let length = if request.line().contains("/1001") { 1001 } else { 1000 };
            peer.send(ok(&body[..length]));
        }
    });
    let url = server.url();
    on_shard(async move || {
        let client = Client::builder().max_body(1000).build();
        let get = |size| client.get(format!("{url}{size}")).send();
        assert_eq!(
            get(1000).await.expect("an answer").bytes().await.expect("its body").len(),
            1000
        );
        let error = get(1001).await.expect("an answer").bytes().await.expect_err("one too many");
        assert!(matches!(error, Error::BodyTooLarge { limit: 1000 }), "{error:?}");
        let error = get(1001).await.expect("an answer").text().await.expect_err("one too many");
        assert!(matches!(error, Error::BodyTooLarge { limit: 1000 }), "{error:?}");
        assert_eq!(get(1001).await.expect("an answer").discard().await.expect("its body"), 1001);
    });
}

#[test]
fn a_head_above_the_limit_is_refused() {
    let filler = format!("X-Filler: {}\r\n", "a".repeat(400));
    let server = Server::answering(answer("200 OK", &filler, ""));
    let url = server.url();
    on_shard(async move || {
        let narrow = Client::builder().max_head(400).build();
        let error = narrow.get(&url).send().await.expect_err("the head is longer");
        let Error::Response(CodecError::HeadTooLarge { limit: 400 }) = error else {
            panic!("{error:?}")
        };
        let wide = Client::builder().max_head(500).build();
        wide.get(&url).send().await.expect("it fits").discard().await.expect("its body");
    });
}

// ---- Connections ---------------------------------------------------------------------------------

#[scenario]
async fn visitor_of_its_own(url: String) {
    let page = Client::new().get(&url).prepare().expect("a good URL");
    loop {
        visit(&page).await.expect("the target is well");
    }
}

#[scenario]
async fn visitor_by(client: Client, url: String) {
    let page = client.get(&url).prepare().expect("a good URL");
    loop {
        visit(&page).await.expect("the target is well");
    }
}

#[transaction]
async fn visit(page: &PreparedRequest) -> Result<(), Error> {
    page.send().await?.error_for_status()?.discard().await?;
    Ok(())
}

/// Runs it until it has asked often, since other tests of this process may hold its shard up.
/// Answers the connections that the last of these runs has opened, too.
fn finish_often(
    make: impl Fn() -> Scenario,
    connections: impl Fn() -> u64,
) -> (RunStatistics, u64) {
    for _ in 0..10 {
        let before = connections();
        let statistics = finish(make());
        assert_eq!(statistics.failures, []);
        if statistics.counts.completed() > 80 {
            return (statistics, connections() - before);
        }
    }
    panic!("ten runs, none of which has asked more than 80 times");
}

#[test]
fn an_instance_keeps_its_connection() {
    let target = Target::start().expect("a core");
    let run = || visitor_of_its_own(target.url()).concurrency(8).duration(Duration::from_secs(1));
    let (statistics, connections) = finish_often(run, || target.connections());
    assert_eq!(connections, 8);
    assert!(target.served() >= statistics.counts.completed());
    eventually("they are closed", || support::clients_of(target.address().port()).is_empty());
}

#[test]
fn instances_that_share_a_client_share_its_connections() {
    let target = Target::start().expect("a core");
    let client = Client::new();
    let run = || {
        let run = visitor_by(client.clone(), target.url());
        run.concurrency(8).duration(Duration::from_millis(500))
    };
    let (_, opened) = finish_often(run, || target.connections());
    assert!(target.connections() > 0 && opened <= 8, "{opened} connections for 8 instances");

    // What the client keeps serves the next run.
    let before = target.connections();
    let run = visitor_by(client.clone(), target.url());
    finish(run.concurrency(8).duration(Duration::from_millis(200)));
    let opened = target.connections() - before;
    assert!(opened <= 8, "{opened} more connections for 8 instances");
    drop(client);
    eventually("they are closed", || support::clients_of(target.address().port()).is_empty());
}

#[test]
fn without_idle_connections_each_request_opens_one() {
    let server = Server::answering(ok("hello"));
    let url = server.url();
    on_shard(async move || {
        let client = Client::builder().max_idle_per_host(0).build();
        for _ in 0..10 {
            client.get(&url).send().await.expect("an answer").discard().await.expect("its body");
        }
    });
    assert_eq!(server.accepted(), 10);
    server.assert_left_alone();
}

#[test]
fn no_more_idle_connections_are_kept_than_allowed() {
    let server = Server::answering(ok("hello"));
    let url = server.url();
    on_shard(async move || {
        let client = Client::builder().max_idle_per_host(1).build();
        for _ in 0..3 {
            let get = || async {
                client
                    .get(&url)
                    .send()
                    .await
                    .expect("an answer")
                    .discard()
                    .await
                    .expect("its body");
            };
            // Together, so that each needs a connection of its own.
            future::zip(get(), get()).await;
        }
    });
    assert_eq!(server.accepted(), 4, "two at first, then one kept and one new each time");
    server.assert_left_alone();
}

#[test]
fn a_response_dropped_with_its_body_at_hand_gives_its_connection_back() {
    let server = Server::answering(ok("hello"));
    let url = server.url();
    on_shard(async move || {
        let client = Client::new();
        for _ in 0..10 {
            drop(client.get(&url).send().await.expect("an answer"));
        }
    });
    assert_eq!(server.accepted(), 1);
}

#[test]
fn a_response_dropped_before_its_body_has_come_closes_its_connection() {
    let server = Server::start(|peer| {
        while peer.request().is_some() {
            peer.send("HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\nthe beginning");
        }
    });
    let url = server.url();
    let count = on_shard(async move || {
        let client = Client::new();
        for _ in 0..5 {
            drop(client.get(&url).send().await.expect("an answer"));
        }
        // While the client lives: it is the response that closes.
        time::sleep(Duration::from_millis(500)).await;
        support::clients_of(url.rsplit([':', '/']).nth(1).expect("a port").parse().expect("it"))
            .len()
    });
    assert_eq!(server.accepted(), 5);
    assert_eq!(count, 0, "connections that wait for a body that nobody reads");
    server.assert_left_alone();
}

#[test]
fn requests_at_the_same_time_do_not_wait_for_each_other() {
    let server = Server::start(|peer| {
        while let Some(request) = peer.request() {
            // The first is answered only when the second has been.
            if request.line().contains("/slow") {
                sleep(Duration::from_millis(300));
            }
            peer.send(ok(request.line()));
        }
    });
    let url = server.url();
    on_shard(async move || {
        let client = Client::new();
        let get = |path: &str| {
            let request = client.get(format!("{url}{path}"));
            async { request.send().await.expect("an answer").text().await.expect("its body") }
        };
        let (slow, fast) = future::zip(get("slow"), get("fast")).await;
        assert_eq!((slow.as_str(), fast.as_str()), ("GET /slow HTTP/1.1", "GET /fast HTTP/1.1"));
        future::zip(get("slow"), get("fast")).await;
    });
    assert_eq!(server.accepted(), 2, "the second pair finds the connections of the first");
}

/// A server may close an idle connection just when a request is on its way. It is sent again if it
/// may be, and once only.
#[test]
fn a_request_that_meets_a_closing_connection_is_repeated_if_it_may_be() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&seen);
    let server = Server::start(move |peer| {
        let index = peer.index;
        let note = |request: &Request| {
            let method = request.line().split(' ').next().expect("a method").to_owned();
            kept.lock().expect("nobody panicked").push((index, method));
        };
        if let Some(request) = peer.request() {
            note(&request);
            peer.send(ok(""));
        }
        // Takes the second request and closes without a word.
        if let Some(request) = peer.request() {
            note(&request);
        }
    });
    let url = server.url();
    on_shard(async move || {
        let client = Client::new();
        let warm = || async {
            client.get(&url).send().await.expect("an answer").discard().await.expect("its body");
        };
        warm().await;
        client.get(&url).send().await.expect("sent again").discard().await.expect("its body");
        let again = client.put(&url).body("idempotent").send().await;
        again.expect("sent again").discard().await.expect("its body");
        let error = client.post(&url).body("once only").send().await.expect_err("not sent again");
        assert!(matches!(error, Error::Response(CodecError::ClosedBeforeResponse)), "{error:?}");
        warm().await;
    });
    let seen = seen.lock().expect("nobody panicked");
    let expected =
        [(0, "GET"), (0, "GET"), (1, "GET"), (1, "PUT"), (2, "PUT"), (2, "POST"), (3, "GET")];
    assert_eq!(*seen, expected.map(|(index, method)| (index, method.to_owned())));
}

#[test]
fn a_request_is_not_repeated_on_a_new_connection_or_after_a_byte_of_an_answer() {
    let server = Server::start(|peer| {
        if peer.index == 1 {
            peer.request();
            peer.send(ok("hello"));
            peer.request();
            peer.send("HTTP/1.1 200");
        } else {
            peer.request();
        }
    });
    let url = server.url();
    on_shard(async move || {
        let client = Client::new();
        client.get(&url).send().await.expect_err("closed at once");
        client.get(&url).send().await.expect("an answer").discard().await.expect("its body");
        let error = client.get(&url).send().await.expect_err("it has begun to answer");
        assert!(matches!(error, Error::Response(CodecError::Truncated { .. })), "{error:?}");
    });
    assert_eq!(server.accepted(), 2);
}

/// A repeated request leaves no trace in the statistics.
#[test]
fn a_repeated_request_is_no_failure() {
    let server = Server::start(|peer| {
        peer.request();
        peer.send(ok("hello"));
        // Is closed when the second comes.
        peer.request();
    });
    let run = visitor_of_its_own(server.url()).tps(100).duration(Duration::from_millis(500));
    let statistics = finish(run);
    assert_eq!(statistics.failures, []);
    assert_eq!(statistics.counts.succeeded, statistics.counts.started);
    server.assert_left_alone();
}

#[test]
fn a_connection_that_the_server_closes_is_not_used_again() {
    for last in [
        answer("200 OK", "Connection: close\r\n", "hello"),
        "HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello".into(),
    ] {
        // Holds the connection: it is the client that must not use it.
        let server = Server::answering(last);
        let url = server.url();
        on_shard(async move || {
            let client = Client::new();
            for _ in 0..3 {
                let response = client.get(&url).send().await.expect("an answer");
                assert_eq!(response.text().await.expect("its body"), "hello");
            }
        });
        assert_eq!(server.accepted(), 3);
        server.assert_left_alone();
    }
}

// ---- Addresses -----------------------------------------------------------------------------------

#[test]
fn a_host_is_found_by_its_name() {
    let (server, requests) = recording();
    let port = server.address.port();
    on_shard(async move || {
        let client = Client::new();
        for _ in 0..2 {
            let response = client.get(format!("http://LOCALHOST:{port}/")).send().await;
            response.expect("an answer").discard().await.expect("its body");
        }
    });
    let requests = requests.lock().expect("nobody panicked");
    assert_eq!(requests[0].header("host"), [format!("localhost:{port}")]);
    assert_eq!(server.accepted(), 1);
}

#[test]
fn a_name_without_an_address_is_the_resolvers_failure() {
    let run = unresolved_visitor().tps(20).duration(Duration::from_millis(300));
    let statistics = finish(run.timeout(Duration::from_secs(10)));
    let classes: Vec<_> = statistics.failures.iter().map(|&(class, _)| class).collect();
    assert_eq!(classes, [FailureClass::Resolve]);
    assert_eq!(statistics.counts.succeeded, 0);
}

#[scenario]
async fn unresolved_visitor() {
    let client = Client::new();
    loop {
        // `.invalid` is kept free of names for ever (RFC 6761).
        let _ = resolve_in_vain(&client).await;
    }
}

#[transaction]
async fn resolve_in_vain(client: &Client) -> Result<(), Error> {
    client.get("http://no-such-host.invalid/").send().await?.discard().await?;
    Ok(())
}

#[test]
fn ipv6_is_spoken() {
    if !has_ipv6() {
        println!("skipped: this machine has no IPv6 loopback");
        return;
    }
    let server = Server::start_on((Ipv6Addr::LOCALHOST, 0).into(), |peer| {
        while let Some(request) = peer.request() {
            peer.send(ok(request.header("host")[0]));
        }
    });
    let port = server.address.port();
    let host = on_shard(async move || {
        let response = Client::new().get(format!("http://[::1]:{port}/")).send().await;
        response.expect("an answer").text().await.expect("its body")
    });
    assert_eq!(host, format!("[::1]:{port}"));
}

#[test]
fn outside_of_a_scenario_a_request_is_an_error() {
    let server = Server::answering(ok("hello"));
    let request = Client::new().get(server.url());
    let error = future::block_on(request.send()).expect_err("there is no ring here");
    assert!(
        matches!(&error, Error::Connect { source, .. }
        if source.kind() == std::io::ErrorKind::Unsupported),
        "{error:?}"
    );
    assert!(error.to_string().contains("#[scenario]"), "it says what to do: {error}");
    assert_eq!(server.accepted(), 0);
}

/// Clients that come and go leave nothing behind, neither connections nor anything that would slow
/// the shard down.
#[test]
fn a_client_for_each_request_closes_its_connection() {
    let server = Server::answering(ok("hello"));
    let (url, port) = (server.url(), server.address.port());
    let left = on_shard(async move || {
        for _ in 0..50 {
            let response = Client::new().get(&url).send().await.expect("an answer");
            assert_eq!(response.text().await.expect("its body"), "hello");
        }
        time::sleep(Duration::from_millis(500)).await;
        support::clients_of(port).len()
    });
    assert_eq!((server.accepted(), left), (50, 0));
    server.assert_left_alone();
}

/// The client's end is seen while its answer is still on its way, from a thread that reads slowly.
#[test]
fn an_instance_that_ends_in_the_middle_of_an_exchange_closes_its_connection() {
    let reading = Arc::new(AtomicUsize::new(0));
    let read = Arc::clone(&reading);
    let server = Server::start_on((Ipv4Addr::LOCALHOST, 0).into(), move |peer| {
        // Reads a little, now and then, to the end: the request is larger than all buffers.
        let mut buffer = vec![0; 1 << 20];
        while let Ok(count @ 1..) = peer.stream.read(&mut buffer) {
            read.fetch_add(count, Ordering::SeqCst);
            sleep(Duration::from_millis(20));
        }
    });
    let url = server.url();
    let seen = Arc::clone(&reading);
    on_shard(async move || {
        let client = Client::new();
        let send = async {
            let _ = client.post(&url).body(vec![1; 256 << 20]).send().await;
        };
        let some = async {
            while seen.load(Ordering::SeqCst) < 4 << 20 {
                time::sleep(Duration::from_millis(1)).await;
            }
        };
        future::or(send, some).await;
    });
    server.assert_left_alone();
    assert!(reading.load(Ordering::SeqCst) < 256 << 20, "the request was given up half-sent");
}
