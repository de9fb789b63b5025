//! A target that speaks TLS: nginx, on the target's core.

use std::cell::Cell;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;

use balter_uring::http::{Certificate, Client, ClientBuilder};

use crate::authority::Authority;
use crate::cpu;
use crate::nginx::{Nginx, configured, find};

/// The one version and cipher that it speaks, so that all contenders do the same work: what both
/// rustls and OpenSSL like best.
const VERSION: &str = "TLSv1.3";
const CIPHER: &str = "TLS_AES_256_GCM_SHA384";

pub(crate) struct Secure {
    nginx: Nginx,
    status: SocketAddr,
    root: Certificate,
    /// Requests that asked for the count, which it counts too.
    asked: Cell<u64>,
}

impl Secure {
    /// `None` where nginx is not installed.
    pub(crate) fn start(core: usize) -> Option<Self> {
        find()?;
        let authority = Authority::new();
        let identity = authority.issue("127.0.0.1");
        let root = Certificate::from_pem(authority.root_pem().as_bytes()).expect("it is one");
        let free = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let status = free.local_addr().expect("it is bound");
        drop(free);
        // A process stays on the core of the thread that started it.
        let launch = move || {
            let prepare = |root: &Path| {
                let write = |name, text| fs::write(root.join(name), text).expect("it is ours");
                write("certificate.pem", &identity.certificate_pem);
                write("key.pem", &identity.key_pem);
            };
            Nginx::launch(prepare, |root, address| configuration(root, address, status))
        };
        let nginx = cpu::on_core("nginx-launch", core, launch).join().expect("nginx starts")?;
        Some(Self { nginx, status, root, asked: Cell::new(0) })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.nginx.address
    }

    pub(crate) fn speaks(&self) -> String {
        format!("{VERSION} with {CIPHER}")
    }

    /// Clients that trust it.
    pub(crate) fn client(&self) -> ClientBuilder {
        let builder = Client::builder().tls_built_in_root_certs(false);
        builder.add_root_certificate(self.root.clone())
    }

    pub(crate) fn served(&self) -> u64 {
        let mut stream = TcpStream::connect(self.status).expect("nginx listens");
        stream.write_all(b"GET /status HTTP/1.0\r\n\r\n").expect("nginx reads");
        let mut text = String::new();
        stream.read_to_string(&mut text).expect("nginx answers");
        // Below "server accepts handled requests" stand their numbers.
        let numbers = text.lines().skip_while(|line| !line.starts_with("server accepts")).nth(1);
        let requests = numbers.and_then(|line| line.split_whitespace().nth(2)?.parse::<u64>().ok());
        self.asked.set(self.asked.get() + 1);
        requests.expect("nginx tells its count") - self.asked.get()
    }
}

fn configuration(root: &Path, address: SocketAddr, status: SocketAddr) -> String {
    let directory = root.display();
    configured(
        root,
        &format!(
            r#"
    access_log off;
    default_type text/plain;
    keepalive_requests 1000000000;
    keepalive_timeout 600s;
    ssl_protocols {VERSION};
    ssl_conf_command Ciphersuites {CIPHER};
    ssl_certificate {directory}/certificate.pem;
    ssl_certificate_key {directory}/key.pem;
    server {{
        listen {address} ssl;
        location = / {{ return 200 "Hello world\n"; }}
    }}
    server {{
        listen {status};
        location = /status {{ stub_status; }}
    }}
"#
        ),
    )
}
