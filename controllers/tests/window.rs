//! Windows of the parts add up to the window of the whole.

use balter_controllers::Window;
use proptest::prelude::*;

fn window() -> impl Strategy<Value = Window> {
    (prop::array::uniform20(0..1_000_000u32), 0.0..=1.0f64).prop_map(|(n, busy)| Window {
        start_ns: u64::from(n[0]),
        length_ns: u64::from(n[1]) + 1,
        planned: u64::from(n[2]),
        started: u64::from(n[3]),
        succeeded: u64::from(n[4]),
        failed: u64::from(n[5]),
        cancelled: u64::from(n[6]),
        missed: u64::from(n[7]),
        backlog: u64::from(n[8]),
        instances: n[9],
        in_flight: n[10],
        service_sum_ns: u64::from(n[11]),
        lag_p99_ns: u64::from(n[12]),
        response_p99_ns: u64::from(n[13]),
        busy,
        generator_faults: u64::from(n[14]),
        stalled: u64::from(n[15]),
        starting: n[16],
        target_wait_ns: u64::from(n[17]),
        instance_wait_ns: u64::from(n[18]),
        absent: n[19] % 100,
    })
}

fn merged(parts: &[&Window]) -> Window {
    let mut whole = Window::default();
    for part in parts {
        whole.merge(part);
    }
    whole
}

proptest! {
    #[test]
    fn merging_adds_counts_and_takes_the_larger_extremes(a in window(), b in window()) {
        let expected = Window {
            start_ns: a.start_ns.min(b.start_ns),
            length_ns: a.length_ns.max(b.length_ns),
            planned: a.planned + b.planned,
            started: a.started + b.started,
            succeeded: a.succeeded + b.succeeded,
            failed: a.failed + b.failed,
            cancelled: a.cancelled + b.cancelled,
            missed: a.missed + b.missed,
            backlog: a.backlog + b.backlog,
            instances: a.instances + b.instances,
            in_flight: a.in_flight + b.in_flight,
            service_sum_ns: a.service_sum_ns + b.service_sum_ns,
            lag_p99_ns: a.lag_p99_ns.max(b.lag_p99_ns),
            response_p99_ns: a.response_p99_ns.max(b.response_p99_ns),
            busy: a.busy.max(b.busy),
            generator_faults: a.generator_faults + b.generator_faults,
            stalled: a.stalled + b.stalled,
            starting: a.starting + b.starting,
            target_wait_ns: a.target_wait_ns + b.target_wait_ns,
            instance_wait_ns: a.instance_wait_ns + b.instance_wait_ns,
            absent: a.absent + b.absent,
        };
        prop_assert_eq!(merged(&[&a, &b]), expected);
    }

    #[test]
    fn the_order_of_the_parts_does_not_matter(a in window(), b in window(), c in window()) {
        prop_assert_eq!(merged(&[&a, &b, &c]), merged(&[&c, &a, &b]));
        prop_assert_eq!(merged(&[&a, &merged(&[&b, &c])]), merged(&[&a, &b, &c]));
        prop_assert_eq!(merged(&[&a, &Window::default()]), a);
    }
}

#[test]
fn derived_figures_leave_out_what_was_cancelled() {
    let window = Window {
        length_ns: 500_000_000,
        succeeded: 8,
        failed: 2,
        cancelled: 90,
        service_sum_ns: 1_000,
        ..Window::default()
    };
    assert_eq!(window.completed(), 10);
    assert_eq!(window.throughput(), 20.0);
    assert_eq!(window.mean_service_ns(), Some(100.0));
    assert_eq!(Window::default().throughput(), 0.0);
    assert_eq!(Window::default().mean_service_ns(), None);
}

#[test]
fn any_sign_of_the_target_makes_a_window_evidence() {
    assert!(Window { length_ns: 1, instances: 5, missed: 3, ..Window::default() }.is_idle());
    assert!(!Window { failed: 1, ..Window::default() }.is_idle());
    assert!(!Window { in_flight: 1, ..Window::default() }.is_idle());
    assert!(!Window { backlog: 1, ..Window::default() }.is_idle());
}
