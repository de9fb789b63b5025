//! A machine with other work: a shard that loses its core for a while goes on as soon as it has it
//! back.

#[path = "support_http/mod.rs"]
mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use balter_uring::http::{Client, Error};
use balter_uring::prelude::*;

use support::{Server, finish, ok};

#[scenario]
async fn visitor(url: String) {
    let client = Client::new();
    loop {
        let _ = visit(&client, &url).await;
    }
}

#[transaction]
async fn visit(client: &Client, url: &str) -> Result<(), Error> {
    client.get(url).send().await?.discard().await?;
    Ok(())
}

/// glommio 0.9 takes an executor whose preemption timer has fired before the first of its tasks ran
/// for one without tasks, and sleeps until an event of its own comes, which may be never: a thread
/// that lost its core for a millisecond at the wrong moment lost its shard.
#[test]
fn a_shard_that_lost_its_core_goes_on() {
    let server = Server::answering(ok("hello"));
    let stop = Arc::new(AtomicBool::new(false));
    let cores = std::thread::available_parallelism().expect("Linux").get();
    let others: Vec<_> = (0..2 * cores)
        .map(|_| {
            let stop = Arc::clone(&stop);
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            })
        })
        .collect();
    let begun = Instant::now();
    let statistics = finish(visitor(server.url()).concurrency(20).duration(Duration::from_secs(6)));
    let took = begun.elapsed();
    stop.store(true, Ordering::Relaxed);
    for other in others {
        other.join().expect("it does not panic");
    }
    println!("took {took:?}\n{statistics}");
    assert_eq!(statistics.failures, []);
    assert!(took < Duration::from_secs(9), "a run of 6 s took {took:?}");
    // With a fair share of its core, a shard waits for it a tenth of a second at most. One that
    // sleeps on shows as a transaction of that length, or as a shard that was given up.
    for shard in &statistics.shards {
        assert!(!shard.lost && shard.counts.completed() > 0, "{shard:?}");
    }
    let longest = statistics.service.max();
    assert!(longest < Duration::from_secs(2), "it stood still for {longest:?}");
    server.assert_left_alone();
}
