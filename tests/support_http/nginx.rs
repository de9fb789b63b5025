//! An nginx of the test's own, in a directory of its own.
#![allow(dead_code, unreachable_pub, reason = "each test binary and bench uses a part of this")]

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// A running nginx, which ends with this.
pub struct Nginx {
    process: Child,
    pub address: SocketAddr,
    pub root: PathBuf,
}

impl Nginx {
    /// `None` where there is none. `prepare` fills the directory, in which there are `html` and
    /// `tmp`; the configuration must keep the server in the foreground and without a worker.
    pub fn launch(
        prepare: impl FnOnce(&Path),
        configuration: impl Fn(&Path, SocketAddr) -> String,
    ) -> Option<Self> {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let Some(binary) = find() else {
            assert!(std::env::var("CI").is_err(), "CI must have nginx: apt-get install nginx");
            println!("skipped: nginx is not installed");
            return None;
        };
        let root = std::env::temp_dir().join(format!(
            "balter-nginx-{}-{}",
            std::process::id(),
            COUNT.fetch_add(1, Ordering::SeqCst)
        ));
        let _ = fs::remove_dir_all(&root);
        for directory in ["html", "tmp"] {
            fs::create_dir_all(root.join(directory)).expect("the temporary directory is ours");
        }
        prepare(&root);
        // Somebody may take the port between our finding it and nginx's listening there.
        for _ in 0..5 {
            let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free");
            let address = free.local_addr().expect("it is bound");
            drop(free);
            fs::write(root.join("nginx.conf"), configuration(&root, address)).expect("it is ours");
            let mut process = Command::new(&binary)
                .arg("-p")
                .arg(&root)
                .arg("-c")
                .arg(root.join("nginx.conf"))
                .arg("-e")
                .arg(root.join("error.log"))
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .expect("it can be run");
            if listens(&mut process, address) {
                return Some(Self { process, address, root });
            }
        }
        let log = fs::read_to_string(root.join("error.log")).unwrap_or_default();
        panic!("nginx does not start: {log}");
    }

    /// One that speaks TLS. `more` goes into the configuration's `server`.
    pub fn launch_secure(
        certificate_pem: &str,
        key_pem: &str,
        prepare: impl FnOnce(&Path),
        more: &str,
    ) -> Option<Self> {
        let prepare = |root: &Path| {
            fs::write(root.join("certificate.pem"), certificate_pem).expect("it is ours");
            fs::write(root.join("key.pem"), key_pem).expect("it is ours");
            prepare(root);
        };
        Self::launch(prepare, |root, address| secure_configuration(root, address, more))
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // In the foreground and without a worker of its own, it is this one process.
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = fs::remove_dir_all(&self.root);
    }
}

pub fn find() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // Where Debian has it, which is not on everybody's path.
    let also = ["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from);
    std::env::split_paths(&path)
        .chain(also)
        .map(|directory| directory.join("nginx"))
        .find(|file| file.is_file())
}

fn listens(process: &mut Child, address: SocketAddr) -> bool {
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(10) {
        if process.try_wait().expect("it is our child").is_some() {
            return false;
        }
        if TcpStream::connect(address).is_ok() {
            return true;
        }
        sleep(Duration::from_millis(10));
    }
    let _ = process.kill();
    let _ = process.wait();
    false
}

/// A whole configuration around what is to stand in its `http` block: one process in the
/// foreground, with everything that it writes in `root`.
pub fn configured(root: &Path, http: &str) -> String {
    let root = root.display();
    format!(
        r#"
daemon off;
master_process off;
worker_processes 1;
pid {root}/nginx.pid;
error_log {root}/error.log warn;
events {{ worker_connections 4096; }}
http {{
    client_body_temp_path {root}/tmp/body;
    proxy_temp_path {root}/tmp/proxy;
    fastcgi_temp_path {root}/tmp/fastcgi;
    uwsgi_temp_path {root}/tmp/uwsgi;
    scgi_temp_path {root}/tmp/scgi;
    {http}
}}
"#
    )
}

fn secure_configuration(root: &Path, address: SocketAddr, more: &str) -> String {
    let directory = root.display();
    configured(
        root,
        &format!(
            r#"
    access_log off;
    default_type text/plain;
    client_max_body_size 32m;
    keepalive_requests 1000000;
    server {{
        listen {address} ssl;
        ssl_certificate {directory}/certificate.pem;
        ssl_certificate_key {directory}/key.pem;
        ssl_session_cache shared:sessions:1m;
        root {directory}/html;
        location /stored/ {{ dav_methods PUT; create_full_put_path on; }}
        {more}
    }}
"#
        ),
    )
}
