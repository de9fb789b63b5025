use std::collections::BTreeMap;
use std::sync::Arc;

use metrics_util::debugging::{DebugValue, DebuggingRecorder};

use super::*;
use crate::engine::window::{Outcome, Times};
use crate::transaction::TransactionMeta;

static GET: TransactionMeta = TransactionMeta::new("get", "tests");

/// What a recorder was told by `work`, by name and labels.
fn told(work: impl FnOnce()) -> BTreeMap<String, DebugValue> {
    let recorder = DebuggingRecorder::new();
    metrics::with_local_recorder(&recorder, work);
    let metrics = recorder.snapshotter().snapshot().into_vec();
    let named = metrics.into_iter().map(|(key, _, _, value)| {
        let labels = key.key().labels().map(|label| format!(" {}={}", label.key(), label.value()));
        (labels.fold(key.key().name().to_owned(), |name, label| name + &label), value)
    });
    named.collect()
}

fn gauge(value: f64) -> DebugValue {
    DebugValue::Gauge(value.into())
}

/// Two that succeed, one that is refused, one missed; the shard idle for half of the time.
fn window(open_loop: bool) -> ShardWindow {
    let mut window = ShardWindow::new(open_loop);
    (window.end_ns, window.idle_ns, window.missed) = (1_000_000_000, 500_000_000, 1);
    let times = Times { intended: 0, start: 256, end: 1_024, late: 256 };
    window.record(&GET, times, Outcome::Succeeded);
    window.record(&GET, times, Outcome::Succeeded);
    window.record(&GET, times, Outcome::Failed(FailureClass::Refused));
    window
}

const STATE: State = State {
    concurrency: 3,
    goal_tps: 100,
    latency_goal_tps: None,
    error_goal_tps: None,
    concurrency_state: -1,
    error_state: 0,
    backlog: 5,
    in_flight: 2,
};

#[test]
fn the_names_and_values_are_those_of_the_guide() {
    let told = told(|| {
        let mut published = Published::new("visitor", [4, 7].into_iter());
        published.window(1, &window(true));
        published.window(1, &window(true));
        published.tick(&STATE);
    });
    let latency = [1_024.0 / 1e9; 6].map(Into::into).to_vec();
    let lag = [256.0 / 1e9; 6].map(Into::into).to_vec();
    for (name, value) in [
        ("get_success", DebugValue::Counter(4)),
        ("get_error", DebugValue::Counter(2)),
        ("get_latency", DebugValue::Histogram(latency)),
        ("balter_visitor_concurrency", gauge(3.0)),
        ("balter_visitor_goal_tps", gauge(100.0)),
        ("balter_visitor_cc_state", gauge(-1.0)),
        ("balter_visitor_backlog", gauge(5.0)),
        ("balter_visitor_in_flight", gauge(2.0)),
        ("balter_visitor_missed", DebugValue::Counter(2)),
        ("balter_visitor_failures class=refused", DebugValue::Counter(2)),
        ("balter_visitor_failures class=timeout", DebugValue::Counter(0)),
        ("balter_visitor_shard_busy core=7", gauge(0.5)),
        ("balter_visitor_lag", DebugValue::Histogram(lag)),
    ] {
        assert_eq!(told.get(name), Some(&value), "{name}");
    }
    // Without these controllers there is nothing to show of them.
    assert!(!told.keys().any(|name| name.contains("lc_") || name.contains("erc_")), "{told:?}");
}

#[test]
fn controllers_that_the_run_has_are_shown() {
    let told = told(|| {
        let mut published = Published::new("visitor", [0].into_iter());
        published.tick(&State {
            latency_goal_tps: Some(80),
            error_goal_tps: Some(90),
            error_state: 2,
            ..STATE
        });
    });
    assert_eq!(told.get("balter_visitor_lc_goal_tps"), Some(&gauge(80.0)));
    assert_eq!(told.get("balter_visitor_erc_goal_tps"), Some(&gauge(90.0)));
    assert_eq!(told.get("balter_visitor_erc_state"), Some(&gauge(2.0)));
}

#[test]
fn a_closed_loop_shows_the_service_and_no_lag() {
    let told = told(|| {
        let mut published = Published::new("visitor", [0].into_iter());
        published.window(0, &window(false));
    });
    let latency = [768.0 / 1e9; 3].map(Into::into).to_vec();
    assert_eq!(told.get("get_latency"), Some(&DebugValue::Histogram(latency)));
    assert!(!told.contains_key("balter_visitor_lag"), "{told:?}");
}

#[test]
fn nothing_of_a_run_that_is_over_seems_to_run() {
    let told = told(|| {
        let mut published = Published::new("visitor", [0].into_iter());
        published.window(0, &window(true));
        published.tick(&STATE);
        published.end();
    });
    for name in ["concurrency", "goal_tps", "backlog", "in_flight", "shard_busy core=0"] {
        assert_eq!(told.get(&format!("balter_visitor_{name}")), Some(&gauge(0.0)), "{name}");
    }
    assert_eq!(told.get("get_success"), Some(&DebugValue::Counter(2)));
}

#[test]
fn without_a_recorder_there_is_nothing_to_tell() {
    let published = Published::new("visitor", [0].into_iter());
    assert!(published.handles.is_none() && !published.has_failed());
}

#[test]
fn a_recorder_that_panics_is_left_alone() {
    /// Also when its panic is dropped, and when it is itself.
    struct Panics;
    impl metrics::HistogramFn for Panics {
        fn record(&self, _: f64) {
            std::panic::panic_any(Self);
        }
    }
    impl Drop for Panics {
        fn drop(&mut self) {
            panic!("dropped");
        }
    }
    let recorder = DebuggingRecorder::new();
    let mut published =
        metrics::with_local_recorder(&recorder, || Published::new("visitor", [0].into_iter()));
    let handles = published.handles.as_mut().expect("there is a recorder");
    handles.lag = Some(Histogram::from_arc(Arc::new(Panics)));
    published.window(0, &window(true));
    assert!(published.handles.is_none() && published.has_failed());
    // One that does not panic until the run is over.
    let mut published =
        metrics::with_local_recorder(&recorder, || Published::new("visitor", [0].into_iter()));
    let handles = published.handles.as_mut().expect("there is a recorder");
    handles.lag = Some(Histogram::from_arc(Arc::new(Panics)));
    drop(published);
}

#[test]
fn transactions_of_one_name_have_series_of_their_own() {
    static FIRST: TransactionMeta = TransactionMeta::new("namesake", "shop::basket");
    static SECOND: TransactionMeta = TransactionMeta::new("namesake", "shop::search");
    let mut window = ShardWindow::new(false);
    let times = Times { intended: 0, start: 256, end: 1_024, late: 256 };
    for (meta, times_done) in [(&FIRST, 1), (&SECOND, 2)] {
        for _ in 0..times_done {
            window.record(meta, times, Outcome::Succeeded);
        }
    }
    let told = told(|| {
        let mut published = Published::new("visitor", [0].into_iter());
        published.window(0, &window);
    });
    assert_eq!(told.get("namesake_success"), Some(&DebugValue::Counter(1)), "{told:?}");
    let second = told.get("namesake_success module=shop::search");
    assert_eq!(second, Some(&DebugValue::Counter(2)), "{told:?}");
    assert!(told.contains_key("namesake_latency module=shop::search"), "{told:?}");
}
