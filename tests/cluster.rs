//! Three nodes as processes in network namespaces of their own: what the whole of them sends, as the
//! target counts it, while nodes are killed, cut off and slow.

#[path = "support_cluster/mod.rs"]
mod support;

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use balter_uring::BalterRuntime;
use balter_uring::http::{Client, Error};
use balter_uring::prelude::*;
use balter_uring::target::Target;
use futures_lite::future::block_on;
use serde_json::Value;
use support::{Network, PORT, Process, TARGET, TOKEN, eventually, json, request, within};

const NODES: [Ipv4Addr; 3] =
    [Ipv4Addr::new(10, 77, 0, 1), Ipv4Addr::new(10, 77, 0, 2), Ipv4Addr::new(10, 77, 0, 3)];

/// Where the target tells what it has counted, and when.
const COUNTS: u16 = 9000;

#[scenario]
async fn visitor() {
    let client = Client::new();
    loop {
        let _ = front_page(&client).await;
    }
}

#[transaction]
async fn front_page(client: &Client) -> Result<(), Error> {
    client.get("http://10.77.0.100:8080/").send().await?.error_for_status()?.bytes().await?;
    Ok(())
}

use balter_uring::__private::{Registered, SCENARIOS, linkme};

#[linkme::distributed_slice(SCENARIOS)]
#[linkme(crate = balter_uring::__private::linkme)]
static VISITOR: Registered =
    Registered { name: "visitor", module: "cluster", make: |_| Ok(visitor()) };

fn plays(role: &str) -> bool {
    std::env::var("ROLE").is_ok_and(|played| played == role)
}

/// Not a test: what a node's process does.
#[test]
fn node() {
    if !plays("node") {
        return;
    }
    let address: Ipv4Addr = std::env::var("ADDRESS").expect("set").parse().expect("an address");
    let peers = std::env::var("PEERS").expect("set");
    block_on(async {
        let node = BalterRuntime::new()
            .bind(address.into())
            .peers(peers.split_whitespace())
            .token(TOKEN)
            .start()
            .await
            .expect("it starts");
        println!("ready");
        let _ = node.ended().await;
    });
}

/// Not a test: what the target's process does.
#[test]
fn target() {
    if !plays("target") {
        return;
    }
    let target = Target::builder().address((TARGET, 8080).into()).start().expect("it starts");
    let counts = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&counts);
    std::thread::spawn(move || {
        let began = Instant::now();
        loop {
            std::thread::sleep(Duration::from_millis(2));
            let served = target.served();
            told.lock().expect("no panic").push((began.elapsed().as_micros(), served));
        }
    });
    let listener = TcpListener::bind((TARGET, COUNTS)).expect("a port");
    println!("ready");
    for stream in listener.incoming() {
        let text: String = counts
            .lock()
            .expect("no panic")
            .iter()
            .map(|(micros, served)| format!("{micros} {served}\n"))
            .collect();
        let _ = stream.expect("a connection").write_all(text.as_bytes());
    }
}

struct Cluster {
    network: Network,
    hosts: Vec<String>,
    nodes: Vec<Process>,
    target: Process,
}

impl Cluster {
    fn new() -> Self {
        let mut network = Network::new();
        let host = network.host(TARGET);
        let target = Process::start(&host, "target", 1, &[]);
        let hosts: Vec<_> = NODES.iter().map(|&address| network.host(address)).collect();
        let peers = format!("{}:{PORT}", NODES[0]);
        let start = |(host, address): (&String, &Ipv4Addr)| {
            let variables = [("ADDRESS", address.to_string()), ("PEERS", peers.clone())];
            Process::start(host, "node", 0, &variables)
        };
        let nodes = hosts.iter().zip(&NODES).map(start).collect();
        let cluster = Self { network, hosts, nodes, target };
        eventually("all know each other", || {
            (0..3).all(|node| cluster.alive(node) == 3)
        });
        cluster
    }

    fn alive(&self, node: usize) -> usize {
        let peers = json(&self.hosts[node], NODES[node], "/peers");
        let peers = peers.as_array().expect("a list");
        peers.iter().filter(|peer| peer["state"] == "alive").count()
    }

