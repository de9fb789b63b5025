//! The command line of a node.

use std::ffi::{OsStr, OsString};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{BoolishValueParser, RangedI64ValueParser};
use clap::{CommandFactory as _, FromArgMatches as _, Parser, value_parser};

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
    #[arg(short = 'n', long, env = "BALTER_PEERS", value_name = "HOST")]
    #[arg(value_delimiter = ',', value_parser = trimmed)]
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
    #[arg(value_parser = at_least_one())]
    max_tps: Option<u32>,

    /// The most scenario instances of one run [default: 1000000]
    #[arg(long, env = "BALTER_MAX_CONCURRENCY", value_name = "INSTANCES")]
    #[arg(value_parser = at_least_one())]
    max_concurrency: Option<u32>,

    /// The longest run, in seconds [default: 86400]
    #[arg(long, env = "BALTER_MAX_DURATION", value_name = "SECONDS")]
    #[arg(value_parser = at_least_one())]
    max_duration: Option<u32>,

    /// The most runs at a time [default: 16]
    #[arg(long, env = "BALTER_MAX_RUNS", value_name = "RUNS")]
    #[arg(value_parser = at_least_one())]
    max_runs: Option<u32>,

    /// The most requests a second that change something, from all clients [default: 20]
    #[arg(long, env = "BALTER_MAX_REQUESTS", value_name = "REQUESTS")]
    #[arg(value_parser = at_least_one())]
    max_requests: Option<u32>,

    /// A name that requests may address this node by, beside its addresses and localhost; may be
    /// given more than once
    #[arg(long, env = "BALTER_ALLOW_HOST", value_name = "NAME")]
    #[arg(value_delimiter = ',', value_parser = trimmed)]
    allow_host: Vec<String>,

    /// Lets the arguments of runs hold addresses: whoever may ask for a run may then say what is
    /// loaded
    #[arg(long, env = "BALTER_ALLOW_TARGETS", value_parser = BoolishValueParser::new())]
    allow_targets: bool,

    /// Lets runs be closed loops, which are as fast as the target answers, whatever --max-tps says
    #[arg(long, env = "BALTER_ALLOW_CLOSED_LOOPS", value_parser = BoolishValueParser::new())]
    allow_closed_loops: bool,

    /// Listens on other addresses than loopback without a token: whoever can reach this node can have
    /// it send load
    #[arg(long, env = "BALTER_DANGER_ALLOW_UNAUTHENTICATED")]
    #[arg(value_parser = BoolishValueParser::new())]
    danger_allow_unauthenticated: bool,
}

impl Arguments {
    /// Those of the process. Wrong ones end it with a message, as `--help` does.
    pub(super) fn parse() -> Self {
        Self::parse_from(std::env::args_os(), says_nothing).unwrap_or_else(|error| error.exit())
    }

