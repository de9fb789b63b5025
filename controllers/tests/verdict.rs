//! Who has how much of what is short, and that each verdict says what it saw.

use balter_controllers::{
    Broken, Cause, Evidence, Limit, Saturation, SearchEnd, SearchEvidence, Shortfall, Verdict,
    distorted, judge,
};
use proptest::prelude::*;

/// A run that completed what it was to, but for what the generator itself failed at.
fn spoilt(change: impl FnOnce(&mut Evidence)) -> Evidence {
    let mut evidence = Evidence { started: 1_000, missed: 0, completed: 1_000, ..short() };
    change(&mut evidence);
    evidence
}

/// Ten seconds at 100 a second of which half was reached, for no reason given.
fn short() -> Evidence {
    Evidence {
        goal_tps: Some(100),
        planned: 1_000,
        started: 500,
        missed: 500,
        completed: 500,
        elapsed_ns: 10_000_000_000,
        busy: 0.2,
        late_p99_ns: 10_000,
        response_p99_ns: 20_000_000,
        instances: 10,
        max_instances: 1_000,
        ..Evidence::default()
    }
}

const SECOND: u64 = 1_000_000_000;

/// What it is, its evidence, the verdict's name, and what is short by cause.
type Case = (&'static str, Evidence, &'static str, Vec<(Cause, u64)>);

