//! The schedule: exact counts, even spacing, and what happens when the rate
//! changes, the target stalls, or the generator itself stands still.

use balter_controllers::{Arrival, Pacer, PacerConfig, Permit, Ticks, Timetable};
use proptest::prelude::*;

const SECOND: u64 = 1_000_000_000;
const MS: u64 = 1_000_000;

/// Nothing is dropped, and pauses are made up for.
fn config() -> PacerConfig {
    PacerConfig {
        arrival: Arrival::Constant,
        sequence: 0,
        max_backlog: usize::MAX,
        max_backlog_age_ns: u64::MAX,
        max_late_ns: u64::MAX,
    }
}

/// The whole rate for one shard.
fn whole(from_ns: u64, tps: u32) -> Ticks {
    Timetable::new(from_ns, tps).ticks(0, 1)
}

fn single(tps: u32) -> Pacer {
    Pacer::new(config(), whole(0, tps), u64::MAX)
}

/// Goes on at another rate, as a shard that has the whole of it is told.
fn set_rate(pacer: &mut Pacer, timetable: &mut Timetable, now_ns: u64, tps: u32) {
    timetable.change(now_ns, tps);
    pacer.follow(now_ns, timetable.ticks(0, 1));
}

fn drain(pacer: &mut Pacer) -> Vec<u64> {
    std::iter::from_fn(|| pacer.take()).map(|permit| permit.intended_ns).collect()
}

/// Turns often enough up to this time for nothing to be late.
fn advance(pacer: &mut Pacer, from_ns: u64, until_ns: u64) {
    let mut now_ns = from_ns;
    while now_ns < until_ns {
        pacer.advance(now_ns);
        now_ns += 5 * MS;
    }
    pacer.advance(until_ns);
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

    /// Rates whose interval is no whole number of nanoseconds included, and rates below the number
    /// of shards.
    #[test]
    fn whole_seconds_hold_exactly_the_rate_over_all_shards(
        tps in prop_oneof![1..20u32, 1..30_000u32],
        parts in 1..20u32,
        seconds in 1..4u64,
        start in 0..u64::MAX / 2,
        step in 1..10u64,
    ) {
        let end = start + seconds * SECOND;
        let mut planned = 0;
        for part in 0..parts {
            let ticks = Timetable::new(start, tps).ticks(part, parts);
            let mut pacer = Pacer::new(config(), ticks, end);
            let permits = run(&mut pacer, start, end, step * MS);
            prop_assert!(permits.iter().all(|&due| (start..end).contains(&due)));
            prop_assert!(permits.is_sorted());
            prop_assert_eq!(permits.len() as u64, pacer.counts().planned);
            prop_assert_eq!(pacer.next_due_ns(), None, "nothing is due at the end or later");
            planned += pacer.counts().planned;
        }
        prop_assert_eq!(planned, u64::from(tps) * seconds);
    }

    /// Skipping is a calculation; it has to count what stepping counts.
    #[test]
    fn a_skipped_pause_counts_every_permit_and_the_grid_goes_on(
        tps in prop_oneof![1..50u32, 1..200_000u32],
        part in 0..7u32,
        before in 0..2 * SECOND,
        pause in 200 * MS..3 * SECOND,
    ) {
        let ticks = Timetable::new(0, tps).ticks(part, 7);
        let mut skipping =
            Pacer::new(PacerConfig { max_late_ns: 100 * MS, ..config() }, ticks, u64::MAX);
        let mut stepping = Pacer::new(config(), ticks, u64::MAX);
        advance(&mut skipping, 0, before);
        advance(&mut stepping, 0, before + pause);
        let mut now = before + pause;
        let taken = drain(&mut skipping).len();
        skipping.advance(now);
        // What may still be made up for has to be, before the two stand at the same place.
        while skipping.next_due_ns().is_some_and(|due| due <= now) {
            now += 5 * MS;
            skipping.advance(now);
        }
        advance(&mut stepping, before + pause, now);
        prop_assert_eq!(skipping.counts().planned, stepping.counts().planned);
        prop_assert_eq!(skipping.next_due_ns(), stepping.next_due_ns());
        let counts = skipping.counts();
        let made_up_for = drain(&mut skipping);
        prop_assert_eq!(taken as u64 + made_up_for.len() as u64 + counts.missed, counts.planned);
        prop_assert_eq!(counts.missed, counts.stalled, "all of it is the generator's doing");
        let late = before + pause - 100 * MS;
        prop_assert!(made_up_for.iter().all(|&due| due >= late), "nor is anything older released");
    }
}

