//! How many instances there are, whose transactions are whose, and what a builder refuses.

#[path = "support/lib.rs"]
mod support;

use std::panic::catch_unwind;
use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering};

use balter_uring::Verdict;
use balter_uring::prelude::*;
use support::{assert_adds_up, wait, work, worker};

/// How many are inside at a time.
struct Gauge {
    now: AtomicI64,
    most: AtomicI64,
}

struct Inside(&'static Gauge);

impl Gauge {
    const fn new() -> Self {
        Self { now: AtomicI64::new(0), most: AtomicI64::new(0) }
    }

    fn enter(&'static self) -> Inside {
        let now = self.now.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(now, Ordering::SeqCst);
        Inside(self)
    }

    fn most(&self) -> i64 {
        self.most.load(Ordering::SeqCst)
    }

    fn now(&self) -> i64 {
        self.now.load(Ordering::SeqCst)
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        self.0.now.fetch_sub(1, Ordering::SeqCst);
    }
}

#[transaction]
async fn gauged(gauge: &'static Gauge, length: Duration) {
    let _inside = gauge.enter();
    balter_uring::time::sleep(length).await;
}

#[scenario]
async fn gauging(gauge: &'static Gauge, length: Duration) {
    loop {
        gauged(gauge, length).await;
    }
}

#[test]
fn a_closed_loop_has_exactly_so_many_in_flight() {
    static GAUGES: [Gauge; 3] = [const { Gauge::new() }; 3];
    for (gauge, instances) in GAUGES.iter().zip([1, 7, 64]) {
        let run = gauging(gauge, Duration::from_millis(10)).concurrency(instances);
        let statistics = wait(run.duration(Duration::from_millis(400)));
        assert_adds_up(&statistics);
        assert_eq!(gauge.most(), instances as i64, "{statistics}");
        assert_eq!(gauge.now(), 0, "all have ended");
        assert_eq!(statistics.concurrency, instances);
    }
}

#[test]
fn an_open_loop_never_has_more_than_the_highest_concurrency() {
    static GAUGES: [Gauge; 3] = [const { Gauge::new() }; 3];
    // 50 a second each at most, so that all of them are wanted.
    for (gauge, instances) in GAUGES.iter().zip([1, 3, 8]) {
        let run = gauging(gauge, Duration::from_millis(20)).tps(1_000).max_concurrency(instances);
        let statistics = wait(run.duration(Duration::from_millis(600)));
        assert_adds_up(&statistics);
        assert_eq!(gauge.most(), instances as i64, "{statistics}");
        assert!(
            matches!(statistics.verdict, Some(Verdict::ConcurrencyLimit { .. })),
            "{statistics}"
        );
    }
}

#[test]
fn an_open_loop_starts_the_instances_that_its_rate_needs() {
    // By Little's law 400 a second of 100 ms each are 40 at a time; 10 to begin with.
    let run = worker(Duration::from_millis(100)).tps(400);
    let statistics = wait(run.duration(Duration::from_secs(2)));
    assert_adds_up(&statistics);
    assert_eq!(statistics.counts.planned, 800);
    support::assert_all_well(&statistics, 800);
    assert!(statistics.concurrency >= 20, "{statistics}");
}

#[test]
fn a_hint_starts_so_many_at_once() {
    static BEGUN: AtomicU64 = AtomicU64::new(0);
    #[scenario]
    async fn counted() {
        BEGUN.fetch_add(1, Ordering::SeqCst);
        loop {
            work(Duration::from_millis(1)).await;
        }
    }
    let run = counted().tps(50).hint(Hint::Concurrency(60)).duration(Duration::from_millis(300));
    assert_adds_up(&wait(run));
    assert_eq!(BEGUN.load(Ordering::SeqCst), 60);

    BEGUN.store(0, Ordering::SeqCst);
    let run = counted().tps(50).hint(Hint::Concurrency(60)).max_concurrency(5);
    assert_adds_up(&wait(run.duration(Duration::from_millis(300))));
    assert_eq!(BEGUN.load(Ordering::SeqCst), 5);
}

#[test]
fn the_other_hints_change_no_count() {
    let run = worker(Duration::ZERO).tps(100).hint(Hint::Tps(5)).hint(Hint::LatencyController(0.9));
    let statistics = wait(run.duration(Duration::from_secs(1)));
    support::assert_all_well(&statistics, 100);
}

#[test]
fn saturation_adds_instances_while_they_help() {
    let run = worker(Duration::from_millis(50)).saturate().max_concurrency(200);
    let statistics = wait(run.duration(Duration::from_secs(3)));
    assert_adds_up(&statistics);
    assert!(statistics.concurrency > 10, "{statistics}");
    assert!(statistics.concurrency <= 200, "{statistics}");
}

#[test]
fn a_spawned_task_counts_in_the_run_of_its_scenario() {
    #[scenario]
    async fn family() {
        loop {
            let child = balter_uring::spawn(async {
                gauged(&GAUGE, Duration::from_millis(5)).await;
                // And one of its own.
                balter_uring::spawn(work(Duration::ZERO)).await
            });
            work(Duration::from_millis(1)).await;
            assert_eq!(child.await, Some(Some(())), "a task's output comes through its handle");
        }
    }
    static GAUGE: Gauge = Gauge::new();
    let statistics = wait(family().concurrency(2).duration(Duration::from_millis(400)));
    assert_adds_up(&statistics);
    assert_eq!((statistics.panics, GAUGE.most()), (0, 2), "{statistics}");
    let of = |name: &str| {
        statistics.transactions.iter().find(|row| row.name == name).map_or(0, |row| row.succeeded)
    };
    assert!(of("gauged") > 3, "{statistics}");
    assert!(of("work").abs_diff(2 * of("gauged")) <= 4, "{statistics}");

    // The rate is that of all of them together.
    let statistics = wait(family().tps(300).duration(Duration::from_secs(1)));
    assert_adds_up(&statistics);
    assert_eq!(statistics.counts.planned, 300);
    support::assert_all_well(&statistics, 300);
}

#[test]
fn a_task_whose_handle_is_dropped_goes_on_and_ends_with_the_run() {
    static BEATS: AtomicU64 = AtomicU64::new(0);
    #[scenario]
    async fn starter() {
        drop(balter_uring::spawn(async {
            loop {
                BEATS.fetch_add(1, Ordering::SeqCst);
                balter_uring::time::sleep(Duration::from_millis(5)).await;
            }
        }));
        work(Duration::from_millis(1)).await;
        std::future::pending::<()>().await;
    }
    let statistics = wait(starter().concurrency(1).duration(Duration::from_millis(400)));
    assert_adds_up(&statistics);
    let beats = BEATS.load(Ordering::SeqCst);
    assert!(beats > 10, "{beats}");
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(BEATS.load(Ordering::SeqCst), beats, "it outlived its run");
}

#[test]
fn the_same_scenario_twice_at_once_is_two_runs() {
    let run = || worker(Duration::from_millis(2)).tps(400).duration(Duration::from_millis(500));
    let (one, other) = wait(futures_lite::future::zip(run(), run()));
    for statistics in [one, other] {
        assert_adds_up(&statistics);
        support::assert_all_well(&statistics, 200);
    }
}

#[test]
fn instances_that_never_wait_take_turns() {
    static DONE: [AtomicU64; 3] = [const { AtomicU64::new(0) }; 3];
    #[scenario]
    async fn greedy(index: usize) {
        loop {
            work(Duration::ZERO).await;
            DONE[index].fetch_add(1, Ordering::Relaxed);
        }
    }
    let run = |index| greedy(index).concurrency(2).cores([0]).duration(Duration::from_millis(800));
    let (first, second, third) = (run(0), run(1), run(2));
    wait(futures_lite::future::zip(futures_lite::future::zip(first, second), third));
    let done = DONE.each_ref().map(|done| done.load(Ordering::Relaxed));
    let all: u64 = done.iter().sum();
    assert!(done.iter().all(|&part| part > all / 10), "{done:?}");
}

/// How often each of many instances has come to a transaction, from when all have begun.
struct Turns<const N: usize> {
    begun: AtomicUsize,
    done: [AtomicU64; N],
}

impl<const N: usize> Turns<N> {
    const fn new() -> Self {
        Self { begun: AtomicUsize::new(0), done: [const { AtomicU64::new(0) }; N] }
    }

    /// Of another instance.
    fn begin(&self) -> usize {
        self.begun.fetch_add(1, Ordering::Relaxed)
    }

    fn count(&self, index: usize) {
        if self.begun.load(Ordering::Relaxed) >= N {
            self.done[index].fetch_add(1, Ordering::Relaxed);
        }
    }

    fn done(&self) -> Vec<u64> {
        self.done.iter().map(|done| done.load(Ordering::Relaxed)).collect()
    }

    /// None has had less than half of its part.
    fn assert_fair(&self, what: &str) {
        let mut done = self.done();
        done.sort_unstable();
        let mean = done.iter().sum::<u64>() / N as u64;
        assert!(mean >= 8, "{what}: too few to say anything: {mean} each");
        assert!(done[0] >= mean / 2, "{what}: {} to {}, mean {mean}", done[0], done[N - 1]);
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pause {
    /// Transactions that never wait, in a loop that never does.
    Never,
    /// Ready again at once, and so always before those who wait for a turn.
    Yield,
    /// For less time than it takes the others to have a transaction each.
    Sleep,
}

#[scenario]
async fn taking_turns(turns: &'static Turns<1_000>, pause: Pause) {
    let index = turns.begin();
    loop {
        work(Duration::ZERO).await;
        turns.count(index);
        match pause {
            Pause::Never => {}
            Pause::Yield => futures_lite::future::yield_now().await,
            Pause::Sleep => balter_uring::time::sleep(Duration::from_micros(20)).await,
        }
    }
}

#[test]
fn of_a_thousand_instances_none_is_left_behind() {
    static TURNS: [Turns<1_000>; 3] = [const { Turns::new() }; 3];
    for (turns, pause) in TURNS.iter().zip([Pause::Never, Pause::Yield, Pause::Sleep]) {
        let run = taking_turns(turns, pause).concurrency(1_000).cores([0]);
        let statistics = wait(run.duration(Duration::from_millis(2_500)));
        assert_adds_up(&statistics);
        assert_eq!(statistics.counts.failed + statistics.counts.cancelled, 0, "{statistics}");
        turns.assert_fair(&format!("{pause:?}"));
    }
}

/// Instances are what have turns, however many a run has: but none of those who never wait may keep
/// the slice from many who do.
#[test]
fn a_run_that_never_waits_leaves_turns_to_one_of_many_instances() {
    static TURNS: Turns<1_000> = Turns::new();
    let length = Duration::from_millis(2_500);
    let many = taking_turns(&TURNS, Pause::Yield).concurrency(1_000).cores([0]).duration(length);
    let greedy = worker(Duration::ZERO).concurrency(1).cores([0]).duration(length);
    let (many, greedy) = wait(futures_lite::future::zip(many, greedy));
    assert_adds_up(&many);
    assert_adds_up(&greedy);
    TURNS.assert_fair("beside one that never waits");
    let (many, greedy) = (many.counts.started, greedy.counts.started);
    assert!(many > greedy / 50 && greedy > many / 1_000, "{many} and {greedy}");
}

/// Transactions that wait for a turn and are dropped, kept or leaked. None of them is counted, and
/// none stands in the others' way, in this run or the next.
#[test]
fn who_waits_for_a_turn_may_give_up() {
    #[scenario]
    async fn giving_up(done: &'static AtomicU64) {
        let mut kept = Vec::new();
        for round in 0_u64.. {
            let mut waiting = Box::pin(work(Duration::ZERO));
            if futures_lite::future::poll_once(&mut waiting).await.is_none() {
                match round % 4 {
                    0 => {
                        drop(waiting);
                        continue;
                    }
                    1 if kept.len() < 100 => {
                        kept.push(waiting);
                        continue;
                    }
                    2 => {
                        std::mem::forget(waiting);
                        continue;
                    }
                    _ => waiting.await,
                }
            }
            done.fetch_add(1, Ordering::Relaxed);
            // It is ready again whether it is its turn or not.
            futures_lite::future::yield_now().await;
        }
    }
    for _ in 0..2 {
        static DONE: AtomicU64 = AtomicU64::new(0);
        DONE.store(0, Ordering::Relaxed);
        let run = giving_up(&DONE).concurrency(64).cores([0]);
        let statistics = wait(run.duration(Duration::from_millis(500)));
        assert_adds_up(&statistics);
        assert_eq!(statistics.counts.cancelled, 0, "{statistics}");
        assert!(statistics.counts.succeeded >= DONE.load(Ordering::Relaxed), "{statistics}");
        assert!(DONE.load(Ordering::Relaxed) > 500, "{statistics}");
    }
    // Nothing is left that would keep the shard awake or make others wait.
    let statistics =
        wait(worker(Duration::ZERO).tps(200).cores([0]).duration(Duration::from_millis(500)));
    assert_adds_up(&statistics);
    support::assert_all_well(&statistics, 100);
}

#[test]
fn transactions_outside_of_a_scenario_just_run() {
    futures_lite::future::block_on(work(Duration::ZERO));
}

#[test]
fn tasks_and_sleeps_outside_of_a_scenario_are_refused() {
    assert!(catch_unwind(|| drop(balter_uring::spawn(async {}))).is_err());
    let sleep = || futures_lite::future::block_on(balter_uring::time::sleep(Duration::ZERO));
    assert!(catch_unwind(sleep).is_err());
}

#[test]
fn nonsense_is_refused_where_it_is_said() {
    let refused = |what: &str, build: fn(Scenario) -> Scenario| {
        let built = catch_unwind(|| drop(build(worker(Duration::ZERO))));
        assert!(built.is_err(), "{what} was taken");
    };
    refused("a rate of zero", |run| run.tps(0));
    refused("a concurrency of zero", |run| run.concurrency(0));
    refused("a highest concurrency of zero", |run| run.max_concurrency(0));
    refused("a timeout of zero", |run| run.timeout(Duration::ZERO));
    refused("a hint of no instances", |run| run.hint(Hint::Concurrency(0)));
    refused("a hint of no rate", |run| run.hint(Hint::Tps(0)));
    for gain in [f64::NAN, f64::INFINITY, 0.0, -1.0] {
        let hinted = catch_unwind(|| worker(Duration::ZERO).hint(Hint::LatencyController(gain)));
        assert!(hinted.is_err(), "a gain of {gain} was taken");
    }
}

#[test]
fn extremes_are_taken() {
    let run = worker(Duration::ZERO)
        .tps(100)
        .timeout(Duration::MAX)
        .grace(Duration::MAX)
        .max_concurrency(usize::MAX)
        .duration(Duration::from_millis(300));
    let statistics = wait(run);
    assert_adds_up(&statistics);
    support::assert_all_well(&statistics, 30);
    // No grace at all.
    let run = worker(Duration::from_millis(50)).concurrency(2).grace(Duration::ZERO);
    let statistics = wait(run.duration(Duration::from_millis(125)));
    assert_adds_up(&statistics);
    assert_eq!(statistics.counts.cancelled, 2, "{statistics}");
    // A duration that overflows any clock.
    let mut run = Box::pin(worker(Duration::ZERO).tps(1_000).duration(Duration::MAX));
    let begun = futures_lite::future::block_on(futures_lite::future::poll_once(&mut run));
    assert!(begun.is_none());
    std::thread::sleep(Duration::from_millis(100));
}

#[test]
fn a_scenario_of_which_nothing_is_asked_is_not_run() {
    static BEGUN: AtomicU64 = AtomicU64::new(0);
    #[scenario]
    async fn unasked() {
        BEGUN.fetch_add(1, Ordering::SeqCst);
    }
    for run in [unasked(), unasked().duration(Duration::from_secs(3_600)), unasked().cores([999])] {
        let statistics = futures_lite::future::block_on(futures_lite::future::poll_once(run));
        let statistics = statistics.expect("at once, at its first poll");
        assert_eq!(statistics.counts.planned, 0);
        assert_eq!(statistics.verdict, Some(Verdict::NothingAsked));
        assert_eq!((&*statistics.scenario, &statistics.error), ("unasked", &None));
        assert!(!statistics.tps_limited);
    }
    let run = futures_lite::future::block_on(unasked().run()).expect("nothing can go wrong");
    assert_eq!(run.actual_tps, 0.0);
    assert_eq!(BEGUN.load(Ordering::SeqCst), 0);
}

#[test]
fn the_trait_of_balter_configures_the_same_run() {
    fn generic<S: ConfigurableScenario<RunStatistics>>(scenario: S) -> S {
        scenario.tps(200).hint(Hint::Concurrency(3)).duration(Duration::from_millis(500))
    }
    let statistics = wait(generic(worker(Duration::ZERO)));
    assert_adds_up(&statistics);
    support::assert_all_well(&statistics, 100);
}
