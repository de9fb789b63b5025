//! Sweeps of targets in virtual time: one that does not change is not told to be worse on the way
//! down, one that has become slower is.

use balter_controllers::{Block, Measure, worse};

#[allow(dead_code, reason = "each test binary uses a part of it")]
mod simulator;

use simulator::{Random, SECOND};

/// A target with one server and a queue, or without a queue.
#[derive(Clone, Copy, Debug)]
enum Kind {
    /// Exponential service times: M/M/1.
    Random,
    /// Service times that are all the same: M/D/1.
    Even,
    /// Nothing waits, and service times are Pareto of shape 2.2.
    Heavy,
}

/// A kind, its capacity (transactions a second), and how long each run of it is (seconds).
type Target = (Kind, f64, f64);

/// How it is on the way down.
#[derive(Clone, Copy, Debug, Default)]
struct Changed {
    /// Service times are longer by this share.
    slower: f64,
    /// Share that fails at once.
    failing: f64,
}

const BLOCK_NS: f64 = 1e8;

/// The blocks of one run that begins without a queue, but for the first quarter, which is not judged.
fn run(
    (kind, capacity, seconds): Target,
    used: f64,
    changed: Changed,
    random: &mut Random,
) -> Vec<Block> {
    let count = (seconds * SECOND / BLOCK_NS) as usize;
    let mut blocks = vec![Block { length_ns: BLOCK_NS as u64, ..Block::default() }; count];
    let mut times = vec![Vec::new(); count];
    let (rate, mut at, mut free) = (capacity * used, 0.0, 0.0_f64);
    loop {
        at += SECOND / rate * random.exponential();
        let Some(due) = blocks.get_mut((at / BLOCK_NS) as usize) else { break };
        due.due += 1;
        if random.uniform() < changed.failing {
            due.failed += 1;
            continue;
        }
        let mean = SECOND / capacity * (1.0 + changed.slower);
        let done = match kind {
            Kind::Random => at.max(free) + mean * random.exponential(),
            Kind::Even => at.max(free) + mean,
            Kind::Heavy => at + mean * (1.2 / 2.2) * random.uniform().powf(-1.0 / 2.2),
        };
        free = done;
        let block = (done / BLOCK_NS) as usize;
        if let Some(times) = times.get_mut(block) {
            blocks[block].succeeded += 1;
            times.push((done - at) as u64);
        }
    }
    for (block, times) in blocks.iter_mut().zip(&mut times) {
        times.sort_unstable();
        let quantile = |q: f64| times.get((q * times.len() as f64) as usize).copied();
        (block.p50_ns, block.p95_ns) = (quantile(0.5), quantile(0.95));
    }
    blocks.split_off(count / 4)
}

const SWEEPS: u64 = 200;
const UTILISATIONS: [f64; 6] = [0.3, 0.5, 0.7, 0.8, 0.9, 0.95];

/// Of so many sweeps over all utilisations those in which one was worse, by utilisation and in all.
fn told(target: Target, before: Changed, changed: Changed) -> ([u64; 6], u64) {
    let (mut each, mut any) = ([0; 6], 0);
    for seed in 0..SWEEPS {
        let mut random = Random::new(seed + 1_000);
        let mut found = false;
        for (told, used) in each.iter_mut().zip(UTILISATIONS) {
            let up = run(target, used, before, &mut random);
            let down = run(target, used, changed, &mut random);
            let worse = worse(&up, &down, UTILISATIONS.len()).expect("enough blocks");
            *told += u64::from(!worse.is_empty());
            found |= !worse.is_empty();
        }
        any += u64::from(found);
    }
    println!("{target:?} {changed:?}: {each:?}, in {any} of {SWEEPS}");
    (each, any)
}

#[test]
fn a_target_that_does_not_change_is_not_worse_on_the_way_down() {
    for target in [
        (Kind::Random, 1_000.0, 5.0),
        (Kind::Random, 1_000.0, 2.0),
        (Kind::Random, 100.0, 5.0),
        (Kind::Random, 100.0, 2.0),
        (Kind::Random, 20.0, 5.0),
        (Kind::Even, 1_000.0, 5.0),
        (Kind::Even, 100.0, 5.0),
        (Kind::Heavy, 500.0, 5.0),
        (Kind::Heavy, 50.0, 5.0),
    ] {
        let (_, any) = told(target, Changed::default(), Changed::default());
        assert!(any <= SWEEPS / 20, "{target:?}: {any}");
        let fails = Changed { slower: 0.0, failing: 0.05 };
        let (_, any) = told(target, fails, fails);
        assert!(any <= SWEEPS / 20, "{target:?} that fails: {any}");
    }
}

#[test]
fn a_target_that_has_become_worse_is_told() {
    for changed in [
        Changed { slower: 0.3, failing: 0.0 },
        Changed { slower: 1.0, failing: 0.0 },
        Changed { slower: 0.0, failing: 0.05 },
    ] {
        for target in
            [(Kind::Random, 1_000.0, 5.0), (Kind::Even, 500.0, 5.0), (Kind::Heavy, 150.0, 5.0)]
        {
            let (_, any) = told(target, Changed::default(), changed);
            assert!(any >= SWEEPS * 9 / 10, "{target:?}, {changed:?}: {any}");
        }
    }
}

/// What the busy machine of a test did by chance: the 95th percentile is 206 and 578 microseconds.
#[test]
fn what_is_certain_and_small_is_no_news() {
    let block = |p95_ns| Block {
        due: 100,
        succeeded: 100,
        p50_ns: Some(150_000),
        p95_ns: Some(p95_ns),
        ..Block::default()
    };
    assert_eq!(worse(&[block(206_000); 30], &[block(578_000); 30], 3), Some(Vec::new()));
    let told = worse(&[block(2_060_000); 30], &[block(5_780_000); 30], 3).expect("enough blocks");
    let [told] = told[..] else { panic!("{told:?}") };
    assert_eq!(told.measure, Measure::P95);
    assert!((told.before - 0.002_06).abs() < 1e-6 && (told.after - 0.005_78).abs() < 1e-6);
}

/// Quick failures let the others pass more quickly: that makes nothing better.
#[test]
fn failures_do_not_help() {
    let up = Block {
        due: 100,
        succeeded: 100,
        p50_ns: Some(20_000_000),
        p95_ns: Some(40_000_000),
        ..Block::default()
    };
    let down =
        Block { succeeded: 60, failed: 40, p50_ns: Some(1_000_000), p95_ns: Some(1_000_000), ..up };
    let told = worse(&[up; 30], &[down; 30], 1).expect("enough blocks");
    let measures: Vec<_> = told.iter().map(|worse| worse.measure).collect();
    assert_eq!(measures, [Measure::Failed, Measure::Goodput]);
    // The other way round it has become slower, and does not fail any more.
    let told = worse(&[down; 30], &[up; 30], 1).expect("enough blocks");
    assert!(told.iter().all(|worse| matches!(worse.measure, Measure::Median | Measure::P95)));
}
