//! The schedule: exact counts, even spacing, and what happens when the rate
//! changes, the target stalls, or the generator itself stands still.

use balter_controllers::{Arrival, Pacer, PacerConfig, split_evenly};
use proptest::prelude::*;

const SECOND: u64 = 1_000_000_000;
const MS: u64 = 1_000_000;

fn config(part: u32, parts: u32) -> PacerConfig {
    PacerConfig {
        arrival: Arrival::Constant,
        part,
        parts,
        max_backlog: usize::MAX,
        max_backlog_age_ns: u64::MAX,
        max_gap_ns: u64::MAX,
    }
}

fn single() -> PacerConfig {
    config(0, 1)
}

fn drain(pacer: &mut Pacer) -> Vec<u64> {
    std::iter::from_fn(|| pacer.take()).collect()
}

/// All permits up to `end_ns`, advancing in steps.
fn run(pacer: &mut Pacer, from_ns: u64, end_ns: u64, step_ns: u64) -> Vec<u64> {
    let mut all = Vec::new();
    let mut now_ns = from_ns;
    while now_ns < end_ns {
        pacer.advance(now_ns);
        all.append(&mut drain(pacer));
        now_ns += step_ns;
    }
    pacer.advance(end_ns);
    all.append(&mut drain(pacer));
    all
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// Rates whose interval is no whole number of nanoseconds included.
    #[test]
    fn whole_seconds_hold_exactly_the_rate_over_all_shards(
        tps in 1..30_000u32,
        parts in 1..20u32,
        seconds in 1..4u64,
        start in 0..u64::MAX / 2,
        step in 1..50u64,
    ) {
        let end = start + seconds * SECOND;
        let mut planned = 0;
        for (part, share) in (0..parts).zip(split_evenly(u64::from(tps), parts as usize)) {
            let mut pacer = Pacer::new(config(part, parts), start, end, share as u32);
            let permits = run(&mut pacer, start, end, step * MS);
            prop_assert!(permits.iter().all(|&due| (start..end).contains(&due)));
            prop_assert!(permits.is_sorted());
            prop_assert_eq!(permits.len() as u64, pacer.counts().planned);
            prop_assert_eq!(pacer.next_due_ns(), None, "nothing is due at the end or later");
            planned += pacer.counts().planned;
        }
        prop_assert_eq!(planned, u64::from(tps) * seconds);
    }

    /// Skipping a gap is a calculation; it has to count what stepping counts.
    #[test]
    fn a_skipped_gap_counts_every_permit_and_the_grid_goes_on(
        tps in prop_oneof![1..50u32, 1..200_000u32],
        part in 0..7u32,
        before in 0..2 * SECOND,
        gap in 200 * MS..3 * SECOND,
    ) {
        let mut skipping =
            Pacer::new(PacerConfig { max_gap_ns: 100 * MS, ..config(part, 7) }, 0, u64::MAX, tps);
        let mut stepping = Pacer::new(config(part, 7), 0, u64::MAX, tps);
        let mut now = 0;
        while now < before {
            skipping.advance(now);
            now += 50 * MS;
        }
        skipping.advance(before);
        skipping.advance(before + gap);
        stepping.advance(before + gap);
        prop_assert_eq!(skipping.counts().planned, stepping.counts().planned);
        prop_assert_eq!(skipping.next_due_ns(), stepping.next_due_ns());
        prop_assert_eq!(
            skipping.backlog() as u64 + skipping.counts().missed,
            skipping.counts().planned
        );
        prop_assert!(drain(&mut skipping).iter().all(|&due| due <= before), "no burst");
    }

    #[test]
    fn the_union_of_the_shards_is_evenly_spaced(
        share in 1..5_000u32,
        parts in 1..16u32,
        rate_after in 1..5_000u32,
    ) {
        // A common change of rate half-way must not bring the shards into step.
        let mut first = Vec::new();
        let mut second = Vec::new();
        for part in 0..parts {
            let mut pacer = Pacer::new(config(part, parts), 0, u64::MAX, share);
            pacer.advance(SECOND / 2);
            first.append(&mut drain(&mut pacer));
            pacer.set_rate(SECOND / 2, rate_after);
            pacer.advance(SECOND / 2 + 2 * SECOND);
            second.append(&mut drain(&mut pacer));
        }
        for (mut union, rate) in [(first, share), (second, rate_after)] {
            union.sort_unstable();
            let even = SECOND as f64 / f64::from(rate) / f64::from(parts);
            for pair in union.windows(2) {
                prop_assert!(((pair[1] - pair[0]) as f64 - even).abs() <= 1.5);
            }
        }
    }
}

