//! Shows a load's metrics to Prometheus while it runs.
//!
//! It starts a target of its own that answers every twentieth request with an error, loads it for
//! a while, and listens for a Prometheus meanwhile. Then it ends.
//!
//! ```text
//! cargo run --release --example metrics -- --seconds 60 --port 9000
//! curl http://127.0.0.1:9000/metrics
//! prometheus --config.file examples/metrics/prometheus.yml
//! ```
//!
//! `examples/metrics/grafana-dashboard.json` is a dashboard for Grafana: import it, and choose the
//! Prometheus above as its data source.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::ExitCode;

use balter_uring::http::{Client, Error, PreparedRequest};
use balter_uring::prelude::*;
use balter_uring::target::Target;
use metrics_exporter_prometheus::PrometheusBuilder;

#[scenario]
async fn shopper(url: String) {
    let page = Client::new().get(&url).prepare().expect("the target's URL is one");
    loop {
        // What went wrong is counted; a shopper who meets an error just goes on.
        let _ = browse(&page).await;
        let _ = browse(&page).await;
        let _ = buy(&page).await;
    }
}

#[transaction]
async fn browse(page: &PreparedRequest) -> Result<(), Error> {
    page.send().await?.error_for_status()?.discard().await?;
    Ok(())
}

#[transaction]
async fn buy(page: &PreparedRequest) -> Result<(), Error> {
    page.send().await?.error_for_status()?.discard().await?;
    Ok(())
}

struct Options {
    port: u16,
    seconds: f64,
}

fn main() -> ExitCode {
    match parse(std::env::args().skip(1)).and_then(run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("metrics: {message}");
            ExitCode::FAILURE
        }
    }
}

fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Options, String> {
    let mut options = Options { port: 9000, seconds: 10.0 };
    while let Some(name) = arguments.next() {
        let value = arguments.next().unwrap_or_default();
        match name.as_str() {
            "--port" => {
                options.port = value
                    .parse()
                    .map_err(|_| format!("--port wants a number up to 65535, not `{value}`"))?;
            }
            "--seconds" => {
                options.seconds =
                    value.parse().ok().filter(|seconds| (0.0..1e9).contains(seconds)).ok_or_else(
                        || format!("--seconds wants a number of seconds, not `{value}`"),
                    )?;
            }
            _ => return Err(format!("`{name}` is unknown; there are --port and --seconds")),
        }
    }
    Ok(options)
}

fn run(options: Options) -> Result<(), String> {
    // Before the first run starts: a run tells the recorder that it then finds.
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, options.port));
    PrometheusBuilder::new()
        .with_http_listener(address)
        .install()
        .map_err(|error| format!("{address}: {error}"))?;

    let target = Target::builder()
        .delay(Duration::from_millis(2))
        .error_rate(0.05)
        .start()
        .map_err(|error| error.to_string())?;
    println!("loading {} for {} s", target.url(), options.seconds);
    println!("its metrics: curl http://{address}/metrics");
    let run = shopper(target.url())
        .tps(2_000)
        .duration(Duration::from_secs_f64(options.seconds))
        .stop_on_ctrl_c();
    let statistics =
        futures_lite::future::block_on(run.run()).map_err(|error| error.to_string())?;
    println!("\n{statistics}");
    Ok(())
}
