//! Nodes as real processes, each in a network namespace of its own.
//!
//! The test's own program is started again for each: `NODE` and `TARGET` say what it is to be.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

pub(crate) const TOKEN: &str = "a-token-for-tests-alone";
pub(crate) const PORT: u16 = 7621;
pub(crate) const TARGET: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 100);

/// The namespaces that belong to one test, on a bridge of their own. Dropped, they and all that
/// runs in them are gone.
pub(crate) struct Network {
    prefix: String,
    names: Vec<String>,
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
        let prefix = format!("b{}", std::process::id() % 100_000);
        let hub = format!("{prefix}h");
        must(&format!("ip netns add {hub}"));
        must(&format!("ip -n {hub} link add br0 type bridge"));
        must(&format!("ip -n {hub} link set br0 up"));
        Self { prefix, names: vec![hub] }
    }

    /// A namespace with this address.
    pub(crate) fn host(&mut self, address: Ipv4Addr) -> String {
        let (hub, name) = (self.names[0].clone(), format!("{}n{}", self.prefix, address.octets()[3]));
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

    /// Pulls the plug of a host, or puts it in again.
    pub(crate) fn plug(&self, address: Ipv4Addr, is_in: bool) {
        let state = if is_in { "up" } else { "down" };
        must(&format!("ip -n {} link set p{} {state}", self.names[0], address.octets()[3]));
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
    /// Starts the test `role` of this program on a core, and waits for it to say that it is ready.
    pub(crate) fn start(namespace: &str, role: &str, core: usize, variables: &[(&str, String)]) -> Self {
        let program = std::env::current_exe().expect("it is running");
        let mut command = Command::new("ip");
        command.args(["netns", "exec", namespace]).arg(program);
        command.args(["--exact", role, "--nocapture", "--test-threads=1"]);
        command.env("BALTER_CORES", core.to_string()).env("ROLE", role);
        command.envs(variables.iter().map(|(name, value)| (name, value.as_str())));
        let mut child = command.stdout(Stdio::piped()).spawn().expect("ip can be run");
        let mut lines = BufReader::new(child.stdout.take().expect("it is piped"));
        let mut line = String::new();
        while !line.contains("ready") {
            line.clear();
            assert!(lines.read_line(&mut line).expect("text") > 0, "{role} in {namespace} has ended");
        }
        // What else it says is nobody's business, but must not fill the pipe.
        std::thread::spawn(move || std::io::copy(&mut lines, &mut std::io::sink()));
        Self { child, namespace: namespace.to_owned() }
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
        let mut stream = TcpStream::connect_timeout(&to, Duration::from_secs(5)).expect("it listens");
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