/// Runs of ten seconds at 100 a second, with the verdict's name and what is short by cause.
#[test]
fn the_verdict_names_the_largest_share_of_what_is_short() {
    use Cause::*;
    let limit_wait = |target, instances| Evidence {
        instances: 1_000,
        target_wait_ns: target,
        limit_target_wait_ns: target,
        instance_wait_ns: instances,
        limit_instance_wait_ns: instances,
        ..short()
    };
    let saturation = Some(Saturation { throughput: 50.0, concurrency: 8 });
    let cases: Vec<Case> = vec![
        (
            // The queue would have been there without the stolen time too.
            "a slow target, 8 % of the machine stolen",
            Evidence {
                target_wait_ns: 450 * SECOND,
                late_ns: SECOND / 2,
                late_p99_ns: 20_000_000,
                stolen: 0.08,
                taken: 0.08,
                ..short()
            },
            "Target",
            vec![(Target, 499), (Processor, 1)],
        ),
        (
            "half of the machine stolen, a tenth of the wait for the target",
            Evidence {
                stalled: 400,
                target_wait_ns: SECOND,
                late_ns: 9 * SECOND,
                late_p99_ns: 200_000_000,
                stolen: 0.5,
                taken: 0.5,
                busy: 0.95,
                ..short()
            },
            "Processor",
            vec![(Processor, 490), (Target, 10)],
        ),
        (
            "a shard that the scenario blocks, a little of it stolen",
            Evidence {
                stalled: 490,
                late_ns: SECOND,
                late_p99_ns: 200_000_000,
                stolen: 0.06,
                taken: 0.06,
                ..short()
            },
            "Generator",
            vec![(Generator, 468), (Processor, 32)],
        ),
        (
            // Lateness that costs nothing is no cause: that of a timer.
            "a slow target and a generator in time",
            Evidence { target_wait_ns: 1, late_ns: 900 * SECOND, ..short() },
            "Target",
            vec![(Target, 500)],
        ),
        (
            "too few instances for their pauses",
            Evidence { instance_wait_ns: 9 * SECOND, target_wait_ns: SECOND, ..short() },
            "Instances",
            vec![(Instances, 450), (Target, 50)],
        ),
        (
            "no more instances allowed, a slow target",
            limit_wait(SECOND, 0),
            "ConcurrencyLimit",
            vec![(ConcurrencyLimit, 500)],
        ),
        (
            "no more instances allowed, and they pause",
            limit_wait(0, SECOND),
            "ConcurrencyLimit",
            vec![(ConcurrencyLimit, 500)],
        ),
        (
            "no more instances allowed, though the target is saturated by fewer",
            Evidence { saturation, ..limit_wait(SECOND, 0) },
            "Target",
            vec![(Target, 500)],
        ),
        (
            "the limit on instances touched once",
            Evidence {
                instances: 1_000,
                target_wait_ns: 100 * SECOND,
                limit_target_wait_ns: SECOND,
                ..short()
            },
            "Target",
            vec![(Target, 495), (ConcurrencyLimit, 5)],
        ),
        (
            "30 % panic, and what waits meanwhile waits for new instances",
            Evidence {
                started: 900,
                missed: 100,
                completed: 600,
                panics: 300,
                instance_wait_ns: SECOND,
                ..short()
            },
            "Panics",
            vec![(Faults, 400)],
        ),
        (
            "one panic beside a slow target",
            Evidence { panics: 1, completed: 499, target_wait_ns: SECOND, ..short() },
            "Target",
            vec![(Target, 500), (Faults, 1)],
        ),
        (
            "no ports",
            Evidence { started: 1_000, missed: 0, completed: 1_000, ports: 300, ..short() },
            "Ports",
            vec![(Faults, 300)],
        ),
        (
            "a target that serves a third and refuses the rest at once",
            Evidence { started: 1_000, missed: 0, completed: 1_000, failed: 667, ..short() },
            "Failures",
            vec![(Failures, 667)],
        ),
        (
            "a target that serves a third, and times out",
            Evidence {
                started: 900,
                missed: 100,
                completed: 900,
                failed: 567,
                timeouts: 560,
                target_wait_ns: SECOND,
                ..short()
            },
            "Target",
            vec![(Target, 660), (Failures, 7)],
        ),
        (
            "no way to the target for 40 %",
            Evidence {
                started: 950,
                missed: 50,
                completed: 950,
                failed: 410,
                unreachable: 400,
                ..short()
            },
            "Network",
            vec![(Network, 400), (Target, 50), (Failures, 10)],
        ),
        (
            // 1 of 2 shards after 2 s: what was due and under way there, and what was not planned any more.
            "a lost shard",
            Evidence {
                planned: 610,
                started: 600,
                missed: 10,
                completed: 590,
                shards_lost: 1,
                lost_missed: 10,
                lost_cancelled: 9,
                ..short()
            },
            "ShardsLost",
            vec![(Lost, 409), (Target, 1)],
        ),
        (
            "a bit of everything",
            Evidence {
                planned: 1_000,
                started: 700,
                missed: 300,
                completed: 690,
                failed: 40,
                timeouts: 10,
                unreachable: 5,
                descriptors: 3,
                panics: 4,
                stalled: 30,
                target_wait_ns: 6 * SECOND,
                instance_wait_ns: 2 * SECOND,
                limit_target_wait_ns: 2 * SECOND,
                late_ns: SECOND,
                late_p99_ns: 90_000_000,
                taken: 0.02,
                ..short()
            },
            "Target",
            vec![
                // 270 missed, in 4 : 2 : 2 : 1 parts; with 10 timeouts and 6 given up.
                (Target, 136),
                (Instances, 60),
                (ConcurrencyLimit, 60),
                (Generator, 46),
                (Failures, 25),
                (Processor, 14),
                (Faults, 7),
                (Network, 5),
            ],
        ),
    ];
    for (case, evidence, verdict, shares) in cases {
        let shortfall = Shortfall::of(&evidence).expect("less than asked");
        assert_eq!(shortfall.shares, shares, "{case}");
        let sum: u64 = shares.iter().map(|&(_, share)| share).sum();
        assert_eq!(sum, shortfall.asked - shortfall.succeeded, "{case}");
        let judged = judge(&evidence);
        assert!(format!("{judged:?}").starts_with(&format!("{verdict} {{")), "{case}: {judged:?}");
        assert!(judged.tps_limited(), "{case}");
        let shown = shortfall.to_string();
        assert!(shown.lines().all(|line| line.chars().count() <= 80), "{shown}");
        assert_eq!(shown.lines().count(), shares.len() + 1, "{shown}");
    }
}