/// The table of the issue that asked for it: due times over all shards, before and after a change
/// of the rate that the shards hear of at different times.
#[test]
fn all_shards_together_are_evenly_spaced_before_and_after_a_change() {
    const RATES: [u32; 6] = [1, 3, 7, 10, 100, 1_001];
    for parts in [1, 2, 64] {
        for (before, after) in RATES.iter().flat_map(|&one| RATES.map(|other| (one, other))) {
            let mut whole = Timetable::new(0, before);
            let change_ns = 3 * SECOND + 333_333_333;
            let takes_part = |tps: u32| parts.min(tps);
            let first = whole;
            whole.change(change_ns, after);
            let (mut early, mut late) = (Vec::new(), Vec::new());
            for part in 0..parts {
                let ticks = |table: &Timetable| match part < takes_part(table.tps()) {
                    true => table.ticks(part, takes_part(table.tps())),
                    false => Ticks::none(table.from_ns()),
                };
                let mut pacer = Pacer::new(config(), ticks(&first), u64::MAX);
                // Told 5 ms ahead, give or take.
                let told_ns = change_ns - 5 * MS + u64::from(part) * 70_000;
                advance(&mut pacer, 0, told_ns);
                early.append(&mut drain(&mut pacer));
                pacer.follow(told_ns, ticks(&whole));
                advance(&mut pacer, told_ns, change_ns + 4 * SECOND);
                for due in drain(&mut pacer) {
                    if due < change_ns { early.push(due) } else { late.push(due) }
                }
            }
            early.sort_unstable();
            late.sort_unstable();
            let case = format!("{before} to {after} a second on {parts} shards");
            for (union, rate) in [(&early, before), (&late, after)] {
                let even = SECOND as f64 / f64::from(rate);
                for pair in union.windows(2) {
                    let gap = (pair[1] - pair[0]) as f64;
                    assert!((0.99 * even..=1.01 * even).contains(&gap), "{case}: {gap} ns");
                }
            }
            let slower = SECOND as f64 / f64::from(before.min(after));
            let (Some(last), Some(first)) = (early.last(), late.first()) else {
                panic!("{case}: nothing was due")
            };
            assert!((first - last) as f64 <= 1.01 * slower, "{case}: {}", first - last);
        }
    }
}

