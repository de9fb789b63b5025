//! HTTPS against nginx, and against targets whose TLS goes wrong: each failure has the class of
//! what happened, comes within the timeout, and leaves nothing open behind it.
//!
//! What needs nginx is skipped where it is not installed, except in CI.
#![cfg(feature = "tls")]

#[path = "support_http/mod.rs"]
mod support;
#[path = "support_http/tls.rs"]
mod tls;

use std::fs;
use std::path::Path;
use std::thread::sleep;
use std::time::Instant;

use balter_uring::FailureClass;
use balter_uring::http::{Certificate, Client, ClientBuilder, Error};
use balter_uring::net::TlsError;
use balter_uring::prelude::*;

use support::authority::{Authority, Identity, self_signed};
use support::nginx::Nginx;
use support::{Peer, Random, Server, checksum, descriptors, eventually, finish, ok, on_shard};
use tls::{TlsPeer, config};

/// For targets that have nothing else to end an exchange.
const SHORT: Duration = Duration::from_millis(400);

/// For all others: what they do is seen at once, and a busy machine must not look like them.
const LONG: Duration = Duration::from_secs(4);

const BODY: &str = "all is well";
const LARGE: usize = 5_000_003;
/// What targets here are called.
const NAME: &str = "localhost";

#[scenario]
async fn visitors(client: Client, url: String) {
    loop {
        let _ = visit(&client, &url).await;
    }
}

#[transaction]
async fn visit(client: &Client, url: &str) -> Result<(), Option<Error>> {
    let answer = client.get(url).send().await.and_then(|answer| answer.error_for_status());
    let text = answer.map_err(Some)?.text().await.map_err(Some)?;
    if text == BODY { Ok(()) } else { Err(None) }
}

/// Trusts this authority and no other.
fn trusting(authority: &Authority) -> ClientBuilder {
    let root = Certificate::from_pem(authority.root_pem().as_bytes()).expect("it is one");
    Client::builder().tls_built_in_root_certs(false).add_root_certificate(root)
}

fn url(server: &Server) -> String {
    format!("https://{NAME}:{}/", server.address.port())
}

fn run(client: &ClientBuilder, url: &str, timeout: Duration) -> RunStatistics {
    let started = Instant::now();
    let run =
        visitors(client.clone().build(), url.to_owned()).tps(40).duration(SHORT).timeout(timeout);
    let statistics = finish(run.grace(Duration::from_secs(10)));
    assert!(started.elapsed() < Duration::from_secs(12), "it ended after {:?}", started.elapsed());
    assert!(statistics.counts.completed() > 5, "{:?}", statistics.counts);
    assert_eq!(statistics.counts.cancelled, 0, "a transaction outlived its timeout and the grace");
    statistics
}

/// The error of one request, outside of any transaction.
fn error_of(client: &ClientBuilder, url: &str) -> Error {
    let (client, url) = (client.clone().build(), url.to_owned());
    on_shard(async move || match client.get(&url).send().await {
        Ok(answer) => answer.bytes().await.err(),
        Err(error) => Some(error),
    })
    .expect("it fails")
}

/// Every transaction fails, with this class and no other, and nothing stays open.
#[track_caller]
fn fails_as(class: FailureClass, client: &ClientBuilder, server: &Server) -> RunStatistics {
    let timeout = if class == FailureClass::Timeout { SHORT } else { LONG };
    let statistics = run(client, &url(server), timeout);
    assert_eq!(statistics.failures, [(class, statistics.counts.failed)]);
    assert_eq!((statistics.counts.succeeded, statistics.error_rate), (0, 1.0));
    server.assert_left_alone();
    statistics
}

/// Fails as TLS in the handshake, with this error.
#[track_caller]
fn refused_as(what: &str, client: &ClientBuilder, server: &Server, is: impl Fn(&TlsError) -> bool) {
    let statistics = fails_as(FailureClass::Tls, client, server);
    assert!(statistics.handshakes.is_empty(), "{what}: only those that succeed are counted");
    let error = error_of(client, &url(server));
    assert!(matches!(&error, Error::Tls(error) if is(error)), "{what}: {error:?}");
    server.assert_left_alone();
}