#[test]
fn nothing_is_short_where_nothing_was_asked_or_all_of_it_succeeded() {
    assert_eq!(Shortfall::of(&Evidence { goal_tps: None, ..short() }), None);
    assert_eq!(Shortfall::of(&Evidence { goal_tps: Some(0), ..short() }), None);
    assert_eq!(Shortfall::of(&Evidence { completed: 1_000, ..short() }), None);
    assert_eq!(Shortfall::of(&Evidence { completed: 1_001, ..short() }), None);
    let one = Shortfall::of(&Evidence { completed: 999, ..short() }).expect("one is short");
    assert_eq!((one.short(), one.largest()), (1, Some(Cause::Target)));
}

#[test]
fn a_target_that_fails_more_than_it_serves_has_not_taken_the_rate() {
    let failing = |failed| judge(&Evidence { completed: 1_000, failed, ..short() });
    assert!(matches!(failing(500), Verdict::GoalReached { .. }));
    assert!(matches!(failing(501), Verdict::Failures { failures: 501, completed: 1_000, .. }));
    // Nearly all is another thing.
    assert!(matches!(failing(995), Verdict::Failing { .. }));
}

#[test]
fn a_generator_that_stands_still_does_not_call_the_target_silent() {
    let still = Evidence { started: 3, missed: 997, completed: 0, stalled: 990, ..short() };
    assert!(matches!(judge(&still), Verdict::Generator { .. }), "{:?}", judge(&still));
}

proptest! {
    /// Whatever is measured, contradictions included.
    #[test]
    fn shares_add_up(
        counts in prop::array::uniform18(0_u64..2_000),
        scale in 0_u32..50,
        waits in prop::array::uniform5(0_u64..u64::MAX / 8),
        taken in prop_oneof![Just(0.0), 0.0..1.0, Just(1.0), Just(f64::NAN), Just(-1.0)],
        is_saturated: bool,
    ) {
        let [goal, planned, started, missed, completed, failed, timeouts, unreachable, stalled, descriptors,
            ports, memory, panics, lost_missed, lost_cancelled, shards_lost, instances, late] =
            counts;
        let [target, instance, limit_target, limit_instance, late_ns] = waits;
        let saturation = is_saturated.then_some(Saturation { throughput: 1.0, concurrency: 1 });
        let evidence = Evidence {
            goal_tps: Some(goal as u32),
            planned: planned << scale,
            started: started << scale,
            missed,
            completed: completed << scale,
            elapsed_ns: 1_500_000_000,
            failed,
            timeouts,
            unreachable,
            stalled,
            descriptors,
            ports,
            memory,
            panics,
            lost_missed,
            lost_cancelled,
            shards_lost: shards_lost as u32 % 2,
            instances: instances as u32,
            max_instances: 1_000,
            target_wait_ns: target,
            instance_wait_ns: instance,
            limit_target_wait_ns: limit_target,
            limit_instance_wait_ns: limit_instance,
            late_ns,
            late_p99_ns: late * 1_000,
            taken,
            saturation,
            ..Evidence::default()
        };
        // Judged without a panic.
        let verdict = judge(&evidence);
        prop_assert!(!verdict.to_string().is_empty());
        let Some(shortfall) = Shortfall::of(&evidence) else {
            prop_assert!(goal == 0 || completed << scale >= planned << scale);
            return Ok(());
        };
        let sum: u64 = shortfall.shares.iter().map(|&(_, share)| share).sum();
        prop_assert_eq!(sum, shortfall.short());
        prop_assert!(sum > 0 && shortfall.asked >= planned << scale);
        prop_assert!(shortfall.shares.iter().all(|&(_, share)| share > 0));
        prop_assert!(shortfall.shares.is_sorted_by_key(|&(cause, share)| (std::cmp::Reverse(share), cause)));
    }

    /// More of what speaks for the target is never less of its share.
    #[test]
    fn a_longer_wait_for_the_target_is_not_less_of_its_share(
        target in 0_u64..1_000 * SECOND,
        more in 0_u64..1_000 * SECOND,
        instance in 1_u64..1_000 * SECOND,
        late_ns in 0_u64..1_000 * SECOND,
        taken in 0.0..0.9,
    ) {
        let of = |target_wait_ns| {
            let evidence = Evidence {
                target_wait_ns,
                instance_wait_ns: instance,
                late_ns,
                late_p99_ns: 5_000_000,
                taken,
                ..short()
            };
            Shortfall::of(&evidence).expect("half is short").share(Cause::Target)
        };
        // Rounded by largest remainder, one of them may go to another.
        prop_assert!(of(target) <= of(target + more) + 1);
    }
}

