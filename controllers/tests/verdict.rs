//! The order of blame, and that each verdict says what it saw.

use balter_controllers::{
    Broken, Evidence, Limit, Saturation, SearchEnd, SearchEvidence, Verdict, distorted, judge,
};

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

#[test]
fn blame_goes_from_the_plainest_fault_to_the_target() {
    let saturation = Some(Saturation { throughput: 50.0, concurrency: 8 });
    // Everything at once; then the first cause is taken away, one at a time.
    let mut evidence = Evidence {
        shards_lost: 1,
        descriptors: 1,
        ports: 2,
        memory: 3,
        panics: 4,
        unreachable: 100,
        stolen: 0.2,
        busy: 0.95,
        late_p99_ns: 5_000_000,
        instances: 1_000,
        ..short()
    };
    assert_eq!(judge(&evidence), Verdict::ShardsLost { shards_lost: 1 });
    evidence.shards_lost = 0;
    assert_eq!(judge(&evidence), Verdict::Descriptors { failures: 1 });
    evidence.descriptors = 0;
    assert_eq!(judge(&evidence), Verdict::Ports { failures: 2 });
    evidence.ports = 0;
    assert_eq!(judge(&evidence), Verdict::Memory { failures: 3 });
    evidence.memory = 0;
    assert_eq!(judge(&evidence), Verdict::Panics { panics: 4 });
    evidence.panics = 0;
    assert_eq!(judge(&evidence), Verdict::Network { failures: 100 });
    evidence.unreachable = 5;
    let taken = Verdict::Processor { stolen: 0.2, throttled: 0.0, achieved_tps: 50.0 };
    assert_eq!(judge(&evidence), taken);
    evidence.stolen = 0.01;
    let generator = Verdict::Generator { busy: 0.95, late_p99_ns: 5_000_000, achieved_tps: 50.0 };
    assert_eq!(judge(&evidence), generator);
    evidence.busy = 0.5;
    let limit = Verdict::ConcurrencyLimit {
        max_instances: 1_000,
        goal_tps: 100,
        achieved_tps: 50.0,
        cycle_ns: 0,
    };
    assert_eq!(judge(&evidence), limit);
    evidence.instances = 999;
    evidence.saturation = saturation;
    let target = Verdict::Target {
        goal_tps: 100,
        achieved_tps: 50.0,
        response_p99_ns: 20_000_000,
        saturation,
    };
    assert_eq!(judge(&evidence), target);
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
    let busy = Evidence { busy: 1.0, late_p99_ns: 9_000_000, ..short() };
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
        (judge(&Evidence { descriptors: 77, ..short() }), vec!["77", "ulimit -n"]),
        (judge(&Evidence { ports: 78, ..short() }), vec!["78", "ip_local_port_range"]),
        (judge(&Evidence { memory: 79, ..short() }), vec!["79", "memory"]),
        (judge(&Evidence { panics: 80, ..short() }), vec!["80", "panicked"]),
        (judge(&Evidence { shards_lost: 2, ..short() }), vec!["2 shard"]),
        (judge(&Evidence { nodes_lost: 2, ..short() }), vec!["2 node"]),
        (judge(&Evidence { instances: 1_000, ..short() }), vec!["1000", "50.0"]),
        (
            judge(&Evidence { busy: 0.97, late_p99_ns: 3_500_000, ..short() }),
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