#[derive(Clone, Debug)]
enum Op {
    Advance(i64),
    Take(usize),
    PutBack(usize),
    Rate(u32),
    Finish,
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let op = prop_oneof![
        4 => (0..30_000_000i64).prop_map(Op::Advance),
        1 => (-2_000_000_000..2_000_000_000i64).prop_map(Op::Advance),
        4 => (0..200usize).prop_map(Op::Take),
        2 => (0..5usize).prop_map(Op::PutBack),
        2 => prop_oneof![Just(0), 1..100u32, 1..50_000u32].prop_map(Op::Rate),
    ];
    (prop::collection::vec(op, 1..120), any::<bool>()).prop_map(|(mut ops, finish)| {
        if finish {
            ops.insert(ops.len() * 3 / 4, Op::Finish);
        }
        ops
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// planned = taken + missed + backlog after every step; no permit comes
    /// twice, none before its time, the oldest first.
    #[test]
    fn permits_are_conserved(
        ops in ops(),
        seed in any::<Option<u64>>(),
        max_backlog in 0..500usize,
        max_age in prop_oneof![Just(u64::MAX), 0..SECOND],
        end in prop_oneof![Just(u64::MAX), 0..2 * SECOND],
    ) {
        let cfg = PacerConfig {
            arrival: seed.map_or(Arrival::Constant, |seed| Arrival::Poisson { seed }),
            part: 1,
            parts: 3,
            max_backlog,
            max_backlog_age_ns: max_age,
            max_gap_ns: 100 * MS,
        };
        let mut pacer = Pacer::new(cfg, 0, end, 1_000);
        let (mut now, mut latest, mut finished) = (0u64, 0u64, false);
        let mut out: Vec<u64> = Vec::new();
        for op in ops {
            match op {
                Op::Advance(by) => {
                    now = now.saturating_add_signed(by);
                    let before = (pacer.counts(), pacer.backlog());
                    pacer.advance(now);
                    if now < latest {
                        prop_assert_eq!(before, (pacer.counts(), pacer.backlog()));
                    }
                    latest = latest.max(now);
                    let oldest = pacer.oldest_due_ns().unwrap_or(u64::MAX);
                    prop_assert!(oldest >= latest.saturating_sub(max_age), "over age");
                    prop_assert!(pacer.next_due_ns().is_none_or(|due| due > latest));
                }
                Op::Take(n) => {
                    let permits: Vec<u64> = std::iter::from_fn(|| pacer.take()).take(n).collect();
                    prop_assert!(permits.is_sorted());
                    prop_assert!(permits.iter().all(|&due| due <= latest && due < end));
                    prop_assert!(!finished || permits.is_empty());
                    out.extend(permits);
                }
                Op::PutBack(n) => {
                    for due in out.split_off(out.len().saturating_sub(n)) {
                        pacer.put_back(due);
                    }
                }
                Op::Rate(tps) => {
                    let lowered = tps < pacer.tps();
                    pacer.set_rate(now, tps);
                    latest = latest.max(now);
                    prop_assert!(finished || pacer.tps() == tps);
                    prop_assert!(!lowered || pacer.backlog() == 0);
                }
                Op::Finish => {
                    pacer.finish();
                    finished = true;
                }
            }
            let counts = pacer.counts();
            prop_assert_eq!(
                counts.planned,
                out.len() as u64 + counts.missed + pacer.backlog() as u64
            );
            prop_assert!(pacer.backlog() <= max_backlog.max(1));
            if finished {
                prop_assert_eq!(pacer.backlog(), 0);
                prop_assert_eq!(pacer.next_due_ns(), None);
            }
        }
    }
}

proptest! {
    /// Of two equal pacers one is asked in one call, the other in two. Neither drops anything but
    /// for a gap: what `advance` drops of the backlog, `take_due` leaves to it.
    #[test]
    fn taking_what_is_due_is_advancing_and_taking(
        tps in 0..2_000_000u32,
        poisson: bool,
        steps in prop::collection::vec((0..2_000_000u64, 0..3usize), 1..200),
    ) {
        let arrival = if poisson { Arrival::Poisson { seed: 7 } } else { Arrival::Constant };
        let config = PacerConfig {
            arrival,
            max_gap_ns: 1_500_000,
            ..single()
        };
        let (mut one, mut two) = (
            Pacer::new(config.clone(), 0, SECOND / 10, tps),
            Pacer::new(config, 0, SECOND / 10, tps),
        );
        let mut now_ns = 0;
        for (step_ns, takes) in steps {
            now_ns += step_ns;
            // Once a turn, as a shard does.
            one.advance(now_ns);
            two.advance(now_ns);
            for take in 0..takes {
                now_ns += take as u64 * 100;
                two.advance(now_ns);
                prop_assert_eq!(one.take_due(now_ns), two.take());
            }
            one.advance(now_ns);
            two.advance(now_ns);
            prop_assert_eq!(one.counts(), two.counts());
            prop_assert_eq!(one.backlog(), two.backlog());
            prop_assert_eq!(one.next_due_ns(), two.next_due_ns());
        }
    }
}

#[test]
fn a_clock_that_steps_back_repeats_and_withholds_nothing() {
    let cfg = PacerConfig { max_gap_ns: 100 * MS, ..single() };
    let mut pacer = Pacer::new(cfg, 0, u64::MAX, 1_000);
    let mut all = Vec::new();
    let forth = (0..=3_000).chain(2_000..=4_000);
    for ms in forth {
        pacer.advance(ms * MS);
        all.append(&mut drain(&mut pacer));
    }
    assert_eq!(all, (0..=4_000).map(|ms| ms * MS).collect::<Vec<_>>());
}

#[test]
fn a_slow_schedule_is_not_taken_for_a_gap() {
    let cfg = PacerConfig { max_gap_ns: 100 * MS, ..single() };
    let mut pacer = Pacer::new(cfg, 0, u64::MAX, 1);
    let permits = run(&mut pacer, 0, 5 * SECOND, 50 * MS);
    assert_eq!(permits, [0, 1, 2, 3, 4, 5].map(|s| s * SECOND));
    assert_eq!(pacer.counts().missed, 0);
}

#[test]
fn a_pause_of_the_generator_is_missed_and_makes_no_burst() {
    for arrival in [Arrival::Constant, Arrival::Poisson { seed: 7 }] {
        let cfg = PacerConfig { arrival, max_gap_ns: 100 * MS, ..single() };
        let mut pacer = Pacer::new(cfg, 0, u64::MAX, 10_000);
        let before = run(&mut pacer, 0, SECOND, MS).len() as u64;
        pacer.advance(4 * SECOND);
        assert_eq!(pacer.backlog(), 0);
        let missed = pacer.counts().missed;
        // Six standard deviations of a Poisson count of 30 000.
        assert!(missed.abs_diff(30_000) < 1_050, "{missed}");
        assert_eq!(pacer.counts().planned, before + missed);
        let after = run(&mut pacer, 4 * SECOND, 4 * SECOND + 10 * MS, MS);
        assert!((60..=150).contains(&after.len()), "goes on at its rate: {}", after.len());
        assert!(after.iter().all(|&due| due > 4 * SECOND));
    }
}

#[test]
fn a_pause_beyond_the_end_misses_only_what_was_due_before_it() {
    let cfg = PacerConfig { max_gap_ns: 100 * MS, ..single() };
    let mut pacer = Pacer::new(cfg, 0, 2 * SECOND, 1_000);
    run(&mut pacer, 0, SECOND, MS);
    pacer.advance(9 * SECOND);
    assert_eq!(pacer.counts().planned, 2_000);
    assert_eq!(pacer.counts().missed, 999);
    assert_eq!(pacer.next_due_ns(), None);
}

#[test]
fn a_stalled_target_leaves_the_permits_with_their_intended_starts() {
    let mut pacer = Pacer::new(PacerConfig { max_gap_ns: 10 * MS, ..single() }, 0, u64::MAX, 1_000);
    for ms in 0..5_000 {
        pacer.advance(ms * MS);
    }
    assert_eq!(pacer.oldest_due_ns(), Some(0));
    assert_eq!(drain(&mut pacer), (0..5_000).map(|ms| ms * MS).collect::<Vec<_>>());
    assert_eq!(pacer.counts().missed, 0);
}

#[test]
fn the_backlog_drops_its_oldest_by_number_and_by_age() {
    let mut by_number = Pacer::new(PacerConfig { max_backlog: 10, ..single() }, 0, u64::MAX, 1_000);
    by_number.advance(99 * MS);
    assert_eq!(drain(&mut by_number), (90..100).map(|ms| ms * MS).collect::<Vec<_>>());
    assert_eq!(by_number.counts().missed, 90);

    let age = PacerConfig { max_backlog_age_ns: 5 * MS, ..single() };
    let mut by_age = Pacer::new(age, 0, 50 * MS, 1_000);
    by_age.advance(49 * MS);
    assert_eq!(by_age.oldest_due_ns(), Some(44 * MS));
    // Nothing becomes due any more; age alone has to wake the pacer.
    by_age.advance(53 * MS);
    assert_eq!(by_age.oldest_due_ns(), Some(48 * MS));
    by_age.advance(60 * MS);
    assert_eq!(by_age.backlog(), 0);
    assert_eq!(by_age.counts().missed, 50);
}

#[test]
fn a_permit_put_back_is_the_next_one_taken() {
    let mut pacer = Pacer::new(single(), 0, u64::MAX, 1_000);
    pacer.advance(3 * MS);
    let (first, second) = (pacer.take().unwrap(), pacer.take().unwrap());
    pacer.put_back(first);
    pacer.put_back(second);
    assert_eq!(drain(&mut pacer), [0, MS, 2 * MS, 3 * MS]);

    pacer.finish();
    pacer.put_back(3 * MS);
    assert_eq!((pacer.backlog(), pacer.counts().missed), (0, 1));

    let mut untouched = Pacer::new(single(), 0, u64::MAX, 1_000);
    untouched.put_back(5);
    assert_eq!(untouched.backlog(), 0, "a permit that never was is not made");
}

#[test]
fn lowering_drops_the_overdue_and_neither_bursts_nor_winds_up() {
    let mut pacer = Pacer::new(single(), 0, u64::MAX, 1_000);
    pacer.advance(SECOND);
    pacer.set_rate(SECOND, 10);
    assert_eq!(pacer.backlog(), 0);
    assert_eq!(pacer.counts().missed, 1_001);
    let after = run(&mut pacer, SECOND, 3 * SECOND, MS);
    assert_eq!(after.len(), 20);
    assert!(after[0] > SECOND && after[0] <= SECOND + 100 * MS);
}

#[test]
fn raising_keeps_the_backlog_and_leaves_neither_gap_nor_burst() {
    let mut pacer = Pacer::new(single(), 0, u64::MAX, 1);
    pacer.advance(300 * MS);
    pacer.set_rate(300 * MS, 1_000);
    assert_eq!(pacer.backlog(), 1, "what was due stays due");
    pacer.advance(SECOND + 300 * MS);
    let permits = drain(&mut pacer);
    assert!(permits[1] > 300 * MS && permits[1] <= 301 * MS, "{}", permits[1]);
    assert_eq!(permits.len(), 1 + 1_000);
    assert!(permits[1..].windows(2).all(|pair| (pair[1] - pair[0]).abs_diff(MS) <= 1));
}

/// A ramp in many small steps plans the area under it: nothing is lost or won at
/// the changes.
#[test]
fn many_changes_of_rate_plan_the_integral_of_the_rate() {
    let mut pacer = Pacer::new(single(), 0, u64::MAX, 1_000);
    let mut area = 0.0;
    for step in 0..2_000u64 {
        let tps = 1_000 + step as u32 * 10;
        pacer.set_rate(step * 5 * MS, tps);
        area += f64::from(tps) * 0.005;
        pacer.advance((step + 1) * 5 * MS - 1);
        drain(&mut pacer);
    }
    assert!((pacer.counts().planned as f64 - area).abs() <= 2.0);
}

#[test]
fn rate_zero_releases_nothing_until_it_is_raised() {
    for arrival in [Arrival::Constant, Arrival::Poisson { seed: 3 }] {
        let mut pacer = Pacer::new(PacerConfig { arrival, ..single() }, 0, u64::MAX, 0);
        assert_eq!(pacer.next_due_ns(), None);
        pacer.advance(SECOND);
        pacer.set_rate(SECOND, 1_000);
        pacer.advance(2 * SECOND - 1);
        let planned = pacer.counts().planned;
        assert!(planned.abs_diff(1_000) < 200, "{planned}");
        assert!(drain(&mut pacer)[0] >= SECOND);
        pacer.set_rate(2 * SECOND, 0);
        pacer.advance(10 * SECOND);
        assert_eq!((pacer.next_due_ns(), pacer.backlog()), (None, 0));
    }
}

#[test]
fn the_same_rate_again_changes_nothing() {
    let mut pacer = Pacer::new(single(), 0, u64::MAX, 3);
    pacer.advance(100 * MS);
    for ms in 100..1_000 {
        pacer.set_rate(ms * MS, 3);
    }
    assert_eq!(pacer.next_due_ns(), Some(SECOND / 3));
    assert_eq!(pacer.backlog(), 1);
}

#[test]
fn a_raise_wakes_a_schedule_too_slow_to_reach_its_end() {
    let mut pacer = Pacer::new(config(9, 10), 0, SECOND / 2, 1);
    assert_eq!(pacer.next_due_ns(), None);
    pacer.set_rate(0, 1_000);
    pacer.advance(SECOND);
    assert_eq!(pacer.counts().planned, 500);
}

#[test]
fn ten_hours_at_an_awkward_rate_do_not_drift() {
    const TPS: u32 = 99_991;
    let hours = 36_000 * SECOND;
    let start = 123_456_789;
    let cfg = PacerConfig { max_gap_ns: 100 * MS, ..config(3, 8) };
    let mut pacer = Pacer::new(cfg, start, u64::MAX, TPS);
    let mut now = start;
    while now < start + hours {
        now += 977 * MS;
        pacer.advance(now);
        // The permit that follows is number `planned`; its time in integers.
        let k = u128::from(pacer.counts().planned);
        let exact = (k * 8 + 3) * u128::from(SECOND) / (8 * u128::from(TPS));
        let due = pacer.next_due_ns().unwrap() - start;
        assert!((i128::from(due) - exact as i128).abs() <= 1, "{due} is not {exact}");
    }
    assert!(pacer.counts().planned > 3_599_000_000);
}

#[test]
fn poisson_gaps_have_the_mean_and_the_spread_of_the_process() {
    let arrival = Arrival::Poisson { seed: 42 };
    let mut pacer = Pacer::new(PacerConfig { arrival, ..single() }, 0, u64::MAX, 5_000);
    let permits = run(&mut pacer, 0, 20 * SECOND, 10 * MS);
    // 100 000 expected, standard deviation 316.
    assert!(permits.len().abs_diff(100_000) < 1_300, "{}", permits.len());
    let gaps: Vec<f64> = permits.windows(2).map(|pair| (pair[1] - pair[0]) as f64).collect();
    let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
    let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
    assert!((mean / 200_000.0 - 1.0).abs() < 0.015, "{mean}");
    assert!((variance.sqrt() / mean - 1.0).abs() < 0.03, "an exponential's spread is its mean");
    // Counts of disjoint 10 ms: variance equals mean (50).
    let mut counts = vec![0.0f64; 2_000];
    for due in permits.iter().filter(|&&due| due < 20 * SECOND) {
        counts[(due / (10 * MS)) as usize] += 1.0;
    }
    let spread = counts.iter().map(|c| (c - 50.0).powi(2)).sum::<f64>() / 2_000.0;
    assert!((40.0..60.0).contains(&spread), "{spread}");
}

#[test]
fn poisson_is_reproducible_and_differs_by_seed_and_by_shard() {
    let permits = |seed, part| {
        let cfg = PacerConfig { arrival: Arrival::Poisson { seed }, ..config(part, 4) };
        let mut pacer = Pacer::new(cfg, 0, u64::MAX, 1_000);
        pacer.advance(SECOND);
        drain(&mut pacer)
    };
    assert_eq!(permits(1, 0), permits(1, 0));
    for (seed, part) in [(2, 0), (1, 1), (0, 1), (0, 0)] {
        let other = permits(seed, part);
        let shared = permits(1, 0).iter().filter(|due| other.contains(due)).count();
        assert!(shared < 20, "seed {seed} part {part} repeats {shared} permits");
    }
}

#[test]
fn a_poisson_rate_changes_in_the_middle_of_a_gap() {
    let arrival = Arrival::Poisson { seed: 5 };
    let mut pacer = Pacer::new(PacerConfig { arrival, ..single() }, 0, u64::MAX, 100);
    // Alternating every millisecond between 100 and 1 900 is 1 000 on average.
    for ms in 0..60_000 {
        pacer.advance(ms * MS);
        drain(&mut pacer);
        pacer.set_rate(ms * MS, if ms % 2 == 0 { 1_900 } else { 100 });
    }
    let planned = pacer.counts().planned;
    assert!(planned.abs_diff(60_000) < 1_500, "{planned}");
}