#[test]
fn a_busy_generator_that_is_in_time_is_not_to_blame() {
    let busy = Evidence { busy: 1.0, ..short() };
    assert!(matches!(judge(&busy), Verdict::Target { .. }));
    // Nor is one that is late for want of instances, with time to spare.
    let late = Evidence { late_p99_ns: 19_000_000, ..short() };
    assert!(matches!(judge(&late), Verdict::Target { .. }));
}

#[test]
fn a_limit_beyond_the_saturation_is_not_to_blame() {
    let saturation = Some(Saturation { throughput: 50.0, concurrency: 500 });
    let evidence = Evidence { instances: 1_000, saturation, ..short() };
    assert!(matches!(judge(&evidence), Verdict::Target { .. }));
    let unlimited = Evidence { instances: 5, max_instances: 0, ..short() };
    assert!(matches!(judge(&unlimited), Verdict::Target { .. }));
}

#[test]
fn the_goal_counts_as_reached_from_ninety_nine_per_cent() {
    let with = |completed| judge(&Evidence { completed, ..short() });
    assert_eq!(with(989), Verdict::GoalReached { goal_tps: 100, achieved_tps: 98.9 });
    assert!(matches!(with(988), Verdict::Target { .. }));
    // A reached goal needs no excuse.
    let faulty = Evidence { completed: 1_000, panics: 3, busy: 1.0, ..short() };
    assert!(matches!(judge(&faulty), Verdict::GoalReached { .. }));
}

#[test]
fn transactions_the_generator_spoilt_are_no_achievement() {
    let evidence = Evidence { completed: 1_000, descriptors: 500, ..short() };
    assert_eq!(judge(&evidence), Verdict::Descriptors { failures: 500 });
}

#[test]
fn a_goal_is_not_reached_by_a_run_that_the_generator_spoilt() {
    // 1 000 of which 11 were the generator's own failures, of whichever kinds.
    let reached = Evidence { completed: 1_010, ..short() };
    let spoilt = Evidence { descriptors: 2, ports: 8, memory: 1, ..reached.clone() };
    assert_eq!(judge(&spoilt), Verdict::Ports { failures: 8 });
    assert!(spoilt.is_spoilt() && judge(&spoilt).tps_limited());
    let borne = Evidence { memory: 0, ..spoilt };
    assert!(!borne.is_spoilt());
    assert!(matches!(judge(&borne), Verdict::GoalReached { .. }));
    // Panics are no completed transactions: 12 of 1 022 are too many, 10 of 1 020 are not.
    let panicked = |panics| Evidence { panics, ..reached.clone() };
    assert_eq!(judge(&panicked(12)), Verdict::Panics { panics: 12 });
    assert!(matches!(judge(&panicked(10)), Verdict::GoalReached { .. }));
    // Nothing but panics.
    let hopeless = Evidence { completed: 0, panics: 1, ..short() };
    assert!(hopeless.is_spoilt());
    // Nodes whose share others have taken over are no reason to doubt.
    assert!(matches!(judge(&Evidence { nodes_lost: 1, ..reached }), Verdict::GoalReached { .. }));
}

#[test]
fn a_search_that_the_generator_spoilt_has_not_reached_its_goal() {
    let spoilt = with_search(|evidence, _| (evidence.goal_tps, evidence.panics) = (Some(970), 90));
    assert_eq!(spoilt, Verdict::Panics { panics: 90 });
    let borne = with_search(|evidence, _| (evidence.goal_tps, evidence.panics) = (Some(970), 5));
    assert!(matches!(borne, Verdict::GoalReached { .. }), "{borne:?}");
}

#[test]
fn verdicts_send_nobody_to_a_log() {
    for evidence in [Evidence { panics: 80, ..short() }, Evidence { shards_lost: 2, ..short() }] {
        let line = judge(&evidence).to_string();
        assert!(!line.contains("log"), "{line}");
    }
}

