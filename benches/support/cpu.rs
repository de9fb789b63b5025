//! Cores, and what threads and processes have used: read from `/proc`, so that a contender's own
//! account of itself is not what it is judged by.
#![allow(dead_code, reason = "each bench uses a part of it")]

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// The core that generates and the core of the target: the first and the last that this process
/// may use.
///
/// # Panics
/// If the kernel does not tell, in which case nothing here could be measured.
pub(crate) fn cores() -> (usize, usize) {
    let allowed = sched_getaffinity(None).expect("the kernel tells a thread its own cores");
    let is_allowed = |core: &usize| allowed.is_set(*core);
    let mut cores = (0..CpuSet::MAX_CPU).filter(is_allowed);
    let first = cores.next().expect("a thread that runs may use a core");
    (first, cores.next_back().unwrap_or(first))
}

/// Keeps the calling thread, and the threads that it starts from now on, on one core.
///
/// # Panics
/// If the core is not one of [`cores`].
pub(crate) fn pin(core: usize) {
    let mut set = CpuSet::new();
    set.set(core);
    sched_setaffinity(None, &set).expect("the core is one that this process may use");
}

/// Runs `work` on a new thread of that name (15 bytes at most are kept) pinned to `core`.
pub(crate) fn on_core<T: Send + 'static>(
    name: &str,
    core: usize,
    work: impl FnOnce() -> T + Send + 'static,
) -> std::thread::JoinHandle<T> {
    let pinned = move || {
        pin(core);
        work()
    };
    std::thread::Builder::new().name(name.to_owned()).spawn(pinned).expect("a thread starts")
}

/// Time that the living threads of this process whose names begin so have run.
pub(crate) fn of_threads(name: &str) -> Duration {
    // The kernel keeps 15 bytes of a name.
    let name = &name[..name.len().min(15)];
    sum("/proc/self/task".as_ref(), |task| {
        fs::read_to_string(task.join("comm")).is_ok_and(|comm| comm.starts_with(name))
    })
}

/// Time that the shard of a core has run.
pub(crate) fn of_shard(core: usize) -> Duration {
    // The executor adds a number of its own to the name.
    of_threads(&format!("balter-shard-{core}-"))
}

/// Time that the living threads of another process have run.
pub(crate) fn of_process(pid: u32) -> Duration {
    sum(format!("/proc/{pid}/task").as_ref(), |_| true)
}

fn sum(tasks: &Path, counts: impl Fn(&Path) -> bool) -> Duration {
    let Ok(tasks) = fs::read_dir(tasks) else { return Duration::ZERO };
    // A thread that ends meanwhile is no longer there to be read.
    let tasks = tasks.flatten().map(|task| task.path()).filter(|task| counts(task));
    tasks.filter_map(|task| run_time(&task.join("schedstat"))).sum()
}

/// The first number of a `schedstat` is the time on a core, in nanoseconds.
fn run_time(schedstat: &Path) -> Option<Duration> {
    let text = fs::read_to_string(schedstat).ok()?;
    text.split(' ').next()?.parse().ok().map(Duration::from_nanos)
}

/// Memory of this process that is in use now, in bytes.
pub(crate) fn resident() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kibibytes = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    kibibytes.unwrap_or(0) << 10
}

/// What was counted and used in a stretch of time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stretch {
    pub(crate) count: u64,
    pub(crate) elapsed: Duration,
    pub(crate) used: Duration,
}

impl Stretch {
    pub(crate) fn per_second(&self) -> f64 {
        self.count as f64 / self.elapsed.as_secs_f64()
    }

    /// Time of the generator's core for each that was counted, in nanoseconds.
    pub(crate) fn used_ns_each(&self) -> f64 {
        self.used.as_nanos() as f64 / self.count.max(1) as f64
    }

    /// Share of the time in which the generator's threads ran, spinning included.
    pub(crate) fn share(&self) -> f64 {
        self.used.as_secs_f64() / self.elapsed.as_secs_f64()
    }
}

/// Leaves what is under way `warm_up` alone, then looks what happens in `length`. All contenders
/// of a bench are counted with the same `count`.
pub(crate) fn watch(
    warm_up: Duration,
    length: Duration,
    count: impl Fn() -> u64,
    used: impl Fn() -> Duration,
) -> Stretch {
    std::thread::sleep(warm_up);
    let (begun, count_before, used_before) = (Instant::now(), count(), used());
    std::thread::sleep(length);
    let (elapsed, count, used) = (begun.elapsed(), count(), used());
    Stretch { count: count - count_before, elapsed, used: used.saturating_sub(used_before) }
}
