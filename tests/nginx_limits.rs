//! The search for a rate against nginx, which refuses what is beyond its own limit.
//!
//! Skipped where nginx is not installed, except in CI.

#[path = "support_http/mod.rs"]
mod support;

use std::net::SocketAddr;
use std::path::Path;

use balter_uring::http::{Client, Error, PreparedRequest};
use balter_uring::prelude::*;
use balter_uring::{FailureClass, Limit, Verdict};

use support::finish;
use support::nginx::{Nginx, configured};

/// Takes 500 a second, and 25 ahead of that; the rest is refused at once.
fn configuration(root: &Path, address: SocketAddr) -> String {
    let directory = root.display();
    configured(
        root,
        &format!(
            r#"
    error_log {directory}/error.log crit;
    access_log off;
    default_type text/plain;
    keepalive_requests 1000000;
    limit_req_zone $binary_remote_addr zone=all:1m rate=500r/s;
    limit_req_status 503;
    server {{
        listen {address};
        root {directory}/html;
        location = /hello.txt {{ limit_req zone=all burst=25 nodelay; }}
    }}
"#
        ),
    )
}

#[scenario]
async fn visitor(url: String) {
    let page = Client::new().get(&url).prepare().expect("a good URL");
    loop {
        let _ = visit(&page).await;
    }
}

#[transaction]
async fn visit(page: &PreparedRequest) -> Result<(), Error> {
    page.send().await?.error_for_status()?.discard().await?;
    Ok(())
}

/// A twentieth is refused at 500 / 0.95, that is 526 a second.
#[test]
fn the_rate_at_which_nginx_refuses_a_twentieth_is_found() {
    // A `return` would come before the limit: it is a file that is asked for.
    let prepare = |root: &Path| {
        std::fs::write(root.join("html/hello.txt"), "Hello world\n").expect("it is ours");
    };
    let Some(nginx) = Nginx::launch(prepare, configuration) else { return };
    let url = format!("http://{}/hello.txt", nginx.address);
    let run = visitor(url).error_rate(0.05).hint(Hint::Tps(125)).duration(Duration::from_secs(25));
    let statistics = finish(run);
    println!("{statistics}");
    assert!((425..625).contains(&statistics.goal_tps), "{statistics}");
    assert!(statistics.steady.is_some(), "found within 25 s");
    let counts = statistics.counts;
    assert_eq!(statistics.failures, [(FailureClass::Status, counts.failed)]);
    let verdict = statistics.verdict.as_ref().expect("judged");
    assert!(matches!(verdict, Verdict::Limit { limit: Limit::ErrorRate(_), .. }), "{verdict}");
}