#[test]
fn a_run_in_which_nothing_completed_has_not_reached_a_goal() {
    let evidence = Evidence { goal_tps: Some(1), completed: 0, elapsed_ns: 500_000_000, ..short() };
    assert!(judge(&evidence).tps_limited());
    assert!(judge(&Evidence { goal_tps: Some(5), ..Evidence::default() }).tps_limited());
}

#[test]
fn a_run_without_a_rate_completes_unless_the_generator_failed() {
    let closed = Evidence { goal_tps: None, panics: 5, ..short() };
    assert_eq!(judge(&closed), Verdict::Completed { achieved_tps: 50.0 });
    assert_eq!(judge(&Evidence { panics: 6, ..closed.clone() }), Verdict::Panics { panics: 6 });
    let lost = Evidence { shards_lost: 1, ..closed };
    assert_eq!(judge(&lost), Verdict::ShardsLost { shards_lost: 1 });
    assert_eq!(judge(&Evidence::default()), Verdict::NothingAsked);
}

#[test]
fn a_stop_is_named_only_when_nothing_else_shows() {
    let stopped = Evidence { stopped: true, missed: 0, ..short() };
    assert!(matches!(judge(&stopped), Verdict::Stopped { .. }));
    assert!(matches!(judge(&Evidence { missed: 9, ..stopped.clone() }), Verdict::Target { .. }));
    let reached = Evidence { completed: 1_000, ..stopped };
    assert!(matches!(judge(&reached), Verdict::GoalReached { .. }));
}

#[test]
fn only_success_is_not_limited() {
    let reached = Evidence { completed: 1_000, ..short() };
    let closed = Evidence { goal_tps: None, ..short() };
    for evidence in [reached, closed, Evidence::default()] {
        assert!(!judge(&evidence).tps_limited());
    }
    let at_limit = Evidence { instances: 1_000, ..short() };
    let busy = Evidence { busy: 1.0, late_p99_ns: 9_000_000, late_ns: SECOND, ..short() };
    for evidence in [
        short(),
        at_limit,
        busy,
        Evidence { shards_lost: 1, ..short() },
        Evidence { ports: 1, ..short() },
        Evidence { stopped: true, missed: 0, ..short() },
    ] {
        assert!(judge(&evidence).tps_limited());
    }
}

#[test]
fn every_verdict_is_one_line_with_its_figures() {
    let saturation = Some(Saturation { throughput: 50.25, concurrency: 8 });
    let cases = [
        (judge(&Evidence { completed: 1_000, ..short() }), vec!["100.0", "goal"]),
        (judge(&short()), vec!["50.0", "100", "20.00 ms"]),
        (judge(&Evidence { saturation, ..short() }), vec!["50.2", "8 instances"]),
        (judge(&spoilt(|evidence| evidence.descriptors = 77)), vec!["77", "ulimit -n"]),
        (judge(&spoilt(|evidence| evidence.ports = 78)), vec!["78", "ip_local_port_range"]),
        (judge(&spoilt(|evidence| evidence.memory = 79)), vec!["79", "memory"]),
        (judge(&spoilt(|evidence| evidence.panics = 80)), vec!["80", "panicked"]),
        (judge(&Evidence { shards_lost: 2, planned: 500, ..short() }), vec!["2 shard"]),
        (judge(&Evidence { nodes_lost: 2, planned: 500, ..short() }), vec!["2 node"]),
        (judge(&Evidence { completed: 1_000, failed: 600, ..short() }), vec!["failed 600 of 1000"]),
        (judge(&Evidence { instances: 1_000, ..short() }), vec!["1000", "50.0"]),
        (
            judge(&Evidence { busy: 0.97, late_p99_ns: 3_500_000, late_ns: SECOND, ..short() }),
            vec!["97 %", "3.50 ms", "cores"],
        ),
        (judge(&Evidence { stopped: true, missed: 0, ..short() }), vec!["10.0 s", "50.0"]),
        (judge(&Evidence { goal_tps: None, ..short() }), vec!["50.0"]),
        (judge(&Evidence::default()), vec!["nothing"]),
    ];
    for (verdict, figures) in cases {
        let line = verdict.to_string();
        assert!(!line.contains('\n') && !line.contains("  "), "{line}");
        for figure in figures {
            assert!(line.contains(figure), "{figure} is missing in: {line}");
        }
    }
}

