//! Windows of parts that are late become windows of the whole, in virtual time.

use balter_controllers::{Window, WindowGrid};
use proptest::prelude::*;

const MS: u64 = 1_000_000;
const CELL: u64 = 100 * MS;
const START: u64 = 7_777_777;

/// A part that completes `tps` transactions a second, evenly, and tells when it is asked to.
#[derive(Clone)]
struct Steady {
    tps: u64,
    instances: u32,
    told_ns: u64,
}

impl Steady {
    fn new(tps: u64, instances: u32) -> Self {
        Self { tps, instances, told_ns: START }
    }

    fn done(&self, at_ns: u64) -> u64 {
        (at_ns - START) * self.tps / 1_000_000_000
    }

    /// Its window up to now.
    fn tell(&mut self, now: u64) -> Window {
        let start_ns = std::mem::replace(&mut self.told_ns, now);
        let succeeded = self.done(now) - self.done(start_ns);
        Window {
            start_ns,
            length_ns: now - start_ns,
            planned: succeeded,
            started: succeeded,
            succeeded,
            service_sum_ns: succeeded * MS,
            backlog: u64::from(self.instances),
            instances: self.instances,
            in_flight: self.instances,
            busy: 0.25,
            ..Window::default()
        }
    }
}

#[track_caller]
fn assert_near(window: &Window, tps: f64) {
    let error = (window.throughput() - tps).abs() / tps;
    assert!(error <= 0.02, "{} instead of {tps}: {window:?}", window.throughput());
}

/// Each window of the whole begins where the last one ended.
fn assert_gapless(windows: &[Window]) {
    let mut at_ns = START;
    for window in windows {
        assert_eq!(window.start_ns, at_ns, "{windows:?}");
        at_ns += window.length_ns;
    }
}

fn states(window: &Window) -> (u64, u32, u32) {
    (window.backlog, window.instances, window.in_flight)
}

#[test]
fn a_part_that_sleeps_for_a_second_is_one_part_and_not_ten() {
    let mut grid = WindowGrid::new(START, CELL, 3);
    let mut parts = [Steady::new(2_000, 10), Steady::new(1_000, 4), Steady::new(500, 1)];
    let (mut windows, mut asleep) = (Vec::new(), Vec::new());
    for cell in 1..=40 {
        let now = START + cell * CELL;
        for (part, steady) in parts.iter_mut().enumerate() {
            // Awake again, it tells of all at once.
            if part == 0 && (11..20).contains(&cell) {
                continue;
            }
            grid.push(part, &steady.tell(now));
            let Some(window) = grid.advance() else { continue };
            asleep.push((11..20).contains(&cell));
            windows.push(window);
        }
    }
    assert_gapless(&windows);
    // The others are led on: all cells but those that are still waited for have been told of.
    let while_asleep: Vec<_> =
        windows.iter().zip(&asleep).filter(|(_, asleep)| **asleep).map(|(w, _)| w).collect();
    assert_eq!(while_asleep.len(), 6, "{while_asleep:?}");
    for window in while_asleep {
        assert_eq!((window.length_ns, window.absent), (CELL, 1));
        assert_near(window, 1_500.0);
        assert_eq!(states(window), (15, 15, 15), "as was last known of it");
        assert_eq!(window.mean_service_ns(), Some(MS as f64));
    }
    let awake = windows.iter().zip(&asleep).filter(|(_, asleep)| !**asleep).map(|(w, _)| w);
    let mut late = 0;
    for window in awake {
        assert_near(window, 3_500.0);
        assert_eq!(states(window), (15, 15, 15));
        assert!(window.busy <= 0.26, "{window:?}");
        if window.length_ns != CELL {
            // Those of the others that had not been passed on: they become one.
            assert_eq!((window.length_ns, window.absent), (3 * CELL, 1));
            late += 1;
        } else {
            assert_eq!(window.absent, 0);
        }
    }
    assert_eq!(late, 1);
}

#[test]
fn a_part_that_is_a_little_late_is_waited_for_and_nothing_is_left_out() {
    let mut grid = WindowGrid::new(START, CELL, 2);
    let mut parts = [Steady::new(2_000, 10), Steady::new(1_000, 4)];
    let mut windows = Vec::new();
    for cell in 1..=40 {
        let now = START + cell * CELL;
        for (part, steady) in parts.iter_mut().enumerate() {
            // 250 ms for each of its windows.
            let (now, tells) = match part {
                1 => (now - CELL / 2, cell % 5 == 3),
                _ => (now, true),
            };
            let tells_again = part == 1 && cell % 5 == 0;
            if !tells && !tells_again {
                continue;
            }
            let now = if tells_again { now + CELL / 2 } else { now };
            grid.push(part, &steady.tell(now));
            windows.extend(grid.advance());
        }
    }
    assert_gapless(&windows);
    for window in &windows {
        assert_near(window, 3_000.0);
        assert_eq!((states(window), window.absent), ((14, 14, 14), 0));
    }
    assert_eq!(windows.iter().map(|window| window.length_ns).sum::<u64>(), 40 * CELL);
    assert_eq!(windows.iter().map(|window| window.succeeded).sum::<u64>(), 12_000);
}