    /// These, and what the environment says; but not variables that are to be `ignored`.
    fn parse_from(
        arguments: impl IntoIterator<Item = impl Into<OsString> + Clone>,
        ignored: impl Fn(&OsStr) -> bool,
    ) -> Result<Self, clap::Error> {
        let command = Self::command().mut_args(|argument| match argument.get_env() {
            Some(name) if ignored(name) => argument.env(None::<&'static str>),
            _ => argument,
        });
        Self::from_arg_matches(&command.try_get_matches_from(arguments)?)
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
        config.allowed.targets |= self.allow_targets;
        config.allowed.closed_loops |= self.allow_closed_loops;
        config.is_open |= self.danger_allow_unauthenticated;
        let limits = &mut config.limits;
        limits.max_tps = self.max_tps.unwrap_or(limits.max_tps);
        limits.max_concurrency = self.max_concurrency.unwrap_or(limits.max_concurrency);
        limits.max_duration = self
            .max_duration
            .map_or(limits.max_duration, |seconds| Duration::from_secs(seconds.into()));
        limits.max_requests = self.max_requests.unwrap_or(limits.max_requests);
        limits.max_runs = self.max_runs.map_or(limits.max_runs, |runs| runs as usize);
        Ok(runtime)
    }
}

/// Whether a variable is there and empty: what is left, in a compose file or a manifest, of one that
/// nobody set. It stands for none, but not where that would turn TLS off without a word.
fn says_nothing(name: &OsStr) -> bool {
    let guards = name.to_str().is_some_and(|name| name.starts_with("BALTER_TLS_"));
    !guards && std::env::var_os(name).is_some_and(|value| value.is_empty())
}

fn at_least_one() -> RangedI64ValueParser<u32> {
    value_parser!(u32).range(1..)
}

/// As people write lists: `a, b`.
#[expect(clippy::unnecessary_wraps, reason = "what clap asks of a parser")]
fn trimmed(value: &str) -> Result<String, std::convert::Infallible> {
    Ok(value.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::runtime::Permissions;

    /// Whatever the environment of the tests says.
    fn parsed(arguments: &[&str]) -> Result<Arguments, clap::Error> {
        Arguments::parse_from([&["program"], arguments].concat(), |_| true)
    }

    fn applied(arguments: &[&str]) -> BalterRuntime {
        let runtime = BalterRuntime::new().port(1).peers(["first"]);
        parsed(arguments).expect("they parse").apply(runtime).expect("they fit")
    }

    #[test]
    fn clap_finds_the_definition_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn what_is_not_said_stays() {
        let config = applied(&[]).config;
        assert_eq!((config.port, config.peers), (1, vec!["first".to_owned()]));
        assert_eq!(config.allowed, Permissions::default());
        assert!(!config.is_open && config.tls.is_none());
    }

    #[test]
    fn the_guides_command_line_is_understood() {
        let config = applied(&["-p", "7622", "-n", "127.0.0.1:7621", "--peers", "a, b:1,"]).config;
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
            "--allow-closed-loops",
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
        assert!(config.allowed.targets && config.allowed.closed_loops && config.is_open);
    }

    #[test]
    fn nonsense_is_refused() {
        for arguments in [
            &["--port", "99999"][..],
            &["--tls-cert", "a"],
            &["--tls-key", "a"],
            &["--tls-ca", "a"],
            &["--advertise", "10.0.0.1"],
            &["--max-tps", "0"],
            &["--max-concurrency", "0"],
            &["--max-duration", "0"],
            &["--max-runs", "0"],
            &["--max-requests", "0"],
            &["--allow-targets=yes"],
            &["--bind", "everywhere"],
            &["--token", "secret"],
            &["run"],
        ] {
            assert!(parsed(arguments).is_err(), "{arguments:?}");
        }
        let unreadable = parsed(&["--token-file", "/no/such/file"]).expect("it parses");
        let error = unreadable.apply(BalterRuntime::new());
        assert!(matches!(error, Err(RuntimeError::File { .. })));
    }

    #[test]
    fn the_help_lists_every_variable_and_no_token() {
        let help = Arguments::command().render_long_help().to_string();
        for argument in Arguments::command().get_arguments() {
            let name = argument.get_long().expect("a long name");
            let variable = format!("[env: BALTER_{}=", name.replace('-', "_").to_uppercase());
            assert!(help.contains(&variable), "{variable} of\n{help}");
        }
        assert!(!help.contains("--token <"), "{help}");
    }

    /// Runs in a process of its own, with the environment that the test below gives it: changing
    /// that of this process would change it for all tests.
    #[test]
    #[ignore = "is started by `the_environment_says_what_the_command_line_does_not`"]
    fn in_an_environment() {
        // The arguments of this process are not those of a node.
        let parsed = match Arguments::parse_from(["program", "--max-tps", "7"], says_nothing) {
            Ok(parsed) => parsed,
            Err(error) => return println!("{error}"),
        };
        let config = parsed.apply(BalterRuntime::new()).expect("they fit").config;
        println!(
            "port {} peers {:?} most {} targets {} open {} token {:?} tls {}",
            config.port,
            config.peers,
            config.limits.max_tps,
            config.allowed.targets,
            config.is_open,
            config.token,
            config.tls.is_some()
        );
    }

    fn in_environment(variables: &[(&str, &str)]) -> String {
        let test = concat!(module_path!(), "::in_an_environment");
        let (_, test) = test.split_once("::").expect("the crate comes first");
        let program = std::env::current_exe().expect("there is one");
        let mut command = Command::new(program);
        command.args(["--exact", test, "--ignored", "--nocapture"]);
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("BALTER_")) {
            command.env_remove(name);
        }
        let output = command.envs(variables.iter().copied()).output().expect("it starts");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    #[test]
    fn the_environment_says_what_the_command_line_does_not() {
        let said = in_environment(&[
            ("BALTER_PORT", "7"),
            ("BALTER_PEERS", "a, b:1"),
            ("BALTER_MAX_TPS", "8"),
            ("BALTER_ALLOW_TARGETS", "1"),
            ("BALTER_DANGER_ALLOW_UNAUTHENTICATED", "no"),
            ("BALTER_TOKEN", "0123456789abcdef"),
        ]);
        let expected = "port 7 peers [\"a\", \"b:1\"] most 7 targets true open false \
                        token Some((secret)) tls false";
        assert!(said.contains(expected), "{said}");
    }

    #[test]
    fn empty_variables_say_nothing() {
        let names: Vec<_> = Arguments::command()
            .get_arguments()
            .filter_map(|argument| argument.get_env()?.to_str().map(str::to_owned))
            .filter(|name| !name.starts_with("BALTER_TLS_"))
            .chain(["BALTER_TOKEN".to_owned()])
            .collect();
        let empty: Vec<_> = names.iter().map(|name| (name.as_str(), "")).collect();
        let expected = "port 7621 peers [] most 7 targets false open false token None tls false";
        let said = in_environment(&empty);
        assert!(said.contains(expected), "{said}");
    }

    #[test]
    fn an_empty_variable_does_not_turn_tls_off() {
        for name in ["CERT", "KEY", "CA"] {
            let said = in_environment(&[(&format!("BALTER_TLS_{name}"), "")]);
            let expected = format!("a value is required for '--tls-{}", name.to_lowercase());
            assert!(said.contains(&expected), "{said}");
        }
    }
}
