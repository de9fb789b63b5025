//! Loads an HTTP server at a fixed rate and prints what was measured.
//!
//! Without arguments it starts a target of its own, in this process and on a core of its own where
//! there are two, and asks it 50 000 times a second for 10 seconds:
//!
//! ```text
//! cargo run --release --example quickstart
//! cargo run --release --example quickstart -- --target http://127.0.0.1:8080/ --tps 2000 --seconds 30
//! ```

use std::process::ExitCode;

use balter_uring::http::{Client, Error, PreparedRequest};
use balter_uring::prelude::*;
use balter_uring::target::Target;

#[scenario]
async fn visitor(url: String) {
    let page = Client::new().get(&url).prepare().expect("the URL was checked by main");
    loop {
        // What went wrong is counted; a visitor who meets an error just tries again.
        let _ = visit(&page).await;
    }
}

#[transaction]
async fn visit(page: &PreparedRequest) -> Result<(), Error> {
    page.send().await?.error_for_status()?.discard().await?;
    Ok(())
}

struct Options {
    target: Option<String>,
    tps: u32,
    seconds: f64,
}

fn main() -> ExitCode {
    match parse(std::env::args().skip(1)).and_then(run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("quickstart: {message}");
            ExitCode::FAILURE
        }
    }
}

fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Options, String> {
    let mut options = Options { target: None, tps: 50_000, seconds: 10.0 };
    while let Some(name) = arguments.next() {
        let value = arguments.next().ok_or_else(|| {
            format!("`{name}` is unknown or has no value; there are --target URL, --tps N and --seconds S")
        })?;
        match name.as_str() {
            "--target" => options.target = Some(value),
            "--tps" => {
                options.tps =
                    value.parse().ok().filter(|&tps| tps > 0).ok_or_else(|| {
                        format!("--tps wants a whole number above 0, not `{value}`")
                    })?;
            }
            "--seconds" => {
                options.seconds =
                    value.parse().ok().filter(|seconds| (0.0..1e9).contains(seconds)).ok_or_else(
                        || format!("--seconds wants a number of seconds, not `{value}`"),
                    )?;
            }
            _ => {
                return Err(format!(
                    "`{name}` is unknown; there are --target, --tps and --seconds"
                ));
            }
        }
    }
    Ok(options)
}

fn run(options: Options) -> Result<(), String> {
    let own = match options.target {
        Some(_) => None,
        None => Some(Target::start().map_err(|error| error.to_string())?),
    };
    let url = match (&options.target, &own) {
        (Some(url), _) => url.clone(),
        (None, Some(target)) => target.url(),
        (None, None) => unreachable!("one of the two is there"),
    };
    // A URL that cannot be used is said before any load is sent.
    Client::new().get(&url).prepare().map_err(|error| error.to_string())?;
    println!("loading {url} at {} transactions/s for {} s", options.tps, options.seconds);

    let run = visitor(url)
        .tps(options.tps)
        .duration(Duration::from_secs_f64(options.seconds))
        .stop_on_ctrl_c()
        .on_progress(Duration::from_secs(1), |progress| {
            println!(
                "{:5.1} s  {:>9.1}/s  p50 {:>8.1?}  p99 {:>8.1?}  {} in flight  {} failed  {} missed",
                progress.elapsed.as_secs_f64(),
                progress.tps,
                progress.p50,
                progress.p99,
                progress.in_flight,
                progress.failed,
                progress.missed,
            );
        });
    let statistics =
        futures_lite::future::block_on(run.run()).map_err(|error| error.to_string())?;
    println!("\n{statistics}");
    if let Some(target) = own {
        println!("  the target answered {} requests", target.served());
    }
    Ok(())
}
