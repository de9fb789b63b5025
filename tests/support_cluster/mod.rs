//! Nodes as real processes, each in a network namespace of its own.
//!
//! The program that includes this is started again for each; `ROLE` says what it is to be, and
//! [`play`] has it be that. Included by path into the tests and the bench of clusters.
#![allow(dead_code, reason = "each program uses a part of this")]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use balter_uring::BalterRuntime;
use balter_uring::http::{Client, Error};
use balter_uring::target::Target;
use balter_uring::{scenario, transaction};
use futures_lite::future::block_on;
use serde_json::Value;

pub(crate) const TOKEN: &str = "a-token-for-tests-alone";
pub(crate) const PORT: u16 = 7621;
pub(crate) const TARGET: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 100);

/// The namespaces that belong to one test, on a bridge of their own. Dropped, they and all that
/// runs in them are gone.
pub(crate) struct Network {
    prefix: String,
    names: Vec<String>,
    /// They share the cores.
    _turn: MutexGuard<'static, ()>,
}

fn run(command: &str) -> bool {
    let mut words = command.split_whitespace();
    let status = Command::new(words.next().expect("a command"))
        .args(words)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    status.is_ok_and(|status| status.success())
}

fn must(command: &str) {
    assert!(run(command), "`{command}` failed: these tests need root and iproute2");
}

impl Network {
    /// A bridge without any address of this machine: nothing in here leads anywhere else.
    pub(crate) fn new() -> Self {
        static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
        let turn = ONE_AT_A_TIME.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let prefix = format!("b{}", std::process::id() % 100_000);
        let hub = format!("{prefix}h");
        must(&format!("ip netns add {hub}"));
        must(&format!("ip -n {hub} link add br0 type bridge"));
        must(&format!("ip -n {hub} link set br0 up"));
        Self { prefix, names: vec![hub], _turn: turn }
    }

    fn name(&self, address: Ipv4Addr) -> String {
        format!("{}n{}", self.prefix, address.octets()[3])
    }

    /// A namespace with this address.
    pub(crate) fn host(&mut self, address: Ipv4Addr) -> String {
        let (hub, name) = (self.names[0].clone(), self.name(address));
        must(&format!("ip netns add {name}"));
        self.names.push(name.clone());
        let port = format!("p{}", address.octets()[3]);
        must(&format!("ip -n {hub} link add {port} type veth peer name eth0 netns {name}"));
        must(&format!("ip -n {hub} link set {port} master br0 up"));
        must(&format!("ip -n {name} addr add {address}/24 dev eth0"));
        must(&format!("ip -n {name} link set eth0 up"));
        must(&format!("ip -n {name} link set lo up"));
        name
    }

    /// Cuts a host off from others, or joins them again; what else it reaches it goes on to reach.
    pub(crate) fn cut(&self, host: Ipv4Addr, others: &[Ipv4Addr], is_cut: bool) {
        let (name, what) = (self.name(host), if is_cut { "add" } else { "del" });
        for other in others.iter().filter(|&&other| other != host) {
            must(&format!("ip -n {name} route {what} blackhole {other}/32"));
        }
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for name in self.names.iter().rev() {
            run(&format!("ip netns del {name}"));
        }
    }
}

/// A process of this program in a namespace. Dropped, it is killed.
pub(crate) struct Process {
    pub(crate) child: Child,
    pub(crate) namespace: String,
}

impl Process {
    /// Starts this program in a role, with its shard on a core, and waits until it is ready.
    fn start(
        namespace: &str,
        arguments: &[&str],
        role: &str,
        core: usize,
        variables: &[(&str, String)],
    ) -> Self {
        let program = std::env::current_exe().expect("it is running");
        let mut command = Command::new("ip");
        command.args(["netns", "exec", namespace]).arg(program);
        command.args(arguments);
        command.env("BALTER_CORES", core.to_string()).env("ROLE", role);
        command.envs(variables.iter().map(|(name, value)| (name, value.as_str())));
        let mut child = command.stdout(Stdio::piped()).spawn().expect("ip can be run");
        let mut lines = BufReader::new(child.stdout.take().expect("it is piped"));
        let mut line = String::new();
        while !line.contains("ready") {
            line.clear();
            assert!(
                lines.read_line(&mut line).expect("text") > 0,
                "{role} in {namespace} has ended"
            );
        }
        // What else it says is nobody's business, but must not fill the pipe.
        std::thread::spawn(move || std::io::copy(&mut lines, &mut std::io::sink()));
        Self { child, namespace: namespace.to_owned() }
    }

    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).expect("it is there");
    }

    /// kill −9.
    pub(crate) fn kill(&mut self) {
        // `ip netns exec` has become the program.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Sends one request from inside a namespace, and answers the status and the body.
pub(crate) fn request(
    namespace: &str,
    address: Ipv4Addr,
    method: &str,
    path: &str,
    body: &str,
) -> (u16, String) {
    let to = SocketAddr::from((address, PORT));
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: {to}\r\nAuthorization: Bearer {TOKEN}\r\nContent-Length: \
         {}\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n",
        body.len()
    );
    let mut answer = String::new();
    within(namespace, || {
        let mut stream =
            TcpStream::connect_timeout(&to, Duration::from_secs(5)).expect("it listens");
        stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
        stream.write_all(head.as_bytes()).expect("sent");
        stream.write_all(body.as_bytes()).expect("sent");
        stream.read_to_string(&mut answer).expect("answered");
    });
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    (status, body.to_owned())
}