#[test]
fn a_lateness_of_a_millisecond_and_a_tenth_distorts() {
    assert!(!distorted(0, 0));
    assert!(!distorted(999_999, 0));
    assert!(!distorted(1_000_000, 10_000_000));
    assert!(distorted(1_000_001, 10_000_000));
    assert!(distorted(5_000_000_000, 5_000_000_000));
}

/// Half a run of search, then five seconds of 970 a second held.
fn searched() -> Evidence {
    let seen = Broken { over: 140, of: 4_850 };
    let search = SearchEvidence {
        tps: 970,
        bound_by: Some((Limit::ErrorRate(0.03), seen)),
        held_tps: Some(970.0),
        ..SearchEvidence::default()
    };
    Evidence { goal_tps: None, search: Some(search), ..short() }
}

fn with_search(change: impl FnOnce(&mut Evidence, &mut SearchEvidence)) -> Verdict {
    let mut evidence = searched();
    let mut search = evidence.search.take().expect("searched");
    change(&mut evidence, &mut search);
    evidence.search = Some(search);
    judge(&evidence)
}

#[test]
fn a_search_is_bound_by_its_limit_and_limited_only_if_more_was_asked_for() {
    let found = with_search(|_, _| {});
    assert!(matches!(found, Verdict::Limit { found_tps: 970, goal_tps: None, .. }), "{found:?}");
    assert!(!found.tps_limited());
    assert!(found.to_string().contains("2.89 % of 3.00 % allowed"), "{found}");
    let asked = with_search(|evidence, _| evidence.goal_tps = Some(2_000));
    assert!(asked.tps_limited() && matches!(asked, Verdict::Limit { .. }), "{asked:?}");
    let reached = with_search(|evidence, _| evidence.goal_tps = Some(975));
    assert!(matches!(reached, Verdict::GoalReached { goal_tps: 975, .. }), "{reached:?}");
}

#[test]
fn a_search_without_an_end_or_a_limit_says_so() {
    let unsettled = with_search(|_, search| search.held_tps = None);
    assert_eq!(unsettled, Verdict::Unsettled { reached_tps: 970 });
    let stopped = with_search(|evidence, search| {
        evidence.stopped = true;
        search.held_tps = None;
    });
    assert!(matches!(stopped, Verdict::Stopped { .. }), "{stopped:?}");
    let saturated = with_search(|_, search| (search.bound_by, search.saturated) = (None, true));
    assert!(matches!(saturated, Verdict::Target { achieved_tps: 970.0, .. }), "{saturated:?}");
    let few = with_search(|evidence, _| evidence.instances = 1_000);
    assert!(matches!(few, Verdict::ConcurrencyLimit { max_instances: 1_000, .. }), "{few:?}");
    let late = with_search(|evidence, _| (evidence.busy, evidence.late_p99_ns) = (0.99, 5_000_000));
    assert!(matches!(late, Verdict::Generator { .. }), "{late:?}");
}

