//! The API of a node over real sockets: what it answers, and what it refuses.
#![forbid(unsafe_code)]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use balter_uring::prelude::*;
use balter_uring::runtime::{RunLimits, RunningNode, RuntimeError};
use balter_uring::time::sleep;
use futures_lite::future::block_on;
use serde_json::{Value, json};

const TOKEN: &str = "a-token-for-these-tests";

#[scenario]
async fn idle(words: Option<String>) {
    let _ = words;
    loop {
        rest().await;
    }
}

#[transaction]
async fn rest() {
    sleep(Duration::from_millis(1)).await;
}

fn start(runtime: BalterRuntime) -> RunningNode {
    block_on(runtime.port(0).start()).expect("it starts")
}

fn open_node() -> RunningNode {
    start(BalterRuntime::new())
}

#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    fn detail(&self) -> String {
        assert!(self.head.contains("application/problem+json"), "{self:?}");
        let json = self.json();
        assert_eq!(json["status"], self.status);
        json["detail"].as_str().expect("it says why").to_owned()
    }
}

/// Sends bytes and reads until the other side closes.
fn raw(address: SocketAddr, request: &[u8]) -> Answer {
    let mut stream = TcpStream::connect(address).expect("it listens");
    stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a timeout");
    // A server that has refused may close before it has read all.
    let _ = stream.write_all(request);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    Answer { status, head: head.to_lowercase(), body: body.to_owned() }
}

fn ask_with(address: SocketAddr, method: &str, path: &str, headers: &str, body: &[u8]) -> Answer {
    let host = match headers.to_lowercase().contains("host:") {
        true => String::new(),
        false => format!("Host: {address}\r\n"),
    };
    let length = body.len();
    let head = format!(
        "{method} {path} HTTP/1.1\r\n{host}Connection: close\r\nContent-Length: \
         {length}\r\n{headers}\r\n"
    );
    raw(address, &[head.as_bytes(), body].concat())
}

fn get(node: &RunningNode, path: &str) -> Answer {
    ask_with(node.address(), "GET", path, "", b"")
}

fn run(node: &RunningNode, body: &Value) -> Answer {
    ask_with(node.address(), "POST", "/run", "", body.to_string().as_bytes())
}

fn metric(node: &RunningNode, name: &str) -> u64 {
    let text = get(node, "/metrics").body;
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.map_or(0, |value| value.trim().parse().expect("a number"))
}

fn runs(node: &RunningNode) -> usize {
    get(node, "/runs").json().as_array().expect("a list").len()
}

