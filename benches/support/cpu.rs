//! Cores, and what threads and processes have used: read from `/proc`, so that a contender's own
//! account of itself is not what it is judged by.
#![allow(dead_code, reason = "each bench uses a part of it")]

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::Pid;
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

/// Keeps the living threads of this process whose names begin so on one core. Answers how many.
///
/// # Panics
/// If the core is not one of [`cores`].
pub(crate) fn pin_threads(name: &str, core: usize) -> usize {
    let mut set = CpuSet::new();
    set.set(core);
    let id = |task: &Path| Pid::from_raw(task.file_name()?.to_str()?.parse().ok()?);
    let ids = threads(name).filter_map(|task| id(&task));
    ids.map(|id| sched_setaffinity(Some(id), &set).expect("the core is one of this process"))
        .count()
}

/// Directories in `/proc` of the living threads of this process whose names begin so.
fn threads(name: &str) -> impl Iterator<Item = PathBuf> {
    // The kernel keeps 15 bytes of a name.
    let name = name[..name.len().min(15)].to_owned();
    let tasks = fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    tasks.map(|task| task.path()).filter(move |task| {
        fs::read_to_string(task.join("comm")).is_ok_and(|comm| comm.starts_with(&name))
    })
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

/// What threads have had of a core.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Used {
    /// Time on a core.
    pub(crate) ran: Duration,
    /// Time in which they could have run, while others had the core.
    pub(crate) waited: Duration,
}

impl Used {
    pub(crate) fn since(self, before: Self) -> Self {
        Self {
            ran: self.ran.saturating_sub(before.ran),
            waited: self.waited.saturating_sub(before.waited),
        }
    }
}

/// What the living threads of this process whose names begin so have used.
pub(crate) fn of_threads(name: &str) -> Used {
    sum(threads(name))
}

/// What the shard of a core has used.
pub(crate) fn of_shard(core: usize) -> Used {
    // The executor adds a number of its own to the name.
    of_threads(&format!("balter-shard-{core}-"))
}

/// What the living threads of another process have used.
pub(crate) fn of_process(pid: u32) -> Used {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    sum(tasks.map(|task| task.path()))
}

fn sum(tasks: impl Iterator<Item = PathBuf>) -> Used {
    let mut sum = Used::default();
    // A thread that ends meanwhile is no longer there to be read.
    for used in tasks.filter_map(|task| used_by(&task.join("schedstat"))) {
        sum.ran += used.ran;
        sum.waited += used.waited;
    }
    sum
}

/// A `schedstat` begins with the times on a core and in its queue, in nanoseconds.
fn used_by(schedstat: &Path) -> Option<Used> {
    let text = fs::read_to_string(schedstat).ok()?;
    let mut numbers = text.split_whitespace().map_while(|number| number.parse().ok());
    let (ran, waited) = (numbers.next()?, numbers.next()?);
    Some(Used { ran: Duration::from_nanos(ran), waited: Duration::from_nanos(waited) })
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
    pub(crate) used: Used,
}

impl Stretch {
    pub(crate) fn per_second(&self) -> f64 {
        self.count as f64 / self.elapsed.as_secs_f64()
    }

    /// Time of the generator's core for each that was counted, in nanoseconds.
    pub(crate) fn used_ns_each(&self) -> f64 {
        self.used.ran.as_nanos() as f64 / self.count.max(1) as f64
    }

    /// Share of the time in which the generator's threads could run that they ran, spinning
    /// included.
    pub(crate) fn share(&self) -> f64 {
        let could = self.elapsed.saturating_sub(self.used.waited);
        (self.used.ran.as_secs_f64() / could.as_secs_f64()).min(1.0)
    }

    /// Share of the time in which others kept the generator from its core. Where it is more than a
    /// few hundredths, figures say more about the machine than about a contender.
    pub(crate) fn held_up(&self) -> f64 {
        self.used.waited.as_secs_f64() / self.elapsed.as_secs_f64()
    }
}

/// Leaves what is under way `warm_up` alone, then looks what happens in `length`. All contenders
/// of a bench are counted with the same `count`.
pub(crate) fn watch(
    warm_up: Duration,
    length: Duration,
    count: impl Fn() -> u64,
    used: impl Fn() -> Used,
) -> Stretch {
    std::thread::sleep(warm_up);
    let (begun, count_before, used_before) = (Instant::now(), count(), used());
    std::thread::sleep(length);
    let (elapsed, count, used) = (begun.elapsed(), count(), used());
    Stretch { count: count - count_before, elapsed, used: used.since(used_before) }
}