#[test]
fn a_run_in_which_no_transaction_started_says_what_was_done_instead() {
    let evidence = Evidence {
        goal_tps: Some(10),
        planned: 30,
        missed: 30,
        instances: 10,
        max_instances: 10,
        elapsed_ns: 3_000_000_000,
        returned_early: 25,
        outside: 31,
        outside_failed: 30,
        ..Evidence::default()
    };
    let nothing = Verdict::NothingStarted { returned: 25, outside: 31, outside_failed: 30 };
    assert_eq!(judge(&evidence), nothing);
    assert!(nothing.tps_limited());
    let text = nothing.to_string();
    assert!(text.contains("returned 25 time(s)") && text.contains("30 of the 31 request(s)"));
    assert_eq!(judge(&Evidence { stopped: true, ..evidence.clone() }), nothing);
    // In a closed loop nothing is planned then, and a search has found nothing.
    let closed = Evidence { goal_tps: None, planned: 0, missed: 0, ..evidence.clone() };
    assert_eq!(judge(&closed), nothing);
    let search = Some(SearchEvidence::default());
    assert_eq!(judge(&Evidence { search, ..evidence.clone() }), nothing);
    // The generator's own faults explain it.
    let panics = Evidence { panics: 100, ..evidence.clone() };
    assert_eq!(judge(&panics), Verdict::Panics { panics: 100 });

    let silent = Evidence { returned_early: 0, outside: 0, outside_failed: 0, ..evidence.clone() };
    let text = judge(&silent).to_string();
    assert!(text.contains("neither returned nor sent a request"), "{text}");
    let slow = Evidence { returned_early: 0, outside: 4, outside_failed: 0, ..evidence.clone() };
    let text = judge(&slow).to_string();
    assert!(text.contains("still busy with the 4 request(s)"), "{text}");
    // Stopped before there was anything to see.
    let stopped = judge(&Evidence { stopped: true, missed: 0, ..silent });
    assert!(matches!(stopped, Verdict::Stopped { .. }), "{stopped:?}");
    let one = Evidence { started: 1, completed: 1, missed: 29, ..evidence };
    assert!(!matches!(judge(&one), Verdict::NothingStarted { .. }));
}

#[test]
fn a_shard_without_time_for_its_instances_does_not_blame_them() {
    // 200 000/s of a client that does 70 000: the permits wait for a shard that works all the time,
    // which is its lateness, but for the first moments.
    let late_p99_ns = 2_400_000_000;
    let evidence = Evidence {
        busy: 0.99,
        late_p99_ns,
        late_ns: 500 * 1_200_000_000,
        response_p99_ns: 2_500_000_000,
        target_wait_ns: 1_000,
        instance_wait_ns: 1_000_000,
        ..short()
    };
    let generator = Verdict::Generator { busy: 0.99, late_p99_ns, achieved_tps: 50.0 };
    assert_eq!(judge(&evidence), generator);
    let has_time = Evidence { busy: 0.5, late_p99_ns: 1_000, ..evidence };
    assert!(matches!(judge(&has_time), Verdict::Instances { .. }));
}

#[test]
fn a_run_whose_transactions_fail_has_not_reached_its_goal() {
    let failed_by = Some("status 503 (1000)".to_owned());
    let all = Evidence {
        started: 1_000,
        completed: 1_000,
        missed: 0,
        failed: 1_000,
        failed_by: failed_by.clone(),
        ..short()
    };
    let failing = |failures, failing_ns| Verdict::Failing {
        failures,
        completed: 1_000,
        failing_ns,
        class: failed_by.clone(),
    };
    assert_eq!(judge(&all), failing(1_000, 10_000_000_000));
    assert!(judge(&all).tps_limited());
    // Nor has one that was well for most of its time.
    let died = Evidence { failed: 200, failing: (200, 2_000_000_000), ..all.clone() };
    assert_eq!(judge(&died), failing(200, 2_000_000_000));
    let searched = Evidence { search: Some(SearchEvidence::default()), ..died.clone() };
    assert_eq!(judge(&searched), failing(200, 2_000_000_000));
    let without_a_goal = Evidence { goal_tps: None, ..died.clone() };
    assert_eq!(judge(&without_a_goal), failing(200, 2_000_000_000));
    // A few failures at the very end are no state.
    let blip = Evidence { failing: (12, 2_000_000_000), ..died.clone() };
    assert!(matches!(judge(&blip), Verdict::GoalReached { .. }));
    let short_blip = Evidence { failing: (200, 500_000_000), ..died };
    assert!(matches!(judge(&short_blip), Verdict::GoalReached { .. }));
}

#[test]
fn a_target_that_never_answers_is_silent() {
    let silent = Evidence { started: 500, completed: 0, ..short() };
    assert_eq!(judge(&silent), Verdict::Silent { started: 500 });
    assert_eq!(judge(&Evidence { goal_tps: None, ..silent }), Verdict::Silent { started: 500 });
}

#[test]
fn a_search_that_found_no_rate_says_why() {
    let end = SearchEnd::Unreachable { tps: 8.0, share: 1.0 };
    let search = SearchEvidence { end: Some(end), tps: 8, ..SearchEvidence::default() };
    let evidence = Evidence { goal_tps: None, search: Some(search), ..short() };
    assert_eq!(judge(&evidence), Verdict::NotFound { end });
    let text = judge(&evidence).to_string();
    assert!(text.contains("no rate meets the limits"), "{text}");
}