/// Runs `work` on a thread that is inside a namespace.
pub(crate) fn within(namespace: &str, work: impl FnOnce() + Send) {
    let file = std::fs::File::open(format!("/var/run/netns/{namespace}")).expect("it is there");
    std::thread::scope(|scope| {
        scope
            .spawn(move || {
                let kind = rustix::thread::LinkNameSpaceType::Network;
                rustix::thread::move_into_link_name_space(
                    std::os::fd::AsFd::as_fd(&file),
                    Some(kind),
                )
                .expect("root may");
                work();
            })
            .join()
            .expect("the work is done");
    });
}

pub(crate) fn json(namespace: &str, address: Ipv4Addr, path: &str) -> Value {
    let (status, body) = request(namespace, address, "GET", path, "");
    assert_eq!(status, 200, "{path}: {body}");
    serde_json::from_str(&body).expect("JSON")
}

/// Asks again and again until it is so.
pub(crate) fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < Duration::from_secs(30), "in 30 s it was not so that {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Where the target tells what it has counted, and when.
const COUNTS: u16 = 9000;

pub(crate) const NODES: [Ipv4Addr; 3] =
    [Ipv4Addr::new(10, 77, 0, 1), Ipv4Addr::new(10, 77, 0, 2), Ipv4Addr::new(10, 77, 0, 3)];

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

/// Is what this process was started for; `false` if it was started for nothing of the kind.
pub(crate) fn play() -> bool {
    match std::env::var("ROLE").as_deref() {
        Ok("node") => node(),
        Ok("target") => target(),
        _ => return false,
    }
    true
}

fn node() {
    let address: Ipv4Addr = std::env::var("ADDRESS").expect("set").parse().expect("an address");
    let peers = std::env::var("PEERS").expect("set");
    block_on(async {
        let node = BalterRuntime::new()
            .bind(address.into())
            .peers(peers.split_whitespace())
            .token(TOKEN)
            .allow_closed_loops()
            .start()
            .await
            .expect("it starts");
        println!("ready");
        let _ = node.ended().await;
    });
}

fn target() {
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
        let counts = counts.lock().expect("no panic").clone();
        let text: String =
            counts.iter().map(|(micros, served)| format!("{micros} {served}\n")).collect();
        let _ = stream.expect("a connection").write_all(text.as_bytes());
    }
}

/// Three nodes on one core and a target on another.
pub(crate) struct Cluster {
    pub(crate) network: Network,
    hosts: Vec<String>,
    pub(crate) nodes: Vec<Process>,
    target: Process,
}

impl Cluster {
    /// `arguments` lead this program to [`play`].
    pub(crate) fn new(arguments: &[&str]) -> Self {
        let mut network = Network::new();
        let host = network.host(TARGET);
        let target = Process::start(&host, arguments, "target", 1, &[]);
        let hosts: Vec<_> = NODES.iter().map(|&address| network.host(address)).collect();
        let peers = format!("{}:{PORT}", NODES[0]);
        let start = |(host, address): (&String, &Ipv4Addr)| {
            let variables = [("ADDRESS", address.to_string()), ("PEERS", peers.clone())];
            Process::start(host, arguments, "node", 0, &variables)
        };
        let nodes = hosts.iter().zip(&NODES).map(start).collect();
        let cluster = Self { network, hosts, nodes, target };
        eventually("all know each other", || (0..3).all(|node| cluster.alive(node) == 3));
        cluster
    }

    pub(crate) fn alive(&self, node: usize) -> usize {
        let peers = json(&self.hosts[node], NODES[node], "/peers");
        let peers = peers.as_array().expect("a list");
        peers.iter().filter(|peer| peer["state"] == "alive").count()
    }

    pub(crate) fn start(&self, node: usize, body: &str) -> String {
        let (status, body) = request(&self.hosts[node], NODES[node], "POST", "/run", body);
        assert_eq!(status, 201, "{body}");
        let body: Value = serde_json::from_str(&body).expect("JSON");
        body["id"].as_str().expect("an id").to_owned()
    }

    pub(crate) fn view(&self, node: usize, id: &str) -> Value {
        json(&self.hosts[node], NODES[node], &format!("/runs/{id}"))
    }

    pub(crate) fn wait(&self, node: usize, id: &str) -> Value {
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
    pub(crate) fn counts(&self) -> Vec<(f64, u64)> {
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
pub(crate) fn busiest(counts: &[(f64, u64)]) -> f64 {
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
pub(crate) fn rates(counts: &[(f64, u64)]) -> Vec<(f64, f64)> {
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