#[test]
fn the_guides_request_is_carried_out() {
    let node = open_node();
    let request = json!({
        "name": "idle", "duration": 1, "max_tps": 200, "error_rate": 0.05,
        "latency": { "latency": "0.2", "quantile": 0.95 }, "hints": { "tps": 100 }
    });
    let answer = run(&node, &request);
    assert_eq!(answer.status, 201, "{answer:?}");
    let id = answer.json()["id"].as_str().expect("an id").to_owned();
    assert!(answer.head.contains(&format!("location: /runs/{id}")), "{answer:?}");
    let path = format!("/runs/{id}");
    assert_eq!(get(&node, &format!("{path}/statistics")).status, 409);

    // The events end with the run, and the last one is its end.
    let mut stream = TcpStream::connect(node.address()).expect("it listens");
    let address = node.address();
    let head =
        format!("GET {path}/events HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).expect("sent");
    stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a timeout");
    let lines = BufReader::new(stream).lines().map_while(Result::ok);
    let states: Vec<Value> = lines
        .filter_map(|line| line.strip_prefix("data: ").map(str::to_owned))
        .filter_map(|data| serde_json::from_str(&data).ok())
        .collect();
    assert!(states.len() >= 2, "{states:?}");
    let last = states.last().expect("there are some");
    assert_eq!((&last["state"], &last["id"]), (&json!("finished"), &json!(id)));

    let view = get(&node, &path).json();
    assert_eq!(view["counts"], last["counts"]);
    let statistics = get(&node, &format!("{path}/statistics")).json();
    assert_eq!(statistics["counts"], view["counts"]);
    assert!(statistics["response"]["counts"].as_array().is_some_and(|counts| !counts.is_empty()));
    assert_eq!(runs(&node), 1);
}

#[test]
fn what_is_wrong_is_refused_with_its_status_and_a_remedy() {
    let node = open_node();
    let address = node.address();
    let post = |headers: &str, body: &[u8]| ask_with(address, "POST", "/run", headers, body);
    let good = json!({ "name": "idle", "max_tps": 1 }).to_string();

    let refused = post("", b"{");
    assert_eq!(refused.status, 400);
    assert!(refused.detail().contains("/openapi.json"));
    let refused = post("Content-Type: application/x-www-form-urlencoded\r\n", good.as_bytes());
    assert_eq!(refused.status, 415);
    assert!(refused.detail().contains("send JSON"));
    let long = [b"{\"name\":\"".as_slice(), &vec![b'x'; 70_000], b"\"}"].concat();
    let refused = post("", &long);
    assert_eq!(refused.status, 413);
    assert!(refused.detail().contains("64 KiB"));
    let refused = run(&node, &json!({ "name": "idle", "max_tps": 11_000_000 }));
    assert_eq!(refused.status, 422);
    assert!(refused.detail().contains("`max_tps` is 11000000; it has to be 1 to 10000000"));
    let refused = run(&node, &json!({ "name": "idel", "max_tps": 1 }));
    assert_eq!(refused.status, 404);
    assert!(refused.detail().contains("there is no scenario `idel`; there are: idle"));
    let refused = run(&node, &json!({ "name": "idle", "max_tps": 1, "args": [1, 2] }));
    assert_eq!(refused.status, 422);
    assert!(refused.detail().contains("takes (words)"));
    let refused = run(&node, &json!({ "name": "idle", "max_tps": 1, "args": ["http://a.b/"] }));
    assert_eq!(refused.status, 422);
    assert!(refused.detail().contains("--allow-targets"));

    assert_eq!(get(&node, "/nothing").status, 404);
    assert_eq!(get(&node, "/runs/nothing").status, 404);
    let refused = ask_with(address, "DELETE", "/runs", "", b"");
    assert_eq!(refused.status, 405);
    assert!(refused.head.contains("allow: get"), "{refused:?}");
    assert_eq!(runs(&node), 0, "nothing was started");
    for (reason, count) in
        [("malformed", 1), ("media_type", 1), ("too_large", 1), ("unfit", 3), ("not_found", 3)]
    {
        let name = format!("balter_node_refused_requests_total{{reason=\"{reason}\"}}");
        assert_eq!(metric(&node, &name), count, "{reason}");
    }
}

#[test]
fn other_sites_cannot_use_a_browser_to_come_in() {
    let node = start(BalterRuntime::new().allow_host("load.internal"));
    let address = node.address();
    let body = json!({ "name": "idle", "max_tps": 1, "duration": 0.1 }).to_string();
    let post = |headers: &str| ask_with(address, "POST", "/run", headers, body.as_bytes()).status;
    assert_eq!(post("Host: evil.example\r\n"), 421);
    assert_eq!(post("Host: evil.example:7621\r\n"), 421);
    assert_eq!(post("Host: 127.0.0.1.evil.example\r\n"), 421);
    assert_eq!(post(&format!("Host: {address}\r\nOrigin: http://evil.example\r\n")), 403);
    assert_eq!(post(&format!("Host: {address}\r\nOrigin: null\r\n")), 403);
    assert_eq!(post("Host: localhost\r\nOrigin: http://localhost:81\r\n"), 403);
    assert_eq!(runs(&node), 0);
    assert_eq!(post("Host: localhost\r\nOrigin: http://localhost\r\n"), 201);
    assert_eq!(post(&format!("Host: {address}\r\nOrigin: http://{address}\r\n")), 201);
    assert_eq!(post("Host: load.internal:7621\r\n"), 201);
    // Probes do not know names.
    assert_eq!(ask_with(address, "GET", "/health", "Host: 10.9.8.7\r\n", b"").status, 200);
    let page = get(&node, "/");
    assert_eq!(page.status, 200);
    for header in ["content-security-policy: default-src 'none'", "x-content-type-options: nosniff"]
    {
        assert!(page.head.contains(header), "{page:?}");
    }
}

#[test]
fn without_the_token_nothing_is_told_or_done() {
    let node = start(BalterRuntime::new().token(TOKEN));
    let address = node.address();
    let body = json!({ "name": "idle", "max_tps": 1, "duration": 0.1 }).to_string();
    for headers in [
        "",
        "Authorization: Bearer\r\n",
        "Authorization: Bearer a-token-for-these-test\r\n",
        "Authorization: Bearer a-token-for-these-tests2\r\n",
        "Authorization: Basic a-token-for-these-tests\r\n",
        "Authorization: bearer a-token-for-these-tests\r\n",
    ] {
        for (method, path) in [
            ("POST", "/run"),
            ("GET", "/runs"),
            ("GET", "/peers"),
            ("GET", "/scenarios"),
            ("GET", "/metrics"),
            ("GET", "/openapi.json"),
            ("POST", "/runs/1/stop"),
            ("POST", "/balter.cluster.v1.Worker/Lead"),
            ("GET", "/nothing"),
        ] {
            let answer = ask_with(address, method, path, headers, body.as_bytes());
            assert_eq!(answer.status, 401, "{method} {path} {headers}");
            assert!(answer.head.contains("www-authenticate: bearer"), "{answer:?}");
        }
    }
    assert_eq!(get(&node, "/health").json(), json!({ "status": "ok" }));
    assert_eq!(get(&node, "/").status, 200);
    let headers = format!("Authorization: Bearer {TOKEN}\r\n");
    assert_eq!(ask_with(address, "POST", "/run", &headers, body.as_bytes()).status, 201);
    let answer = ask_with(address, "GET", "/runs", &headers, b"");
    assert_eq!(answer.json().as_array().map(Vec::len), Some(1));
}

#[test]
fn the_token_is_not_in_what_is_printed() {
    let printed = format!("{:?}", BalterRuntime::new().token(TOKEN));
    assert!(!printed.contains(TOKEN), "{printed}");
}

#[test]
fn a_request_that_is_sent_again_starts_nothing_again() {
    let node = open_node();
    let address = node.address();
    let post = |key: &str, tps: u32| {
        let body = json!({ "name": "idle", "max_tps": tps, "duration": 0.1 }).to_string();
        let headers = format!("Idempotency-Key: {key}\r\n");
        ask_with(address, "POST", "/run", &headers, body.as_bytes())
    };
    let (first, again) = (post("one", 1), post("one", 1));
    assert_eq!((first.status, again.status), (201, 201));
    assert_eq!(first.json()["id"], again.json()["id"]);
    assert_eq!(post("one", 2).status, 422);
    assert_ne!(post("two", 1).json()["id"], first.json()["id"]);
    assert_eq!(post(&"k".repeat(300), 1).status, 400);
    assert_eq!(runs(&node), 2);
    assert_eq!(metric(&node, "balter_node_refused_requests_total{reason=\"replayed\"}"), 1);
}

#[test]
fn limits_hold_for_runs_at_a_time_and_for_requests() {
    let mut limits = RunLimits::default();
    (limits.max_runs, limits.max_requests) = (2, 5);
    limits.max_duration = Duration::from_secs(60);
    let node = start(BalterRuntime::new().limits(limits));
    let request = json!({ "name": "idle", "max_tps": 1 });
    let first = run(&node, &request);
    assert_eq!((first.status, run(&node, &request).status), (201, 201));
    let refused = run(&node, &request);
    assert_eq!(refused.status, 429);
    assert!(refused.head.contains("retry-after: 10"), "{refused:?}");
    assert_eq!(run(&node, &json!({ "name": "idle", "max_tps": 1, "duration": 61 })).status, 422);
    // So far four of five. However fast this machine is, the fifth is not refused for its rate.
    let answers: Vec<_> = (0..200).map(|_| run(&node, &request)).collect();
    let refused = |answer: &&Answer| answer.head.contains("retry-after: 1\r\n");
    assert!(answers.iter().filter(refused).count() > 100, "{:?}", answers.last());
    assert_eq!(runs(&node), 2);
    // Whoever waits may stop one, and it ends in good order.
    let path = format!("/runs/{}", first.json()["id"].as_str().expect("an id"));
    let began = Instant::now();
    loop {
        let answer = ask_with(node.address(), "POST", &format!("{path}/stop"), "", b"");
        if answer.status == 202 {
            break;
        }
        assert!(began.elapsed() < Duration::from_secs(30), "{answer:?}");
        std::thread::sleep(Duration::from_millis(200));
    }
    while get(&node, &path).json()["state"] != "finished" {
        assert!(began.elapsed() < Duration::from_secs(30));
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn who_dawdles_is_not_waited_for() {
    let node = open_node();
    let address = node.address();
    let dawdlers: Vec<_> = [
        &b""[..],
        b"GET /health HTTP/1.1\r\nHost: ",
        b"POST /run HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{",
    ]
    .into_iter()
    .map(|request| std::thread::spawn(move || (Instant::now(), raw(address, request))))
    .collect();
    for dawdler in dawdlers {
        let (began, answer) = dawdler.join().expect("no panic");
        assert!(matches!(answer.status, 0 | 400 | 408), "{answer:?}");
        assert!((5..25).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());
    }
    assert_eq!(runs(&node), 0);
}

#[test]
fn bytes_of_another_protocol_do_no_harm() {
    let node = open_node();
    for bytes in [
        &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..],
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\xff\xff\xff\xff\xff\xff",
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST /run HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
        b"POST /run HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n",
        b"\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\r\n\r\n",
    ] {
        let mut stream = TcpStream::connect(node.address()).expect("it listens");
        stream.write_all(bytes).expect("sent");
        drop(stream);
        assert_eq!(get(&node, "/health").status, 200);
    }
    assert_eq!(runs(&node), 0);
}

#[test]
fn a_node_says_why_it_does_not_start() {
    let error = |runtime: BalterRuntime| block_on(runtime.port(0).start()).expect_err("refused");
    let everywhere = || BalterRuntime::new().bind(Ipv4Addr::UNSPECIFIED.into());
    let refused = error(everywhere());
    assert!(matches!(refused, RuntimeError::Unauthenticated { .. }), "{refused}");
    assert!(refused.to_string().contains("--danger-allow-unauthenticated"));
    assert!(matches!(error(everywhere().token("short")), RuntimeError::ShortToken));
    assert!(matches!(
        error(everywhere().token("with a space in its middle")),
        RuntimeError::UnfitToken
    ));
    let mut limits = RunLimits::default();
    limits.max_concurrency = 0;
    let refused = error(BalterRuntime::new().limits(limits));
    assert!(refused.to_string().starts_with("the limit max_concurrency is zero"), "{refused}");
    let node = open_node();
    let taken = BalterRuntime::new().port(node.address().port());
    assert!(matches!(block_on(taken.start()), Err(RuntimeError::Bind { .. })));
    let tls = balter_uring::runtime::Tls::new("/no/such/file", "/no/such/file");
    assert!(matches!(error(BalterRuntime::new().tls(tls)), RuntimeError::File { .. }));
    drop(block_on(everywhere().danger_allow_unauthenticated().port(0).start()).expect("it may"));
}

#[test]
fn a_node_ends_its_runs_before_it_ends() {
    let node = open_node();
    let answer = run(&node, &json!({ "name": "idle", "max_tps": 100, "duration": 60 }));
    let path = format!("/runs/{}", answer.json()["id"].as_str().expect("an id"));
    let began = Instant::now();
    while get(&node, &path).json()["counts"]["succeeded"] == 0 {
        assert!(began.elapsed() < Duration::from_secs(30));
        std::thread::sleep(Duration::from_millis(50));
    }
    block_on(node.stop()).expect("it ends in good order");
    assert!(began.elapsed() < Duration::from_secs(50));
}

#[tokio::test]
async fn a_node_lives_beside_the_users_own_runtime() {
    let node = BalterRuntime::new().port(0).start().await.expect("it starts");
    let url = format!("http://{}/health", node.address());
    let body = reqwest::get(url).await.expect("it answers").text().await.expect("text");
    assert_eq!(body, r#"{"status":"ok"}"#);
    // HTTP/2 from the first byte, as nodes speak it.
    let client = reqwest::Client::builder().http2_prior_knowledge().build();
    if let Ok(client) = client {
        let answer = client.get(format!("http://{}/runs", node.address())).send().await;
        assert_eq!(answer.expect("it answers").status(), 200);
    }
    node.stop().await.expect("it ends in good order");
}