#[test]
fn a_single_late_part_has_one_long_window() {
    let mut grid = WindowGrid::new(START, CELL, 1);
    let mut part = Steady::new(1_000, 10);
    grid.push(0, &part.tell(START + 10 * CELL + CELL / 2));
    let window = grid.advance().expect("ten cells have been told of");
    assert_eq!((window.length_ns, window.succeeded, window.absent), (10 * CELL, 1_000, 0));
    assert_eq!(grid.advance(), None);
    grid.push(0, &part.tell(START + 11 * CELL));
    let window = grid.advance().expect("the rest of the eleventh");
    assert_eq!((window.length_ns, window.succeeded), (CELL, 100));
    assert_near(&window, 1_000.0);
}

#[test]
fn a_part_that_is_gone_is_not_waited_for_and_has_no_instances() {
    let mut grid = WindowGrid::new(START, CELL, 2);
    let mut parts = [Steady::new(2_000, 10), Steady::new(1_000, 4)];
    for (part, steady) in parts.iter_mut().enumerate() {
        grid.push(part, &steady.tell(START + CELL));
    }
    assert_eq!(grid.advance().expect("both have told").instances, 14);
    grid.push(0, &parts[0].tell(START + 2 * CELL));
    assert_eq!(grid.advance(), None, "the other one may tell yet");
    grid.lose(1);
    let window = grid.advance().expect("it will not");
    assert_eq!((window.length_ns, window.absent, window.instances), (CELL, 0, 10));
    assert_near(&window, 2_000.0);
}

#[test]
fn the_end_need_not_lie_on_the_grid_and_leaves_nothing_behind() {
    let mut grid = WindowGrid::new(START, CELL, 2);
    let mut parts = [Steady::new(2_000, 10), Steady::new(1_000, 4)];
    grid.push(0, &parts[0].tell(START + CELL / 2));
    grid.end(0);
    assert_eq!(grid.advance(), None);
    grid.push(1, &parts[1].tell(START + CELL + CELL / 4));
    assert_eq!(grid.advance().expect("the first cell").succeeded, 200);
    grid.push(1, &Window { start_ns: parts[1].told_ns, cancelled: 3, ..Window::default() });
    grid.end(1);
    let window = grid.advance().expect("the rest");
    assert_eq!((window.length_ns, window.succeeded, window.cancelled), (CELL / 4, 25, 3));
    assert_eq!(grid.advance(), None);
}

#[test]
fn a_lone_transaction_stays_with_its_cell_though_the_window_ended_a_little_late() {
    let mut grid = WindowGrid::new(0, CELL, 1);
    let mut at_ns = 0;
    for cell in 1..=20 {
        // As a shard ends them: some microseconds after the boundary.
        let end_ns = cell * CELL + 30_000 * (cell % 3);
        let window = Window { start_ns: at_ns, length_ns: end_ns - at_ns, ..Window::default() };
        grid.push(0, &Window { succeeded: 1, service_sum_ns: 70, ..window });
        at_ns = end_ns;
        let window = grid.advance().expect("a cell is full");
        assert_eq!((window.length_ns, window.succeeded), (CELL, 1));
        assert_eq!(window.service_sum_ns, 70);
    }
}

fn counts() -> impl Strategy<Value = Window> {
    prop::array::uniform11(0..1_000_000u32).prop_map(|n| Window {
        // Of these, what `end` says holds for each part; the other fields are not added up.
        start_ns: 0,
        length_ns: 0,
        lag_p99_ns: 0,
        response_p99_ns: 0,
        busy: 0.0,
        absent: 0,
        backlog: 7,
        instances: 8,
        starting: 3,
        in_flight: 9,
        planned: u64::from(n[0]),
        started: u64::from(n[1]),
        succeeded: u64::from(n[2]),
        failed: u64::from(n[3]),
        cancelled: u64::from(n[4]),
        missed: u64::from(n[5]),
        service_sum_ns: if n[2] + n[3] == 0 { 0 } else { u64::from(n[6]) },
        generator_faults: u64::from(n[7]),
        stalled: u64::from(n[8]),
        target_wait_ns: u64::from(n[9]),
        instance_wait_ns: u64::from(n[10]),
    })
}

