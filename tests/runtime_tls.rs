//! Nodes that speak TLS with each other, and with nobody who has no certificate of theirs.

#[path = "support_http/authority.rs"]
mod authority;

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use authority::{Authority, Identity};
use balter_uring::prelude::*;
use balter_uring::runtime::{RunningNode, RuntimeError, Tls};
use balter_uring::time::sleep;
use futures_lite::future::block_on;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde_json::{Value, json};

const TOKEN: &str = "a-token-for-these-tests";

#[scenario]
async fn idle() {
    loop {
        rest().await;
    }
}

#[transaction]
async fn rest() {
    sleep(Duration::from_millis(1)).await;
}

/// Files that are gone with this.
struct Files(PathBuf);

impl Files {
    fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("balter-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        Self(folder)
    }

    fn write(&self, name: &str, content: &str) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, content).expect("written");
        path
    }

    fn tls(&self, name: &str, identity: &Identity, authority: &Authority) -> Tls {
        let certificate = self.write(&format!("{name}.crt"), &identity.certificate_pem);
        let key = self.write(&format!("{name}.key"), &identity.key_pem);
        Tls::new(certificate, key).authority(self.write("ca.crt", &authority.root_pem()))
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn node(tls: Tls, peers: &[SocketAddr]) -> RunningNode {
    let peers = peers.iter().map(ToString::to_string);
    let runtime = BalterRuntime::new().port(0).token(TOKEN).peers(peers).tls(tls);
    block_on(runtime.start()).expect("it starts")
}

/// One request over TLS; an error where the connection is not made.
fn ask(
    address: SocketAddr,
    authority: &Authority,
    identity: Option<&Identity>,
    request: &str,
) -> std::io::Result<Value> {
    let mut roots = RootCertStore::empty();
    roots.add(authority.root_der().into()).expect("a root");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots);
    let config = match identity {
        None => builder.with_no_client_auth(),
        Some(identity) => {
            let chain = vec![CertificateDer::from(identity.certificate_der.clone())];
            let key = PrivateKeyDer::from_pem_slice(identity.key_pem.as_bytes()).expect("a key");
            builder.with_client_auth_cert(chain, key).expect("they fit")
        }
    };
    let name = ServerName::from(address.ip());
    let connection = ClientConnection::new(Arc::new(config), name).expect("a connection");
    let mut stream = StreamOwned::new(connection, TcpStream::connect(address)?);
    let (head, body) = request.split_once('\n').unwrap_or((request, ""));
    let request = format!(
        "{head} HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {TOKEN}\r\nConnection: \
         close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    Ok(serde_json::from_str(body)?)
}

fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < Duration::from_secs(30), "in 30 s it was not so that {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn nodes_carry_a_run_over_mutual_tls() {
    let (files, authority) = (Files::new("mutual"), Authority::new());
    let (one, other) = (authority.issue("127.0.0.1"), authority.issue("127.0.0.1"));
    let first = node(files.tls("one", &one, &authority), &[]);
    let second = node(files.tls("other", &other, &authority), &[first.address()]);
    let ask = |request: &str| ask(second.address(), &authority, Some(&one), request);
    eventually("they know each other", || {
        let peers = ask("GET /peers").expect("an answer");
        peers.as_array().expect("a list").iter().filter(|peer| peer["state"] == "alive").count()
            == 2
    });
    let body = json!({ "name": "idle", "max_tps": 200, "duration": 1.5 });
    let started = ask(&format!("POST /run\n{body}")).expect("it starts");
    let id = started["id"].as_str().expect("an id").to_owned();
    let view = || ask(&format!("GET /runs/{id}")).expect("an answer");
    eventually("it is over", || view()["state"] == "finished");
    let view = view();
    let nodes = view["nodes"].as_array().expect("a list");
    assert_eq!(nodes.len(), 2, "{view}");
    assert!(nodes.iter().all(|node| node["counts"]["succeeded"].as_u64() > Some(50)), "{view}");
}

#[test]
fn who_has_no_certificate_of_the_authority_is_not_spoken_to() {
    let (files, authority) = (Files::new("strangers"), Authority::new());
    let identity = authority.issue("127.0.0.1");
    let node = node(files.tls("one", &identity, &authority), &[]);
    let health =
        |identity: Option<&Identity>| ask(node.address(), &authority, identity, "GET /health");
    assert_eq!(health(Some(&identity)).expect("an answer"), json!({ "status": "ok" }));
    assert!(health(None).is_err());
    let stranger = Authority::new().issue("127.0.0.1");
    assert!(health(Some(&stranger)).is_err());
    // Without TLS there is nothing to be had either.
    let mut stream = TcpStream::connect(node.address()).expect("it listens");
    stream.write_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("sent");
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    assert!(!answer.starts_with(b"HTTP/1.1 200"), "{answer:?}");
    assert!(health(Some(&identity)).is_ok());
}

#[test]
fn files_that_cannot_be_used_are_named() {
    let (files, authority) = (Files::new("files"), Authority::new());
    let identity = authority.issue("127.0.0.1");
    let certificate = files.write("a.crt", &identity.certificate_pem);
    let key = files.write("a.key", &identity.key_pem);
    let empty = files.write("empty", "");
    let other = files.write("b.key", &authority.issue("127.0.0.1").key_pem);
    for (tls, named) in [
        (Tls::new(&empty, &key), "empty"),
        (Tls::new(&certificate, &empty), "empty"),
        (Tls::new(&certificate, &other), "a.crt"),
        (Tls::new(&certificate, &key).authority(&empty), "empty"),
    ] {
        let error = block_on(BalterRuntime::new().port(0).tls(tls).start()).expect_err("refused");
        assert!(matches!(error, RuntimeError::Tls { .. }), "{error}");
        assert!(error.to_string().contains(named), "{error}");
    }
}