#[derive(Clone, Debug)]
enum Op {
    Advance(i64),
    Take(usize),
    PutBack(usize),
    Rate(u32, u64),
    Finish,
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let rate = prop_oneof![Just(0), 1..100u32, 1..50_000u32];
    let op = prop_oneof![
        4 => (0..30_000_000i64).prop_map(Op::Advance),
        1 => (-2_000_000_000..2_000_000_000i64).prop_map(Op::Advance),
        4 => (0..200usize).prop_map(Op::Take),
        2 => (0..5usize).prop_map(Op::PutBack),
        2 => (rate, 0..10 * MS).prop_map(|(tps, ahead)| Op::Rate(tps, ahead)),
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
        let config = PacerConfig {
            arrival: seed.map_or(Arrival::Constant, |seed| Arrival::Poisson { seed }),
            sequence: 1,
            max_backlog,
            max_backlog_age_ns: max_age,
            max_late_ns: 100 * MS,
        };
        let mut table = Timetable::new(0, 3_000);
        let mut pacer = Pacer::new(config, table.ticks(1, 3), end);
        let (mut now, mut latest, mut finished) = (0u64, 0u64, false);
        let mut out: Vec<Permit> = Vec::new();
        for op in ops {
            match op {
                Op::Advance(by) => {
                    now = now.saturating_add_signed(by);
                    let before = (pacer.counts(), pacer.backlog());
                    let caught_up = pacer.next_due_ns().is_none_or(|due| due > latest);
                    pacer.advance(now);
                    if now < latest && caught_up {
                        prop_assert_eq!(before, (pacer.counts(), pacer.backlog()));
                    }
                    latest = latest.max(now);
                    let oldest = pacer.oldest_due().map_or(u64::MAX, |permit| permit.intended_ns);
                    prop_assert!(oldest >= latest.saturating_sub(max_age), "over age");
                    let next = pacer.next_due_ns().unwrap_or(u64::MAX);
                    prop_assert!(next >= latest.saturating_sub(100 * MS), "late beyond the bound");
                }
                Op::Take(n) => {
                    let permits: Vec<_> = std::iter::from_fn(|| pacer.take()).take(n).collect();
                    prop_assert!(permits.is_sorted_by_key(|permit| permit.intended_ns));
                    for permit in &permits {
                        prop_assert!(permit.intended_ns <= permit.released_ns);
                        prop_assert!(permit.released_ns <= latest && permit.intended_ns < end);
                    }
                    prop_assert!(!finished || permits.is_empty());
                    out.extend(permits);
                }
                Op::PutBack(n) => {
                    for permit in out.split_off(out.len().saturating_sub(n)) {
                        pacer.put_back(permit);
                    }
                }
                Op::Rate(tps, ahead) => {
                    let lowered = tps < table.tps();
                    table.change(now.max(latest) + ahead, tps);
                    pacer.follow(now, table.ticks(1, 3));
                    latest = latest.max(now);
                    prop_assert!(!lowered || pacer.backlog() == 0);
                }
                Op::Finish => {
                    pacer.finish(now);
                    finished = true;
                }
            }
            let counts = pacer.counts();
            prop_assert_eq!(
                counts.planned,
                out.len() as u64 + counts.missed + pacer.backlog() as u64
            );
            prop_assert!(counts.stalled <= counts.missed);
            prop_assert!(pacer.backlog() <= max_backlog.max(1));
            if finished {
                prop_assert_eq!(pacer.backlog(), 0);
                prop_assert_eq!(pacer.next_due_ns(), None);
            }
        }
    }
}