proptest! {
    /// Parts that drift, none of them so far behind that it is passed over.
    #[test]
    fn what_all_have_told_in_time_adds_up_and_has_the_right_rate(
        rates in prop::collection::vec(3_000..50_000u64, 1..8),
        delays in prop::collection::vec((0..CELL, 0..8usize, any::<bool>()), 1..200),
    ) {
        let mut grid = WindowGrid::new(START, CELL, rates.len());
        let mut parts: Vec<_> = rates.iter().map(|&tps| Steady::new(tps, 3)).collect();
        let mut windows = Vec::new();
        let end_ns = START + 30 * CELL;
        // Each tells some time after a boundary, and now and then leaves one out.
        let mut delays = delays.iter().cycle();
        for cell in 1..30 {
            for (part, steady) in parts.iter_mut().enumerate() {
                let &(delay_ns, whom, leaves_out) = delays.next().expect("endless");
                if whom == part && leaves_out && steady.told_ns + CELL > START + (cell - 1) * CELL {
                    continue;
                }
                grid.push(part, &steady.tell(START + cell * CELL + delay_ns));
                windows.extend(grid.advance());
            }
        }
        for (part, steady) in parts.iter_mut().enumerate() {
            grid.push(part, &steady.tell(end_ns));
            grid.end(part);
            windows.extend(grid.advance());
        }
        assert_gapless(&windows);
        let tps = rates.iter().sum::<u64>() as f64;
        for window in &windows {
            assert_near(window, tps);
            prop_assert_eq!(window.absent, 0);
            prop_assert_eq!((window.start_ns + window.length_ns - START) % CELL, 0);
            prop_assert!(window.instances == 3 * rates.len() as u32, "{:?}", window);
        }
        let done: u64 = parts.iter().map(|part| part.done(end_ns)).sum();
        prop_assert_eq!(windows.iter().map(|window| window.succeeded).sum::<u64>(), done);
        prop_assert_eq!(windows.iter().map(|window| window.service_sum_ns).sum::<u64>(), done * MS);
    }

    /// However a window is cut at the grid, its pieces are the window: each count, to the unit.
    #[test]
    fn the_pieces_of_a_window_are_the_window(
        window in counts(),
        start_ns in 0..5 * CELL,
        length_ns in 0..1_000 * CELL,
        steps in 1..100u64,
    ) {
        let mut grid = WindowGrid::new(0, CELL, 2);
        let window = Window { start_ns, length_ns, ..window };
        grid.push(0, &window);
        let end_ns = start_ns + length_ns;
        let step = end_ns / steps + 1;
        let (mut sum, mut at_ns) = (Window::default(), 0);
        // The other part has the boundaries come one after the other.
        while at_ns < end_ns {
            let next_ns = (at_ns + step).min(end_ns);
            grid.push(1, &Window { start_ns: at_ns, length_ns: next_ns - at_ns, ..Window::default() });
            at_ns = next_ns;
            if let Some(whole) = grid.advance() {
                sum.append(&whole);
            }
        }
        for part in [0, 1] {
            grid.end(part);
            if let Some(whole) = grid.advance() {
                sum.append(&whole);
            }
        }
        // The other one is late, and no matter here.
        sum.absent = 0;
        prop_assert_eq!(sum, Window { start_ns: 0, length_ns: end_ns, ..window });
    }

    /// Whatever parts tell and whenever, windows follow each other and no part counts twice.
    #[test]
    fn no_part_ever_counts_more_than_once(
        steps in prop::collection::vec((0..4usize, 0..5 * CELL, 0..30u32), 1..300),
    ) {
        let mut grid = WindowGrid::new(START, CELL, 4);
        let mut parts = vec![Steady::new(10_000, 5); 4];
        let (mut windows, mut now, mut is_lost) = (Vec::new(), START, [false; 4]);
        for (part, step_ns, luck) in steps {
            now += step_ns / 4;
            if is_lost[part] {
                continue;
            }
            grid.push(part, &parts[part].tell(now));
            if luck == 0 {
                grid.lose(part);
                is_lost[part] = true;
            }
            windows.extend(grid.advance());
        }
        assert_gapless(&windows);
        for window in &windows {
            prop_assert!(window.instances <= 20, "{:?}", window);
            let whole = window.length_ns as f64 * 40_000.0 / 1e9;
            prop_assert!(window.completed() as f64 <= whole + 8.0, "{:?}", window);
            prop_assert!(window.absent <= 4);
        }
        // Never further behind the foremost than is waited for, and one cell that is not full.
        let foremost_ns = parts.iter().map(|part| part.told_ns).max().expect("four");
        let done_ns = windows.last().map_or(START, |last| last.start_ns + last.length_ns);
        prop_assert!(foremost_ns - done_ns <= 4 * CELL);
    }
}
