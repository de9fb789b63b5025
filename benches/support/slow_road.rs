//! reqwest in a scenario, under the feature `tokio`, beside the same scenario under Balter 0.8.2.
//!
//! tokio's threads are kept on the generator's core: on another they would be help that Balter
//! does not have, whose runtime has that one core. The claim is judged by what a request costs that
//! core, which is what bounds the rate: where other programs want the core too, two threads get
//! more of it than Balter's one.

use std::time::Duration;

use balter_uring::target::Target;
use balter_uring::{scenario, transaction};
use futures_lite::future::block_on;

use crate::cpu::{self, Stretch, Used};
use crate::harness::{Claim, Plan, Series, Table, interleave, ratios};
use crate::{Asked, Contender, Measured};

/// How the names of tokio's threads under the feature begin.
const TOKIO: &str = "balter-tokio";

#[scenario]
async fn visitor(url: String) {
    let client = reqwest::Client::new();
    loop {
        // What fails is counted.
        let _ = visit(&client, &url).await;
    }
}

#[transaction]
async fn visit(client: &reqwest::Client, url: &str) -> Result<(), reqwest::Error> {
    client.get(url).send().await?.error_for_status()?.bytes().await?;
    Ok(())
}

/// What is claimed of it, as a ratio to Balter.
const AT_LEAST: f64 = 0.8;

pub(crate) fn compare(plan: &Plan) {
    if !cfg!(feature = "tokio") {
        println!("reqwest in a scenario: skipped without `--features tokio`");
        return;
    }
    let target = Target::start().expect("a target starts");
    let served = || target.served();
    let asked = Asked::new(target.address(), "/", &served);
    let connections = 64;
    let mut contenders = vec![Contender::OursWithReqwest, Contender::BalterAtFirst];
    if !plan.quick {
        contenders.extend([Contender::Balter, Contender::BalterAsInGuide]);
    }
    // To see what the road costs.
    contenders.push(Contender::Ours);
    let measured = interleave(plan.repetitions, &contenders, |&contender| {
        crate::measure(contender, &asked, connections, plan.length(2.0))
    });
    let mut table = Table::new(
        format!(
            "GET of 12 bytes with reqwest, keep-alive, {connections} connections, the crate's own \
             target; tokio's threads on the generator's core"
        ),
        &[
            "contender",
            "req/s",
            "(min–max)",
            "µs of the core/req",
            "reqwest here ÷ by rate",
            "by cost",
            "claim",
        ],
    );
    for (contender, theirs) in contenders.iter().zip(&measured) {
        let rates =
            |measured: &[Measured]| -> Vec<f64> { measured.iter().map(Measured::rate).collect() };
        let rate = Series::new(rates(theirs));
        let costs =
            |measured: &[Measured]| -> Vec<f64> { measured.iter().map(Measured::cost).collect() };
        let by_rate = ratios(&rates(&measured[0]), &rates(theirs)).median();
        let by_cost = ratios(&costs(theirs), &costs(&measured[0])).median();
        let claim = match contender {
            Contender::OursWithReqwest | Contender::Ours => String::new(),
            _ => Claim::AtLeast(AT_LEAST).judge("× Balter", by_cost),
        };
        table.row([
            contender.name().to_owned(),
            format!("{:.0}", rate.median()),
            rate.range(0),
            format!("{:.1}", Series::new(costs(theirs)).median()),
            format!("{by_rate:.2}"),
            format!("{by_cost:.2}"),
            claim,
        ]);
    }
    table.print();
    crate::tell_held_up(&measured);
}

/// One measurement, and what the run has counted.
pub(crate) fn measure(
    core: usize,
    url: &str,
    connections: usize,
    (warm_up, length): (Duration, Duration),
    served: &dyn Fn() -> u64,
) -> (Stretch, u64) {
    let whole = warm_up + length + warm_up;
    let run = visitor(url.to_owned()).concurrency(connections).cores([core]).duration(whole);
    let running = std::thread::spawn(move || block_on(run.run()));
    // They are there once the run has begun, for all runs of the process.
    while cpu::pin_threads(TOKIO, core) == 0 && !running.is_finished() {
        std::thread::sleep(Duration::from_millis(1));
    }
    // What they wait for is each other: that is no time that others had the core.
    let used = || Used {
        ran: cpu::of_shard(core).ran + cpu::of_threads(TOKIO).ran,
        waited: Duration::ZERO,
    };
    let stretch = cpu::watch(warm_up, length, served, used);
    let statistics = running.join().expect("waiting for a run does not panic");
    let statistics = statistics.expect("the machine allows a run");
    let counts = &statistics.counts;
    assert!(counts.add_up() && counts.failed == 0, "{counts:?} {:?}", statistics.panic_message);
    (stretch, counts.succeeded)
}