proptest! {
    /// Of two equal pacers one is asked in one call, the other in two. Neither drops anything: what
    /// `advance` drops of the backlog, `take_due` leaves to it.
    #[test]
    fn taking_what_is_due_is_advancing_and_taking(
        tps in 0..2_000_000u32,
        poisson: bool,
        steps in prop::collection::vec((0..2_000_000u64, 0..3usize), 1..200),
    ) {
        let arrival = if poisson { Arrival::Poisson { seed: 7 } } else { Arrival::Constant };
        let config = PacerConfig { arrival, ..config() };
        let (mut one, mut two) = (
            Pacer::new(config.clone(), whole(0, tps), SECOND / 10),
            Pacer::new(config, whole(0, tps), SECOND / 10),
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
                let (one, two) = (one.take_due(now_ns), two.take());
                prop_assert_eq!(one.map(|one| one.intended_ns), two.map(|two| two.intended_ns));
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
    let mut pacer = single(1_000);
    let mut all = Vec::new();
    let forth = (0..=3_000).chain(2_000..=4_000);
    for ms in forth {
        pacer.advance(ms * MS);
        all.append(&mut drain(&mut pacer));
    }
    assert_eq!(all, (0..=4_000).map(|ms| ms * MS).collect::<Vec<_>>());
}

#[test]
fn a_slow_schedule_is_not_taken_for_a_pause() {
    let config = PacerConfig { max_late_ns: 100 * MS, ..config() };
    let mut pacer = Pacer::new(config, whole(0, 1), u64::MAX);
    let permits = run(&mut pacer, 0, 5 * SECOND, 50 * MS);
    assert_eq!(permits, [0, 1, 2, 3, 4, 5].map(|s| s * SECOND));
    assert_eq!(pacer.counts().missed, 0);
}

#[test]
fn a_long_pause_of_the_generator_is_missed_but_for_its_end() {
    for arrival in [Arrival::Constant, Arrival::Poisson { seed: 7 }] {
        let config = PacerConfig { arrival, max_late_ns: 100 * MS, ..config() };
        let mut pacer = Pacer::new(config, whole(0, 10_000), u64::MAX);
        let before = run(&mut pacer, 0, SECOND, MS).len() as u64;
        pacer.advance(4 * SECOND);
        let counts = pacer.counts();
        // Six standard deviations of a Poisson count of 29 000.
        assert!(counts.stalled.abs_diff(29_000) < 1_030, "{counts:?}");
        assert_eq!(counts.planned, before + counts.missed + pacer.backlog() as u64);
        assert_eq!(counts.missed, counts.stalled);
    }
}

/// Regression: after 0.9 s at 50 000 a second 45 000 permits were released at once.
#[test]
fn what_a_pause_left_is_made_up_for_at_twice_the_rate() {
    let config = PacerConfig { max_late_ns: 250 * MS, ..config() };
    let mut pacer = Pacer::new(config, whole(0, 50_000), u64::MAX);
    run(&mut pacer, 0, SECOND, MS);
    let mut now_ns = SECOND + 900 * MS;
    pacer.advance(now_ns);
    let at_once = drain(&mut pacer).len();
    assert!(at_once <= 1_001, "{at_once} at once: more than 20 ms of the rate");
    let stalled = pacer.counts().stalled;
    assert!(stalled.abs_diff(32_500) <= 2, "{stalled}");
    // Whatever the turns are like: 1 µs, or several milliseconds.
    let (mut released, begun_ns) = (at_once, now_ns);
    while pacer.next_due_ns().is_some_and(|due| due <= now_ns) {
        now_ns += if now_ns.is_multiple_of(2) { 1_000 } else { 4 * MS } + now_ns % 7;
        pacer.advance(now_ns);
        let late = drain(&mut pacer);
        released += late.len();
        let most = 100_000.0 * (now_ns - begun_ns) as f64 / 1e9 + at_once as f64 + 2.0;
        assert!(released as f64 <= most + 500.0, "{released} after {} ns", now_ns - begun_ns);
        assert!(now_ns < begun_ns + 400 * MS, "it never catches up");
    }
    assert!(now_ns > begun_ns + 150 * MS, "at {now_ns}: faster than twice the rate");
    let counts = pacer.counts();
    assert_eq!((counts.missed, counts.stalled), (stalled, stalled), "and nothing more is missed");
}

#[test]
fn a_shard_that_turns_seldom_keeps_its_rate() {
    // 15 ms a turn, on a machine that is busy with other things.
    let config = PacerConfig { max_late_ns: 250 * MS, ..config() };
    let mut pacer = Pacer::new(config, whole(0, 1_000), u64::MAX);
    let permits = run(&mut pacer, 0, 3 * SECOND, 15 * MS);
    assert_eq!((permits.len(), pacer.counts().missed), (3_001, 0));
}

#[test]
fn a_permit_says_when_it_was_released() {
    let mut pacer = single(1_000);
    pacer.advance(0);
    pacer.advance(9 * MS);
    let permits: Vec<_> = std::iter::from_fn(|| pacer.take()).collect();
    assert_eq!(permits[0], Permit { intended_ns: 0, released_ns: 0 });
    assert!(permits[1..].iter().all(|permit| permit.released_ns == 9 * MS));
    let taken = pacer.take_due(10 * MS + 7);
    assert_eq!(taken, Some(Permit { intended_ns: 10 * MS, released_ns: 10 * MS + 7 }));
}

#[test]
fn a_pause_beyond_the_end_misses_only_what_was_due_before_it() {
    let config = PacerConfig { max_late_ns: 100 * MS, ..config() };
    let mut pacer = Pacer::new(config, whole(0, 1_000), 2 * SECOND);
    run(&mut pacer, 0, SECOND, MS);
    pacer.advance(9 * SECOND);
    assert_eq!(pacer.counts().planned, 2_000);
    assert_eq!(pacer.counts().missed, 999);
    assert_eq!(pacer.next_due_ns(), None);
}

/// What was not released when the schedule ends was due all the same.
#[test]
fn an_end_in_the_middle_of_a_pause_counts_what_was_due() {
    let mut pacer = Pacer::new(config(), whole(0, 1_000), SECOND);
    advance(&mut pacer, 0, SECOND / 2);
    pacer.advance(2 * SECOND);
    assert!(pacer.backlog() < 600, "{}", pacer.backlog());
    pacer.finish(2 * SECOND);
    let counts = pacer.counts();
    assert_eq!((counts.planned, counts.missed, pacer.backlog()), (1_000, 1_000, 0));
}

#[test]
fn a_stalled_target_leaves_the_permits_with_their_intended_starts() {
    let config = PacerConfig { max_late_ns: 10 * MS, ..config() };
    let mut pacer = Pacer::new(config, whole(0, 1_000), u64::MAX);
    for ms in 0..5_000 {
        pacer.advance(ms * MS);
    }
    assert_eq!(pacer.oldest_due().map(|permit| permit.intended_ns), Some(0));
    assert_eq!(drain(&mut pacer), (0..5_000).map(|ms| ms * MS).collect::<Vec<_>>());
    assert_eq!(pacer.counts().missed, 0);
}

#[test]
fn the_backlog_drops_its_oldest_by_number_and_by_age() {
    let few = PacerConfig { max_backlog: 10, ..config() };
    let mut by_number = Pacer::new(few, whole(0, 1_000), u64::MAX);
    advance(&mut by_number, 0, 99 * MS);
    assert_eq!(drain(&mut by_number), (90..100).map(|ms| ms * MS).collect::<Vec<_>>());
    assert_eq!(by_number.counts().missed, 90);

    let young = PacerConfig { max_backlog_age_ns: 5 * MS, ..config() };
    let mut by_age = Pacer::new(young, whole(0, 1_000), 50 * MS);
    advance(&mut by_age, 0, 49 * MS);
    let oldest = |pacer: &Pacer| pacer.oldest_due().map(|permit| permit.intended_ns);
    assert_eq!(oldest(&by_age), Some(44 * MS));
    // Nothing becomes due any more; age alone has to wake the pacer.
    by_age.advance(53 * MS);
    assert_eq!(oldest(&by_age), Some(48 * MS));
    by_age.advance(60 * MS);
    assert_eq!(by_age.backlog(), 0);
    let counts = by_age.counts();
    assert_eq!((counts.missed, counts.stalled), (50, 0), "no instance took them");
}

#[test]
fn a_permit_put_back_is_the_next_one_taken() {
    let mut pacer = single(1_000);
    pacer.advance(3 * MS);
    let (first, second) = (pacer.take().unwrap(), pacer.take().unwrap());
    pacer.put_back(first);
    pacer.put_back(second);
    assert_eq!(drain(&mut pacer), [0, MS, 2 * MS, 3 * MS]);

    pacer.finish(3 * MS);
    pacer.put_back(second);
    assert_eq!((pacer.backlog(), pacer.counts().missed), (0, 1));

    let mut untouched = single(1_000);
    untouched.put_back(first);
    assert_eq!(untouched.backlog(), 0, "a permit that never was is not made");
}

#[test]
fn lowering_drops_the_overdue_and_neither_bursts_nor_winds_up() {
    let (mut pacer, mut table) = (single(1_000), Timetable::new(0, 1_000));
    advance(&mut pacer, 0, SECOND);
    set_rate(&mut pacer, &mut table, SECOND, 10);
    assert_eq!(pacer.backlog(), 0);
    assert_eq!(pacer.counts().missed, 1_001);
    let after = run(&mut pacer, SECOND, 3 * SECOND, MS);
    assert_eq!(after.len(), 20);
    assert!(after[0] > SECOND && after[0] <= SECOND + 100 * MS);
}

#[test]
fn raising_keeps_the_backlog_and_leaves_neither_gap_nor_burst() {
    let (mut pacer, mut table) = (single(1), Timetable::new(0, 1));
    pacer.advance(300 * MS);
    set_rate(&mut pacer, &mut table, 300 * MS, 1_000);
    assert_eq!(pacer.backlog(), 1, "what was due stays due");
    advance(&mut pacer, 300 * MS, SECOND + 300 * MS);
    let permits = drain(&mut pacer);
    assert!(permits[1] > 300 * MS && permits[1] <= 301 * MS, "{}", permits[1]);
    assert_eq!(permits.len(), 1 + 1_000);
    assert!(permits[1..].windows(2).all(|pair| (pair[1] - pair[0]).abs_diff(MS) <= 1));
}

/// A ramp in many small steps plans the area under it: nothing is lost or won at
/// the changes.
#[test]
fn many_changes_of_rate_plan_the_integral_of_the_rate() {
    let (mut pacer, mut table) = (single(1_000), Timetable::new(0, 1_000));
    let mut area = 0.0;
    for step in 0..2_000u64 {
        let tps = 1_000 + step as u32 * 10;
        set_rate(&mut pacer, &mut table, step * 5 * MS, tps);
        area += f64::from(tps) * 0.005;
        pacer.advance((step + 1) * 5 * MS - 1);
        drain(&mut pacer);
    }
    assert!((pacer.counts().planned as f64 - area).abs() <= 2.0);
}

#[test]
fn rate_zero_releases_nothing_until_it_is_raised() {
    for arrival in [Arrival::Constant, Arrival::Poisson { seed: 3 }] {
        let mut table = Timetable::new(0, 0);
        let config = PacerConfig { arrival, ..config() };
        let mut pacer = Pacer::new(config, table.ticks(0, 1), u64::MAX);
        assert_eq!(pacer.next_due_ns(), None);
        pacer.advance(SECOND);
        set_rate(&mut pacer, &mut table, SECOND, 1_000);
        advance(&mut pacer, SECOND, 2 * SECOND - 1);
        let planned = pacer.counts().planned;
        assert!(planned.abs_diff(1_000) < 200, "{planned}");
        assert!(drain(&mut pacer)[0] >= SECOND);
        set_rate(&mut pacer, &mut table, 2 * SECOND, 0);
        pacer.advance(10 * SECOND);
        assert_eq!((pacer.next_due_ns(), pacer.backlog()), (None, 0));
    }
}

#[test]
fn the_same_ticks_again_change_nothing() {
    let mut pacer = single(3);
    pacer.advance(100 * MS);
    for ms in 100..300 {
        pacer.follow(ms * MS, whole(0, 3));
    }
    assert_eq!(pacer.next_due_ns(), Some(SECOND / 3));
    assert_eq!(pacer.backlog(), 1);
}

/// A change is told ahead, so that all shards make it at the same moment.
#[test]
fn a_change_that_was_told_ahead_waits_for_its_time() {
    let (mut pacer, mut table) = (single(100), Timetable::new(0, 100));
    advance(&mut pacer, 0, 95 * MS);
    table.change(120 * MS, 1_000);
    pacer.follow(95 * MS, table.ticks(0, 1));
    assert_eq!(pacer.next_due_ns(), Some(100 * MS), "of the old rate");
    advance(&mut pacer, 95 * MS, 200 * MS);
    let after: Vec<_> = drain(&mut pacer).into_iter().filter(|&due| due > 95 * MS).collect();
    let expected: Vec<_> = [100, 110].into_iter().chain(120..=200).map(|ms| ms * MS).collect();
    assert_eq!(after.len(), expected.len(), "{after:?}");
    assert!(after.iter().zip(expected).all(|(due, expected)| due.abs_diff(expected) <= 1));
}

#[test]
fn a_raise_wakes_a_schedule_too_slow_to_reach_its_end() {
    let mut table = Timetable::new(0, 1);
    let mut pacer = Pacer::new(config(), table.ticks(9, 10), SECOND / 2);
    assert_eq!(pacer.next_due_ns(), None);
    table.change(0, 10_000);
    pacer.follow(0, table.ticks(9, 10));
    advance(&mut pacer, 0, SECOND);
    assert_eq!(pacer.counts().planned, 500);
}

#[test]
fn ten_hours_at_an_awkward_rate_do_not_drift() {
    const TPS: u32 = 799_999;
    let hours = 36_000 * SECOND;
    let start = 123_456_789;
    let config = PacerConfig { max_late_ns: 0, ..config() };
    let mut pacer = Pacer::new(config, Timetable::new(start, TPS).ticks(3, 8), u64::MAX);
    let mut now = start;
    while now < start + hours {
        now += 977 * MS;
        pacer.advance(now);
        // The permit that follows is number `planned`, tick `3 + 8 planned`; its time in integers.
        let k = u128::from(pacer.counts().planned);
        let exact = (k * 8 + 3) * u128::from(SECOND) / u128::from(TPS);
        let due = pacer.next_due_ns().unwrap() - start;
        assert!((i128::from(due) - exact as i128).abs() <= 1, "{due} is not {exact}");
    }
    assert!(pacer.counts().planned > 3_599_000_000);
}

#[test]
fn poisson_gaps_have_the_mean_and_the_spread_of_the_process() {
    let arrival = Arrival::Poisson { seed: 42 };
    let mut pacer = Pacer::new(PacerConfig { arrival, ..config() }, whole(0, 5_000), u64::MAX);
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
        let arrival = Arrival::Poisson { seed };
        let config = PacerConfig { arrival, sequence: part, ..config() };
        let mut pacer = Pacer::new(config, Timetable::new(0, 4_000).ticks(part, 4), u64::MAX);
        run(&mut pacer, 0, SECOND, MS)
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
    let mut table = Timetable::new(0, 100);
    let mut pacer = Pacer::new(PacerConfig { arrival, ..config() }, table.ticks(0, 1), u64::MAX);
    // Alternating every millisecond between 100 and 1 900 is 1 000 on average.
    for ms in 0..60_000 {
        pacer.advance(ms * MS);
        drain(&mut pacer);
        set_rate(&mut pacer, &mut table, ms * MS, if ms % 2 == 0 { 1_900 } else { 100 });
    }
    let planned = pacer.counts().planned;
    assert!(planned.abs_diff(60_000) < 1_500, "{planned}");
}

proptest! {
    /// Every missed permit is told once, with a wait that is no longer than it was, and as a rule little
    /// shorter.
    #[test]
    fn how_long_missed_permits_had_waited_is_told(
        max_backlog in 1..50usize,
        max_age_ns in 10 * MS..SECOND,
        steps in prop::collection::vec((1..50 * MS, 0..3usize), 1..100),
    ) {
        let config = PacerConfig { max_backlog, max_backlog_age_ns: max_age_ns, ..config() };
        let mut pacer = Pacer::new(config, whole(0, 1_000), u64::MAX);
        let (mut now_ns, mut told, mut longest_ns) = (0, 0, 0);
        for (step_ns, taken) in steps {
            now_ns += step_ns;
            pacer.advance(now_ns);
            for _ in 0..taken {
                let _ = pacer.take();
            }
            pacer.drain_waited(|waited_ns, count| {
                told += count;
                longest_ns = longest_ns.max(waited_ns);
            });
            prop_assert_eq!(told, pacer.counts().missed);
            prop_assert!(longest_ns <= now_ns);
        }
        let waiting: Vec<_> = pacer.due_from(0).map(|permit| now_ns - permit.intended_ns).collect();
        pacer.finish(now_ns);
        let mut last = Vec::new();
        pacer.drain_waited(|waited_ns, count| {
            last.extend(std::iter::repeat_n(waited_ns, count as usize));
        });
        // What became due while a pause was made up for was not released, and so not in the backlog.
        prop_assert!(last.len() >= waiting.len());
        prop_assert_eq!(told + last.len() as u64, pacer.counts().missed);
        // The longest first, as they stand in the backlog.
        last.reverse();
        for (told_ns, waited_ns) in last.iter().zip(&waiting) {
            prop_assert!(told_ns <= waited_ns, "{} of {}", told_ns, waited_ns);
            prop_assert!(*told_ns as f64 >= *waited_ns as f64 * 0.93, "{} of {}", told_ns, waited_ns);
        }
    }
}