/// Searched for by overshooting, then 970 a second for five seconds.
fn held() -> Evidence {
    Evidence {
        goal_tps: Some(970),
        planned: 4_850,
        started: 4_850,
        missed: 0,
        completed: 4_845,
        elapsed_ns: 5_000_000_000,
        ..short()
    }
}

fn with_held(steady: Evidence, change: impl FnOnce(&mut Evidence, &mut SearchEvidence)) -> Verdict {
    with_search(|evidence, search| {
        // While overshooting, all instances were in use, the generator was late and out of ports.
        evidence.instances = 1_000;
        (evidence.busy, evidence.late_p99_ns, evidence.stolen) = (0.99, 900_000_000, 0.1);
        (evidence.stalled, evidence.ports) = (300, 6);
        search.steady = Some(Box::new(steady));
        change(evidence, search);
    })
}

#[test]
fn what_was_met_while_overshooting_is_no_verdict_on_what_was_held() {
    let found = with_held(held(), |_, _| {});
    assert!(matches!(found, Verdict::Limit { found_tps: 970, .. }), "{found:?}");
    let reached = with_held(held(), |evidence, _| evidence.goal_tps = Some(970));
    assert!(matches!(reached, Verdict::GoalReached { .. }), "{reached:?}");
    // What was met while holding is.
    let full = with_held(Evidence { instances: 1_000, ..held() }, |_, _| {});
    assert!(matches!(full, Verdict::ConcurrencyLimit { .. }), "{full:?}");
    let spoilt = with_held(Evidence { ports: 60, ..held() }, |_, _| {});
    assert_eq!(spoilt, Verdict::Ports { failures: 60 });
    let busy = Evidence { busy: 0.95, late_p99_ns: 9_000_000, ..held() };
    assert!(matches!(with_held(busy, |_, _| {}), Verdict::Generator { .. }));
    // Lateness in which the rate was held keeps no rate down: limits are judged without it.
    let late = Evidence { late_p99_ns: 9_000_000, stolen: 0.2, taken: 0.2, ..held() };
    assert!(matches!(with_held(late.clone(), |_, _| {}), Verdict::Limit { .. }));
    let kept = Evidence { completed: 4_000, started: 4_000, missed: 850, stalled: 850, ..late };
    assert!(matches!(with_held(kept, |_, _| {}), Verdict::Processor { .. }));
    // Nor does the last state count for less than what was held.
    let died = with_held(held(), |evidence, _| {
        (evidence.failed, evidence.failing) = (100, (100, 5_000_000_000));
    });
    assert!(matches!(died, Verdict::Failing { .. }), "{died:?}");
}

#[test]
fn a_limit_bounds_no_rate_that_is_the_goal_again() {
    // A limit was met once; the goal is asked for again and falls short for want of instances.
    let steady = Evidence {
        started: 4_000,
        completed: 4_000,
        missed: 850,
        instance_wait_ns: SECOND,
        ..held()
    };
    let unused = Broken { over: 0, of: 4_000 };
    let judged = with_held(steady, |evidence, search| {
        evidence.goal_tps = Some(970);
        search.bound_by = Some((Limit::ErrorRate(0.03), unused));
        search.held_tps = Some(800.0);
    });
    assert!(matches!(judged, Verdict::Instances { .. }), "{judged:?}");
    // For no reason given: that is the target's, and neither a limit nor a run that has completed.
    let judged = with_held(held(), |evidence, search| {
        evidence.goal_tps = Some(970);
        search.bound_by = Some((Limit::ErrorRate(0.03), unused));
        search.held_tps = Some(950.0);
    });
    assert!(matches!(judged, Verdict::Target { goal_tps: 970, .. }), "{judged:?}");
    let judged = with_search(|evidence, search| {
        (evidence.goal_tps, search.bound_by, search.held_tps) = (Some(2_000), None, Some(970.0));
    });
    assert!(judged.tps_limited(), "{judged:?}");
}
