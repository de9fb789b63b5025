//! A Prometheus of the test's own.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// As `examples/metrics/prometheus.yml` has it.
const EXAMPLES_ADDRESS: &str = "127.0.0.1:9000";

pub(crate) struct Prometheus {
    process: Child,
    root: PathBuf,
    address: SocketAddr,
    client: reqwest::Client,
    runtime: tokio::runtime::Runtime,
}

impl Prometheus {
    /// One that is configured like the example's and scrapes this address. `None` where there is
    /// none installed.
    pub(crate) fn start(scraped: SocketAddr) -> Option<Self> {
        let Some(binary) = find() else {
            assert!(
                std::env::var("CI").is_err(),
                "CI must have Prometheus: apt-get install prometheus"
            );
            println!("skipped: prometheus is not installed");
            return None;
        };
        let root = std::env::temp_dir().join(format!("balter-prometheus-{}", std::process::id()));
        let _ = fs::remove_dir_all(&root);
        fs::create_dir_all(&root).expect("the temporary directory is ours");
        let example = include_str!("../../examples/metrics/prometheus.yml");
        assert!(example.contains(EXAMPLES_ADDRESS), "{example}");
        let configuration = example.replace(EXAMPLES_ADDRESS, &scraped.to_string());
        fs::write(root.join("prometheus.yml"), configuration).expect("it is ours");
        // Somebody may take the port between our finding it and Prometheus' listening there.
        for _ in 0..5 {
            let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free");
            let address = free.local_addr().expect("it is bound");
            drop(free);
            let mut prometheus = Self {
                process: spawn(&binary, &root, address),
                root: root.clone(),
                address,
                client: reqwest::Client::new(),
                runtime: tokio::runtime::Runtime::new().expect("tokio starts"),
            };
            if prometheus.becomes_ready() {
                return Some(prometheus);
            }
            let log = fs::read_to_string(root.join("log")).unwrap_or_default();
            println!("prometheus does not start: {log}");
            prometheus.stop();
        }
        panic!("prometheus does not start");
    }

    /// The series that an expression has now.
    pub(crate) fn query(&self, expression: &str) -> Vec<Value> {
        let answer = self
            .get("api/v1/query", &[("query", expression)])
            .unwrap_or_else(|error| panic!("{expression}: {error}"));
        let mut answer: Value = serde_json::from_str(&answer).expect("JSON");
        assert_eq!(answer["status"], "success", "{expression}: {answer}");
        match answer["data"]["result"].take() {
            Value::Array(series) => series,
            other => panic!("{expression}: {other}"),
        }
    }

    fn get(&self, path: &str, query: &[(&str, &str)]) -> reqwest::Result<String> {
        let url = format!("http://{}/{path}", self.address);
        let request = self.client.get(url).query(query).timeout(Duration::from_secs(10));
        self.runtime.block_on(async { request.send().await?.text().await })
    }

    fn becomes_ready(&mut self) -> bool {
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(30) {
            if self.process.try_wait().expect("it is our child").is_some() {
                return false;
            }
            if self.get("-/ready", &[]).is_ok_and(|answer| answer.contains("is Ready")) {
                return true;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        false
    }

    fn stop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        self.stop();
        let _ = fs::remove_dir_all(&self.root);
    }
}

fn spawn(binary: &Path, root: &Path, address: SocketAddr) -> Child {
    let log = fs::File::create(root.join("log")).expect("it is ours");
    Command::new(binary)
        .arg(format!("--config.file={}", root.join("prometheus.yml").display()))
        .arg(format!("--storage.tsdb.path={}", root.join("data").display()))
        .arg(format!("--web.listen-address={address}"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .expect("it can be run")
}

fn find() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .map(|directory| directory.join("prometheus"))
        .find(|file| file.is_file())
}
