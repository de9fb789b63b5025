//! Sweeps of real targets. Bounds are wide, since the machine is shared; what is told of recovery, and how
//! well the scalability law is known, is shown in virtual time.

#[path = "support/lib.rs"]
mod support;

use balter_uring::SweepPoint;
use balter_uring::prelude::*;
use balter_uring::target::Target;
use support::{assert_adds_up, once_fit, visitor};

const MS: Duration = Duration::from_millis(1);

#[test]
fn a_sweep_goes_up_and_down_again() {
    let target = Target::builder().delay(Duration::from_millis(1)).start().expect("a target");
    let sweep = once_fit(|| {
        let sweep = visitor(target.url()).sweep([200, 400, 800], Duration::from_millis(700));
        let sweep = support::wait(sweep).expect("the machine allows runs");
        println!("{sweep}");
        // A machine that stands still for that long misses what is due in it.
        let missed =
            |point: &SweepPoint| point.statistics.counts.missed > u64::from(point.tps) / 10;
        if sweep.points.iter().any(missed) { Err(sweep.to_string()) } else { Ok(sweep) }
    });
    let asked: Vec<_> = sweep.points.iter().map(|point| (point.tps, point.down)).collect();
    let expected =
        [(200, false), (400, false), (800, false), (800, true), (400, true), (200, true)];
    assert_eq!(asked, expected);
    for point in &sweep.points {
        assert_adds_up(&point.statistics);
        assert!(point.statistics.counts.completed() > u64::from(point.tps) / 2, "{sweep}");
        assert!(point.under_way() > 0.0);
        // Seven windows of 700 ms, of which one is for settling.
        assert_eq!(point.blocks.len(), 7);
        assert!(point.goodput() > f64::from(point.tps) * 0.5, "{sweep}");
        assert!(point.quantile(0.5).is_some_and(|median| median >= MS), "{sweep}");
    }
    for line in sweep.to_string().lines() {
        assert!(line.chars().count() <= 80, "{line}");
    }
}

/// What is refused was throughput once, so that goodput seemed to grow with the rate.
#[test]
fn what_a_limiter_refuses_is_no_goodput() {
    let target = Target::builder().capacity(400).start().expect("a target");
    let sweep = once_fit(|| {
        let sweep = visitor(target.url()).sweep([200, 2_000], Duration::from_millis(1_000));
        let sweep = support::wait(sweep).expect("the machine allows runs");
        println!("{sweep}");
        let busy = |point: &SweepPoint| point.statistics.counts.missed > u64::from(point.tps) / 10;
        // A target that stood still for some time is behind at any rate.
        let unfit = sweep.points.iter().any(busy) || sweep.points[0].is_behind();
        if unfit { Err(sweep.to_string()) } else { Ok(sweep) }
    });
    let refused = &sweep.points[1];
    assert!(refused.statistics.actual_tps > 1_500.0, "{sweep}");
    assert!(refused.goodput() < 800.0 && refused.failed() > 0.5, "{sweep}");
    assert!(refused.is_behind(), "{sweep}");
    assert_eq!(refused.quantile(0.5), None, "{sweep}");
    assert!(sweep.to_string().starts_with("FAILED: "), "{sweep}");
}

/// Each instance takes 10 ms for a transaction, and nothing is shared.
#[test]
fn so_many_instances_as_were_set_have_so_many_times_the_throughput() {
    let target = Target::builder().delay(10 * MS).start().expect("a target");
    let numbers = [1, 2, 4, 8];
    let sweep = once_fit(|| {
        let sweep = visitor(target.url()).sweep_concurrency(numbers, Duration::from_millis(600));
        let sweep = support::wait(sweep).expect("the machine allows runs");
        println!("{sweep}");
        let (one, eight) = (sweep.points[0].goodput(), sweep.points[3].goodput());
        if eight > one * 4.0 { Ok(sweep) } else { Err(sweep.to_string()) }
    });
    for (point, instances) in sweep.points.iter().zip(numbers) {
        assert_adds_up(&point.statistics);
        assert_eq!((point.instances, point.failed()), (instances, 0.0), "{sweep}");
        assert!(point.goodput() < 110.0 * instances as f64, "{sweep}");
        assert!(point.time_each().is_some_and(|time| time > 9 * MS), "{sweep}");
    }
    for line in sweep.to_string().lines() {
        assert!(line.chars().count() <= 80, "{line}");
    }
}
