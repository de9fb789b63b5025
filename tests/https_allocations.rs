//! An HTTPS request in the steady state allocates what rustls does, and nothing else: a vector for
//! each record, one sent and one received.
//!
//! A test binary of its own: the counter is the whole process's. Skipped where nginx is not
//! installed, except in CI.
#![cfg(feature = "tls")]

#[path = "support_http/mod.rs"]
mod support;

use std::alloc::System;
use std::sync::atomic::{AtomicU64, Ordering};

use balter_uring::http::{Certificate, Client, Error, PreparedRequest};
use balter_uring::prelude::*;
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

use support::authority::{Authority, Identity};
use support::nginx::Nginx;
use support::{eventually, finish};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

static DONE: AtomicU64 = AtomicU64::new(0);

#[scenario]
async fn visitor(client: Client, url: String) {
    let page = client.get(&url).prepare().expect("a good URL");
    loop {
        if visit(&page).await.is_ok() {
            DONE.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[transaction]
async fn visit(page: &PreparedRequest) -> Result<(), Error> {
    page.send().await?.error_for_status()?.discard().await?;
    Ok(())
}

fn counted() -> (u64, u64) {
    let stats = ALLOCATOR.stats();
    ((stats.allocations + stats.reallocations) as u64, DONE.load(Ordering::Relaxed))
}

#[test]
fn a_request_allocates_two_vectors_of_rustls() {
    let authority = Authority::new();
    let Identity { certificate_pem, key_pem, .. } = authority.issue("127.0.0.1");
    let location = "location = / { return 200 hello; }";
    let nginx = Nginx::launch_secure(&certificate_pem, &key_pem, |_| {}, location);
    let Some(nginx) = nginx else { return };
    let root = Certificate::from_pem(authority.root_pem().as_bytes()).expect("it is one");
    let client = Client::builder().tls_built_in_root_certs(false).add_root_certificate(root);
    let run = visitor(client.build(), format!("https://{}/", nginx.address)).concurrency(32);
    let running = std::thread::spawn(move || finish(run.duration(Duration::from_secs(3))));
    eventually("it has begun", || DONE.load(Ordering::Relaxed) > 0);
    std::thread::sleep(Duration::from_millis(800));
    let (allocated, done) = counted();
    std::thread::sleep(Duration::from_millis(1_500));
    let (allocated, done) = (counted().0 - allocated, counted().1 - done);
    assert_eq!(running.join().expect("the run ends").failures, []);
    println!("{allocated} allocations in {done} requests");
    // What the engine needs for a window does not depend on how many there are.
    assert!(done > 1_000, "too few to tell: {done}");
    assert!(allocated < 2 * done + done / 2, "{allocated} allocations for {done} requests");
}
