//! What a run publishes through the `metrics` crate: the counts of its statistics, to the unit, and
//! everything that the dashboard of `examples/metrics` asks a Prometheus for.
//!
//! The part with a Prometheus is skipped where it is not installed, except in CI.

#[path = "support_metrics/prometheus.rs"]
mod prometheus;
#[path = "support_metrics/promql.rs"]
mod promql;
#[path = "support/lib.rs"]
mod support;

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::OnceLock;

use balter_uring::FailureClass;
use balter_uring::http::{Client, Error, PreparedRequest};
use balter_uring::prelude::*;
use balter_uring::target::Target;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};

use prometheus::Prometheus;
use support::{assert_adds_up, failures, until, wait};

/// The recorder of this process, which has one for all its tests, and where it listens.
struct Exporter {
    handle: PrometheusHandle,
    address: SocketAddr,
}

fn exporter() -> &'static Exporter {
    static EXPORTER: OnceLock<Exporter> = OnceLock::new();
    EXPORTER.get_or_init(|| {
        let runtime = tokio::runtime::Runtime::new().expect("tokio starts");
        let entered = runtime.enter();
        // Somebody may take the port between our finding it and the exporter's listening there.
        let (recorder, server, address) = (0..5)
            .find_map(|_| {
                let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).ok()?;
                let address = free.local_addr().ok()?;
                drop(free);
                let builder = PrometheusBuilder::new().with_http_listener(address);
                builder.build().ok().map(|(recorder, server)| (recorder, server, address))
            })
            .expect("a port is free");
        drop(entered);
        let handle = recorder.handle();
        metrics::set_global_recorder(recorder).expect("the only one");
        std::thread::spawn(move || runtime.block_on(server));
        Exporter { handle, address }
    })
}

/// The value of a series in the exporter's text, by its name and labels.
fn exported(text: &str, series: &str) -> Option<f64> {
    text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok())
}

async fn get(page: &PreparedRequest) -> Result<(), Error> {
    page.send().await?.error_for_status()?.discard().await?;
    Ok(())
}

#[test]
fn what_is_published_is_what_the_statistics_count() {
    #[scenario]
    async fn counted(url: String) {
        let page = Client::new().get(&url).prepare().expect("a URL");
        loop {
            let _ = counted_get(&page).await;
            counted_nothing().await;
        }
    }
    #[transaction]
    async fn counted_get(page: &PreparedRequest) -> Result<(), Error> {
        get(page).await
    }
    #[transaction]
    async fn counted_nothing() {}

    let exporter = exporter();
    let target = Target::builder().error_rate(0.3).start().expect("a target");
    let run = counted(target.url()).tps(2_000).duration(Duration::from_secs(1));
    let statistics = wait(run);
    assert_adds_up(&statistics);
    assert!(statistics.counts.failed > 0, "{:?}", statistics.counts);

    let text = exporter.handle.render();
    let value =
        |series: &str| exported(&text, series).unwrap_or_else(|| panic!("no {series} in\n{text}"));
    for transaction in &statistics.transactions {
        let name = &transaction.name;
        assert_eq!(value(&format!("{name}_success")), transaction.succeeded as f64);
        assert_eq!(value(&format!("{name}_error")), transaction.failed as f64);
        let response = &transaction.response;
        assert_eq!(value(&format!("{name}_latency_count")), response.len() as f64);
        let sum = response.mean().as_secs_f64() * response.len() as f64;
        let published = value(&format!("{name}_latency_sum"));
        // Both know a time to 0.1 %.
        assert!((published - sum).abs() <= 0.002 * sum, "{name}: {published}, not {sum}");
    }
    assert_eq!(value("balter_counted_lag_count"), statistics.lag.len() as f64);
    assert_eq!(value("balter_counted_missed"), statistics.counts.missed as f64);
    for class in FailureClass::ALL {
        let series = format!("balter_counted_failures{{class=\"{class}\"}}");
        assert_eq!(value(&series), failures(&statistics, class) as f64, "{class}");
    }
    for shard in &statistics.shards {
        // It is over, so nobody is busy with it.
        assert_eq!(value(&format!("balter_counted_shard_busy{{core=\"{}\"}}", shard.core)), 0.0);
    }
}

#[test]
fn a_prometheus_has_all_that_the_dashboard_asks_for() {
    #[scenario]
    async fn shown(url: String) {
        let page = Client::new().get(&url).prepare().expect("a URL");
        loop {
            let _ = shown_get(&page).await;
        }
    }
    #[transaction]
    async fn shown_get(page: &PreparedRequest) -> Result<(), Error> {
        get(page).await
    }

    let exporter = exporter();
    let Some(prometheus) = Prometheus::start(exporter.address) else { return };
    let target = Target::builder().error_rate(0.3).start().expect("a target");
    let url = target.url();
    // Until all is seen: a rate is of something that goes on.
    let (stop, stopped) = smol::channel::bounded::<()>(1);
    let running = std::thread::spawn(move || {
        let run = async {
            // With both kinds of limits, each of which has metrics of its own. Neither is near.
            let limited = shown(url).tps(500).error_rate(0.5).hint(Hint::Tps(500));
            let _ = limited.latency(Duration::from_secs(5), 0.9).await;
        };
        let seen = async move {
            let _ = stopped.recv().await;
        };
        futures_lite::future::block_on(futures_lite::future::or(run, seen));
    });

    let dashboard = include_str!("../examples/metrics/grafana-dashboard.json");
    let patterns = promql::patterns(dashboard);
    assert_eq!(patterns.len(), 2, "scenarios and transactions: {patterns:?}");
    for pattern in patterns {
        let query = format!("{{__name__=~\"{pattern}\"}}");
        until("the variables have values", || !prometheus.query(&query).is_empty());
    }
    let mut asked = BTreeSet::new();
    for expression in promql::expressions(dashboard) {
        // As Grafana does it.
        let query = expression
            .replace("${scenario}", "shown")
            .replace("${transaction}", "shown_get")
            .replace("$__rate_interval", "4s");
        assert!(!query.contains('$'), "a variable that this test does not know: {query}");
        let names = promql::metric_names(&query);
        assert!(!names.is_empty(), "no metric in {query}");
        until(&format!("Prometheus answers {query}"), || !prometheus.query(&query).is_empty());
        asked.extend(names);
    }
    for name in &asked {
        assert!(!prometheus.query(name).is_empty(), "{name}");
    }
    // Were the dashboard's expressions not found, nothing would have been asked for.
    for name in ["shown_get_success", "shown_get_latency", "balter_shown_goal_tps"] {
        assert!(asked.contains(name), "{asked:?}");
    }
    let failed = prometheus.query("balter_shown_failures{class=\"status\"} > 0");
    assert_eq!(failed.len(), 1, "{failed:?}");

    drop(stop);
    running.join().expect("the run ends");
}
