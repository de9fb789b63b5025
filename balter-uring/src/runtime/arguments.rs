//! The command line of a node.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;

use super::{BalterRuntime, RuntimeError, Tls};

/// A node of a load generator. Nodes that know each other carry load tests together; any of them
/// takes requests for runs: POST /run, or the page at /.
#[derive(Debug, Parser)]
#[command(version = None, disable_version_flag = true)]
pub(super) struct Arguments {
    /// The port to listen on: TCP for requests and other nodes, UDP for gossip [default: 7621]
    #[arg(short, long, env = "BALTER_PORT")]
    port: Option<u16>,

    /// Nodes to ask for the others: addresses or DNS names, with a port unless it is 7621; one that
    /// lives is enough
    #[arg(short = 'n', long, env = "BALTER_PEERS", value_delimiter = ',', value_name = "HOST")]
    peers: Vec<String>,

    /// The address to listen on [default: 127.0.0.1]
    #[arg(long, env = "BALTER_BIND", value_name = "ADDRESS")]
    bind: Option<IpAddr>,

    /// Where other nodes reach this one, as address:port [default: where it listens]
    #[arg(long, env = "BALTER_ADVERTISE", value_name = "ADDRESS:PORT")]
    advertise: Option<SocketAddr>,

    /// A file with the token that nodes and clients have to show; the environment's BALTER_TOKEN can
    /// hold the token itself
    #[arg(long, env = "BALTER_TOKEN_FILE", value_name = "FILE")]
    token_file: Option<PathBuf>,

    /// The node's certificate, PEM: serves over TLS
    #[arg(long, env = "BALTER_TLS_CERT", value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,

    /// The private key of the certificate, PEM
    #[arg(long, env = "BALTER_TLS_KEY", value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,

    /// The authority of the nodes' certificates, PEM; with it, everybody who connects has to show a
    /// certificate of this authority
    #[arg(long, env = "BALTER_TLS_CA", value_name = "FILE", requires = "tls_cert")]
    tls_ca: Option<PathBuf>,

    /// The most transactions a second of one run [default: 10000000]
    #[arg(long, env = "BALTER_MAX_TPS", value_name = "TPS")]
    max_tps: Option<u32>,

    /// The most scenario instances of one run [default: 1000000]
    #[arg(long, env = "BALTER_MAX_CONCURRENCY", value_name = "INSTANCES")]
    max_concurrency: Option<u32>,

    /// The longest run, in seconds [default: 86400]
    #[arg(long, env = "BALTER_MAX_DURATION", value_name = "SECONDS")]
    max_duration: Option<u64>,

    /// The most runs at a time [default: 16]
    #[arg(long, env = "BALTER_MAX_RUNS", value_name = "RUNS")]
    max_runs: Option<usize>,

    /// The most requests a second that change something, from all clients [default: 20]
    #[arg(long, env = "BALTER_MAX_REQUESTS", value_name = "REQUESTS")]
    max_requests: Option<u32>,

    /// A name that requests may address this node by, beside its addresses and localhost; may be
    /// given more than once
    #[arg(long, env = "BALTER_ALLOW_HOST", value_delimiter = ',', value_name = "NAME")]
    allow_host: Vec<String>,

    /// Lets the arguments of runs hold addresses: whoever may ask for a run may then say what is
    /// loaded
    #[arg(long, env = "BALTER_ALLOW_TARGETS")]
    allow_targets: bool,

    /// Listens on other addresses than loopback without a token: whoever can reach this node can have
    /// it send load
    #[arg(long, env = "BALTER_DANGER_ALLOW_UNAUTHENTICATED")]
    danger_allow_unauthenticated: bool,
}

impl Arguments {
    pub(super) fn parse() -> Self {
        <Self as Parser>::parse()
    }

    pub(super) fn apply(self, mut runtime: BalterRuntime) -> Result<BalterRuntime, RuntimeError> {
        if let Some(path) = self.token_file {
            let token = std::fs::read_to_string(&path)
                .map_err(|error| RuntimeError::File { path, error })?;
            runtime = runtime.token(token.trim());
        }
        if let (Some(certificate), Some(key)) = (self.tls_cert, self.tls_key) {
            let tls = Tls::new(certificate, key);
            runtime = runtime.tls(match self.tls_ca {
                Some(authority) => tls.authority(authority),
                None => tls,
            });
        }
        let config = &mut runtime.config;
        config.port = self.port.unwrap_or(config.port);
        config.bind = self.bind.unwrap_or(config.bind);
        config.advertise = self.advertise.or(config.advertise);
        config.peers.extend(self.peers.into_iter().filter(|peer| !peer.is_empty()));
        config.allowed_hosts.extend(self.allow_host.into_iter().filter(|host| !host.is_empty()));
        config.allows_targets |= self.allow_targets;
        config.is_open |= self.danger_allow_unauthenticated;
        let limits = &mut config.limits;
        limits.max_tps = self.max_tps.unwrap_or(limits.max_tps);
        limits.max_concurrency = self.max_concurrency.unwrap_or(limits.max_concurrency);
        limits.max_duration = self.max_duration.map_or(limits.max_duration, Duration::from_secs);
        limits.max_requests = self.max_requests.unwrap_or(limits.max_requests);
        limits.max_runs = self.max_runs.unwrap_or(limits.max_runs);
        Ok(runtime)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn applied(arguments: &[&str]) -> BalterRuntime {
        let arguments = [&["program"], arguments].concat();
        let runtime = BalterRuntime::new().port(1).peers(["first"]);
        Arguments::try_parse_from(arguments).expect("they parse").apply(runtime).expect("they fit")
    }

    #[test]
    fn what_is_not_said_stays() {
        let config = applied(&[]).config;
        assert_eq!((config.port, config.peers), (1, vec!["first".to_owned()]));
        assert!(!config.allows_targets && !config.is_open && config.tls.is_none());
    }

    #[test]
    fn the_guides_command_line_is_understood() {
        let config = applied(&["-p", "7622", "-n", "127.0.0.1:7621", "-n", "a,b:1"]).config;
        assert_eq!(config.port, 7622);
        assert_eq!(config.peers, ["first", "127.0.0.1:7621", "a", "b:1"]);
    }

    #[test]
    fn limits_and_permissions_are_taken_over() {
        let config = applied(&[
            "--max-tps",
            "10",
            "--max-duration",
            "60",
            "--max-runs",
            "2",
            "--max-concurrency",
            "5",
            "--allow-host",
            "load.internal",
            "--allow-targets",
            "--danger-allow-unauthenticated",
            "--bind",
            "::",
            "--advertise",
            "10.0.0.1:7",
        ])
        .config;
        let limits = &config.limits;
        assert_eq!((limits.max_tps, limits.max_concurrency, limits.max_runs), (10, 5, 2));
        assert_eq!(limits.max_duration, Duration::from_secs(60));
        assert_eq!(config.allowed_hosts, ["load.internal"]);
        assert!(config.allows_targets && config.is_open);
    }

    #[test]
    fn nonsense_is_refused() {
        for arguments in [
            &["--port", "99999"][..],
            &["--tls-cert", "a"],
            &["--tls-ca", "a"],
            &["--bind", "everywhere"],
            &["--token", "secret"],
            &["run"],
        ] {
            let arguments = [&["program"], arguments].concat();
            assert!(Arguments::try_parse_from(&arguments).is_err(), "{arguments:?}");
        }
        let unreadable = Arguments::try_parse_from(["program", "--token-file", "/no/such/file"]);
        let error = unreadable.expect("it parses").apply(BalterRuntime::new());
        assert!(matches!(error, Err(RuntimeError::File { .. })));
    }
}