    fn start(&self, node: usize, body: &str) -> String {
        let (status, body) = request(&self.hosts[node], NODES[node], "POST", "/run", body);
        assert_eq!(status, 201, "{body}");
        let body: Value = serde_json::from_str(&body).expect("JSON");
        body["id"].as_str().expect("an id").to_owned()
    }

    fn view(&self, node: usize, id: &str) -> Value {
        json(&self.hosts[node], NODES[node], &format!("/runs/{id}"))
    }

    fn wait(&self, node: usize, id: &str) -> Value {
        let began = Instant::now();
        loop {
            let view = self.view(node, id);
            if view["state"] == "finished" {
                return view;
            }
            assert_ne!(view["state"], "failed", "{view}");
            assert!(began.elapsed() < Duration::from_secs(90), "{view}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// What the target had served at which time in seconds.
    fn counts(&self) -> Vec<(f64, u64)> {
        let mut text = String::new();
        within(&self.target.namespace, || {
            let address = SocketAddr::from((TARGET, COUNTS));
            let mut stream = TcpStream::connect(address).expect("it listens");
            stream.read_to_string(&mut text).expect("text");
        });
        let parse = |line: &str| {
            let (micros, served) = line.split_once(' ').expect("two numbers");
            (micros.parse::<f64>().expect("a number") / 1e6, served.parse().expect("a number"))
        };
        text.lines().map(parse).collect()
    }
}

/// The most that was served in any 100 ms, as a rate.
fn busiest(counts: &[(f64, u64)]) -> f64 {
    let mut first = 0;
    let mut most = 0;
    for &(time, served) in counts {
        while counts[first].0 < time - 0.1 {
            first += 1;
        }
        most = most.max(served - counts[first].1);
    }
    most as f64 * 10.0
}

/// Rates over whole tenths of a second.
fn rates(counts: &[(f64, u64)]) -> Vec<(f64, f64)> {
    let mut rates = Vec::new();
    let mut last = counts[0];
    for &(time, served) in counts {
        if time - last.0 >= 0.1 {
            rates.push((time, (served - last.1) as f64 / (time - last.0)));
            last = (time, served);
        }
    }
    rates
}

#[test]
fn three_nodes_send_exactly_the_goal_and_the_target_counts_the_same() {
    let cluster = Cluster::new();
    let id = cluster.start(1, r#"{"name":"visitor","duration":5,"max_tps":"30000"}"#);
    let view = cluster.wait(1, &id);
    let counts = cluster.counts();
    let served = counts.last().expect("counts").1;
    println!("{}", serde_json::to_string_pretty(&view).expect("JSON"));
    println!("served {served}, busiest 100 ms {}", busiest(&counts));
    assert_eq!(view["counts"]["succeeded"], served);
    let tps = view["tps"].as_f64().expect("a number");
    assert!((29_900.0..=30_100.0).contains(&tps), "{tps}");
    let nodes = view["nodes"].as_array().expect("a list");
    let sum: u64 = nodes.iter().filter_map(|node| node["counts"]["succeeded"].as_u64()).sum();
    assert_eq!((nodes.len(), sum), (3, served));
}

#[test]
fn the_others_take_over_from_a_node_that_is_killed() {
    let mut cluster = Cluster::new();
    let id = cluster.start(0, r#"{"name":"visitor","duration":12,"max_tps":6000}"#);
    eventually("it is at its goal", || cluster.view(0, &id)["tps"].as_f64() > Some(5_500.0));
    let killed = cluster.counts().last().expect("counts").0;
    cluster.nodes[2].kill();
    let view = cluster.wait(0, &id);
    let counts = cluster.counts();
    for (time, rate) in rates(&counts) {
        println!("{:+.1} {rate:.0}", time - killed);
    }
    println!("busiest 100 ms: {}", busiest(&counts));
    println!("{}", serde_json::to_string_pretty(&view["nodes"]).expect("JSON"));
}