#[track_caller]
fn succeeds(client: &ClientBuilder, server: &Server) -> RunStatistics {
    let statistics = run(client, &url(server), LONG);
    assert_eq!(statistics.failures, []);
    assert_eq!(statistics.handshakes.len(), server.accepted() as u64);
    server.assert_left_alone();
    statistics
}

/// A target that shakes hands well, and then does as it is told.
fn serving(
    identity: &Identity,
    behaviour: impl Fn(&mut TlsPeer<'_>) + Send + Sync + 'static,
) -> Server {
    let config = config(identity);
    Server::start(move |peer| {
        if let Some(mut peer) = TlsPeer::accept(peer, &config, false) {
            behaviour(&mut peer);
        }
    })
}

/// Answers as long as it is asked.
fn answers(peer: &mut TlsPeer<'_>) {
    while peer.request().is_some() {
        peer.send(ok(BODY));
    }
}

// ---- Certificates --------------------------------------------------------------------------------

#[test]
fn a_certificate_of_a_trusted_authority_is_accepted() {
    let authority = Authority::new();
    let server = serving(&authority.issue(NAME), answers);
    let client = trusting(&authority);
    let statistics = succeeds(&client, &server);
    assert!(statistics.handshakes.len() < statistics.counts.succeeded, "connections are reused");
    assert!(statistics.to_string().contains("TLS handshakes"), "{statistics}");
    let der = Certificate::from_der(&authority.root_der()).expect("it is one");
    let client = Client::builder().tls_built_in_root_certs(false).add_root_certificate(der);
    succeeds(&client, &serving(&authority.issue(NAME), answers));
}

#[test]
fn a_certificate_may_be_for_an_address() {
    let authority = Authority::new();
    let server = serving(&authority.issue("127.0.0.1"), answers);
    let (client, url) = (trusting(&authority), format!("https://{}/", server.address));
    assert_eq!(run(&client, &url, LONG).failures, []);
}

#[test]
fn a_certificate_that_is_not_accepted_is_a_failure_of_tls() {
    let (authority, other) = (Authority::new(), Authority::new());
    let client = trusting(&authority);
    let refused = |what, identity: &Identity, is: fn(&TlsError) -> bool| {
        refused_as(what, &client, &serving(identity, answers), is);
    };
    refused("expired", &authority.issue_expired(NAME), |error| {
        matches!(error, TlsError::Expired { .. })
    });
    refused("of somebody else", &other.issue(NAME), |error| {
        matches!(error, TlsError::UnknownIssuer)
    });
    refused("self-signed", &self_signed(NAME), |error| matches!(error, TlsError::UnknownIssuer));
    refused("for another name", &authority.issue("elsewhere.test"), |error| {
        matches!(error, TlsError::WrongName { .. })
    });
}

#[test]
fn the_system_does_not_trust_the_authority_of_a_test() {
    let server = serving(&Authority::new().issue(NAME), answers);
    let error = error_of(&Client::builder(), &url(&server));
    // Some machines trust nobody at all, and are told so.
    let expected = matches!(&error, Error::Tls(TlsError::UnknownIssuer | TlsError::NoRoots { .. }));
    assert!(expected, "{error:?}");
}

#[test]
fn any_certificate_is_accepted_if_that_is_asked_for() {
    let client = Client::builder().danger_accept_invalid_certs(true);
    let authority = Authority::new();
    for identity in
        [authority.issue_expired(NAME), self_signed(NAME), authority.issue("elsewhere.test")]
    {
        succeeds(&client, &serving(&identity, answers));
    }
}

#[test]
fn the_log_of_the_target_has_the_alert() {
    let config = config(&self_signed(NAME));
    let (alerts, seen) = std::sync::mpsc::channel();
    let server = Server::start(move |peer| {
        if let Err(error) = TlsPeer::try_accept(peer, &config, false) {
            let _ = alerts.send(error);
        }
    });
    let client = trusting(&Authority::new());
    error_of(&client, &url(&server));
    let error = seen.recv_timeout(LONG).expect("the handshake fails on both sides");
    assert!(matches!(error, Some(rustls::Error::AlertReceived(_))), "{error:?}");
}

#[test]
fn what_is_no_certificate_and_no_name_is_an_error_before_anything_is_sent() {
    for text in
        ["", "no certificate", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----"]
    {
        assert!(Certificate::from_pem(text.as_bytes()).is_err(), "{text:?}");
        assert!(Certificate::from_pem_bundle(text.as_bytes()).is_err(), "{text:?}");
    }
    let two = [Authority::new().root_pem(), Authority::new().root_pem()].concat();
    assert_eq!(Certificate::from_pem_bundle(two.as_bytes()).expect("they are").len(), 2);
    let client = Client::builder().danger_accept_invalid_certs(true).build();
    let error = client.get("https://-a-.b/").prepare().expect_err("it is no name");
    assert!(matches!(&error, Error::Tls(TlsError::ServerName { .. })), "{error:?}");
}

// ---- The handshake -------------------------------------------------------------------------------

#[test]
fn a_close_in_the_handshake_is_a_failure_of_tls() {
    let client = trusting(&Authority::new());
    let closed: fn(&TlsError) -> bool = |error| matches!(error, TlsError::ClosedInHandshake);
    refused_as("at once", &client, &Server::start(|_| {}), closed);
    let server = Server::start(|peer| peer.some());
    refused_as("after the hello", &client, &server, closed);
    let server = Server::start(|peer| {
        peer.some();
        peer.reset();
    });
    refused_as("reset", &client, &server, closed);
    let server = Server::start(|peer| {
        peer.some();
        // The beginning of a record, which a hello might be in.
        peer.send(b"\x16\x03\x03\x00\x40\x02\x00");
    });
    refused_as("within the answer", &client, &server, closed);
}

#[test]
fn an_answer_that_is_no_handshake_is_a_failure_of_tls() {
    let client = trusting(&Authority::new());
    let server = Server::start(|peer| {
        peer.some();
        // handshake_failure, fatal
        peer.send(b"\x15\x03\x03\x00\x02\x02\x28");
        peer.until_closed();
    });
    refused_as(
        "an alert",
        &client,
        &server,
        |error| matches!(error, TlsError::Alert { description } if description == "HandshakeFailure"),
    );
    for bytes in [&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], b"\x16\x03\x03\x00\x04\x02\x00\x00\x00"]
    {
        let server = Server::start(move |peer| {
            peer.some();
            peer.send(bytes);
            peer.until_closed();
        });
        refused_as("nonsense", &client, &server, |error| {
            matches!(error, TlsError::Protocol { .. })
        });
    }
}

#[test]
fn a_target_that_never_answers_the_hello_times_out_and_is_let_go() {
    let before = descriptors();
    let client = trusting(&Authority::new());
    let statistics = fails_as(FailureClass::Timeout, &client, &Server::start(Peer::until_closed));
    assert!(statistics.handshakes.is_empty());
    // Those of other tests in this process come and go; a leak of this run's would stay.
    eventually("the descriptors are back", || descriptors() < before + 40);
}

#[test]
fn a_target_that_speaks_in_single_bytes_is_understood() {
    let authority = Authority::new();
    let config = config(&authority.issue(NAME));
    let server = Server::start(move |peer| {
        if let Some(mut peer) = TlsPeer::accept(peer, &config, true) {
            answers(&mut peer);
        }
    });
    succeeds(&trusting(&authority), &server);
}

// ---- After the handshake -------------------------------------------------------------------------

/// What a target begins and never ends.
const BEGUN: &str = "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nthe beginning";

#[test]
fn an_alert_in_mid_stream_is_a_failure_of_tls() {
    let authority = Authority::new();
    let client = trusting(&authority);
    for before in ["", BEGUN] {
        let server = serving(&authority.issue(NAME), move |peer| {
            peer.request();
            peer.send(before);
            peer.alert();
            peer.until_closed();
        });
        fails_as(FailureClass::Tls, &client, &server);
        let error = error_of(&client, &url(&server));
        assert!(matches!(&error, Error::Tls(TlsError::Alert { .. })), "{error:?}");
    }
}

#[test]
fn a_record_that_cannot_be_decrypted_is_a_failure_of_tls() {
    let authority = Authority::new();
    let server = serving(&authority.issue(NAME), |peer| {
        peer.request();
        peer.send(BEGUN);
        peer.send_raw(&[b"\x17\x03\x03\x00\x40".as_slice(), &[7; 64]].concat());
        peer.until_closed();
    });
    let client = trusting(&authority);
    fails_as(FailureClass::Tls, &client, &server);
}

/// Somebody on the way could have ended the connection to have an answer look shorter.
#[test]
fn a_close_without_notice_in_the_body_is_a_failure_of_tls() {
    let authority = Authority::new();
    let client = trusting(&authority);
    for answer in [BEGUN, "HTTP/1.1 200 OK\r\n\r\nall is well", "HTTP/1.1 200 OK\r\nContent-"] {
        let server = serving(&authority.issue(NAME), move |peer| {
            peer.request();
            peer.send(answer);
        });
        fails_as(FailureClass::Tls, &client, &server);
        let error = error_of(&client, &url(&server));
        assert!(matches!(&error, Error::Tls(TlsError::Truncated)), "{error:?}");
    }
}

#[test]
fn a_body_that_ends_with_an_orderly_close_is_complete() {
    let authority = Authority::new();
    let server = serving(&authority.issue(NAME), |peer| {
        peer.request();
        peer.send("HTTP/1.1 200 OK\r\n\r\nall is well");
        peer.close_notify();
    });
    succeeds(&trusting(&authority), &server);
}

#[test]
fn a_body_that_an_orderly_close_cuts_is_a_reset() {
    let authority = Authority::new();
    let server = serving(&authority.issue(NAME), |peer| {
        peer.request();
        peer.send(BEGUN);
        peer.close_notify();
    });
    fails_as(FailureClass::Reset, &trusting(&authority), &server);
}

#[test]
fn a_close_without_notice_after_the_body_harms_nobody() {
    let authority = Authority::new();
    let server = serving(&authority.issue(NAME), |peer| {
        peer.request();
        peer.send(ok(BODY));
    });
    let statistics = succeeds(&trusting(&authority), &server);
    assert_eq!(server.accepted() as u64, statistics.counts.succeeded);
}

#[test]
fn a_close_instead_of_an_answer_is_a_reset() {
    let authority = Authority::new();
    let server = serving(&authority.issue(NAME), |peer| drop(peer.request()));
    fails_as(FailureClass::Reset, &trusting(&authority), &server);
}

#[test]
fn a_reset_in_the_body_is_a_reset() {
    let authority = Authority::new();
    let server = serving(&authority.issue(NAME), |peer| {
        peer.request();
        peer.send(BEGUN);
        // Enough for the client to have read the head and to wait for the rest.
        sleep(Duration::from_millis(20));
        peer.reset();
    });
    fails_as(FailureClass::Reset, &trusting(&authority), &server);
}

/// New keys and tickets come between answers, when nobody reads.
#[test]
fn new_keys_while_a_connection_is_idle_do_not_cost_it() {
    let authority = Authority::new();
    let server = serving(&authority.issue(NAME), |peer| {
        while peer.request().is_some() {
            peer.send(ok(BODY));
            peer.update_keys();
        }
    });
    let client = trusting(&authority);
    let run = visitors(client.build(), url(&server)).concurrency(1).duration(SHORT).timeout(LONG);
    let statistics = finish(run);
    assert_eq!(statistics.failures, []);
    assert!(statistics.counts.succeeded > 5, "{:?}", statistics.counts);
    assert_eq!(server.accepted(), 1);
    server.assert_left_alone();
}

// ---- nginx ---------------------------------------------------------------------------------------

/// An nginx that speaks TLS. `more` goes into the configuration's `server`.
fn nginx(identity: &Identity, more: &str) -> Option<Nginx> {
    let prepare = |root: &Path| {
        fs::write(root.join("html/large.bin"), Random(6).bytes(LARGE)).expect("it is ours");
    };
    let Identity { certificate_pem, key_pem, .. } = identity;
    let more = format!("{more} location = / {{ return 200 \"{BODY}\"; }}");
    Nginx::launch_secure(certificate_pem, key_pem, prepare, &more)
}

fn secure(nginx: &Nginx, path: &str) -> String {
    format!("https://{NAME}:{}/{path}", nginx.address.port())
}

#[test]
fn nginx_is_asked_many_times_on_few_connections() {
    let authority = Authority::new();
    for protocols in ["ssl_protocols TLSv1.2;", "ssl_protocols TLSv1.3;"] {
        let Some(nginx) = nginx(&authority.issue(NAME), protocols) else { return };
        let run = visitors(trusting(&authority).build(), secure(&nginx, ""));
        let statistics = finish(run.concurrency(8).duration(Duration::from_millis(500)));
        assert_eq!(statistics.failures, [], "{protocols}");
        assert!((1..=8).contains(&statistics.handshakes.len()), "{statistics}");
        assert!(statistics.counts.succeeded > 16, "{:?}", statistics.counts);
    }
}

#[test]
fn sessions_are_resumed() {
    let authority = Authority::new();
    for protocols in ["ssl_protocols TLSv1.2;", "ssl_protocols TLSv1.3;"] {
        let Some(nginx) = nginx(&authority.issue(NAME), protocols) else { return };
        // A connection for each request.
        let client = trusting(&authority).max_idle_per_host(0).build();
        let run = visitors(client, secure(&nginx, "")).concurrency(1);
        let statistics = finish(run.duration(Duration::from_millis(500)));
        assert_eq!(statistics.failures, [], "{protocols}");
        let handshakes = statistics.handshakes.len();
        assert!(handshakes > 5 && handshakes == statistics.counts.succeeded, "{statistics}");
        assert_eq!(statistics.resumed_handshakes, handshakes - 1, "{protocols}");
        assert!(statistics.handshakes.min() > Duration::ZERO);
    }
}

#[test]
fn large_bodies_arrive_and_are_sent_whole() {
    let authority = Authority::new();
    for protocols in ["ssl_protocols TLSv1.2;", "ssl_protocols TLSv1.3;"] {
        let Some(nginx) = nginx(&authority.issue(NAME), protocols) else { return };
        let client = trusting(&authority).build();
        let (large, stored) = (secure(&nginx, "large.bin"), secure(&nginx, "stored/large.bin"));
        on_shard(async move || {
            let expected = checksum(&Random(6).bytes(LARGE));
            for _ in 0..3 {
                let answer = client.get(&large).send().await.expect("nginx is there");
                let body = answer.bytes().await.expect("a body");
                assert_eq!((body.len(), checksum(&body)), (LARGE, expected));
            }
            let sent = Random(7).bytes(LARGE);
            let answer = client.put(&stored).body(sent).send().await.expect("nginx is there");
            assert_eq!(answer.status(), 201);
            answer.discard().await.expect("it has no body");
            let answer = client.get(&stored).send().await.expect("nginx is there");
            let body = answer.bytes().await.expect("a body");
            assert_eq!(checksum(&body), checksum(&Random(7).bytes(LARGE)));
            let small = client.get(&large).header("range", "bytes=0-9").prepare().expect("a URL");
            for _ in 0..3 {
                let answer = small.send().await.expect("nginx is there");
                assert_eq!(answer.bytes().await.expect("a body").len(), 10);
            }
        });
    }
}

#[test]
fn bodies_are_posted_whole() {
    let authority = Authority::new();
    let server = serving(&authority.issue(NAME), |peer| {
        while let Some(body) = peer.request() {
            peer.send(ok(format!("{:x}", checksum(&body))));
        }
    });
    let (client, url) = (trusting(&authority).build(), url(&server));
    on_shard(async move || {
        for length in [0, 1, 16_383, 16_384, 16_385, 1 << 20] {
            let body = Random(9).bytes(length);
            let expected = format!("{:x}", checksum(&body));
            let answer = client.post(&url).body(body).send().await.expect("the server is there");
            assert_eq!(answer.text().await.expect("a body"), expected, "{length} bytes");
        }
    });
    assert_eq!(server.accepted(), 1);
    server.assert_left_alone();
}
