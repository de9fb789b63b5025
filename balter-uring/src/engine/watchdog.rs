//! Whether user code keeps a shard: a future that never yields, or a call that blocks the thread.
//!
//! The shard publishes which run's code it polls, with plain stores. The aggregator looks at that
//! every now and then. Code that has not returned for long is told from a thread that was kept off
//! its core by the kernel's own figures of the thread.

use std::fs;
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam_utils::CachePadded;

/// A poll that has not returned after so long holds its shard up.
const LONGEST_POLL_NS: u64 = 2_000_000_000;

/// So much of that has to be the code's own doing: running, or waiting in a call that blocks. A
/// thread that was kept off its core meanwhile shows less, unless its code takes long in any case.
const OWN_NS: u64 = 500_000_000;

/// From so long on a poll is suspected, and its thread's figures are kept.
const SUSPECT_NS: u64 = 100_000_000;

/// Longer than this the aggregator does not stay away by itself, even where others want its core.
/// What is beyond it is a process that was stopped, a suspended machine or a slow observer, of which
/// no shard is to be accused.
const LONGEST_LOOK_NS: u64 = 500_000_000;

/// What a shard does, for the aggregator to see.
#[derive(Debug)]
pub(crate) struct Pulse {
    words: CachePadded<Words>,
    /// The shard's thread, as the kernel numbers it.
    thread: i32,
}

#[derive(Debug, Default)]
struct Words {
    /// Number of the run whose code is being polled; 0 for none.
    run: AtomicU64,
    /// How often such code has been entered.
    entered: AtomicU64,
}

impl Pulse {
    /// Of the calling thread.
    pub(super) fn new() -> Self {
        let thread = rustix::thread::gettid().as_raw_nonzero().get();
        Self { words: CachePadded::default(), thread }
    }

    // The two words are stored one after the other and may be seen apart. Then they differ from what
    // was seen before, which is all that matters: the shard is alive.

    /// Code of a run is about to be polled or dropped. Answers what [`leave`](Self::leave) is to be
    /// given. No other thread stores, so nothing has to be atomic about the increment.
    #[inline]
    pub(super) fn enter(&self, run: u64) -> u64 {
        let Words { run: current, entered } = &*self.words;
        entered.store(entered.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
        let outer = current.load(Ordering::Relaxed);
        current.store(run, Ordering::Relaxed);
        outer
    }

    /// It has returned.
    #[inline]
    pub(super) fn leave(&self, outer: u64) {
        self.words.run.store(outer, Ordering::Relaxed);
    }

    fn seen(&self) -> (u64, u64) {
        let Words { run, entered } = &*self.words;
        (run.load(Ordering::Relaxed), entered.load(Ordering::Relaxed))
    }
}

/// The time for which the aggregator has looked on. It stands still while the aggregator is away.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Attention {
    last_ns: u64,
    looked_ns: u64,
}

impl Attention {
    pub(super) fn new(now: u64) -> Self {
        Self { last_ns: now, looked_ns: 0 }
    }

    pub(super) fn look(&mut self, now: u64) {
        self.looked_ns += now.saturating_sub(self.last_ns).min(LONGEST_LOOK_NS);
        self.last_ns = now;
    }
}

/// What one run knows of the polls of one shard.
#[derive(Debug, Default)]
pub(super) struct Watch {
    seen: (u64, u64),
    since_ns: u64,
    /// As the poll came under suspicion.
    suspected: Option<(u64, Scheduling)>,
    /// It has not returned since it was accused.
    holds: bool,
}

impl Watch {
    /// Number of the run whose code has just turned out to keep the shard.
    pub(super) fn look(&mut self, pulse: &Pulse, attention: &Attention) -> Option<u64> {
        let thread = pulse.thread;
        self.judge(pulse.seen(), attention.looked_ns, || Scheduling::of(thread))
    }

    /// The poll that it told of goes on.
    pub(super) fn holds(&self, pulse: &Pulse) -> bool {
        self.holds && pulse.seen() == self.seen
    }

    fn judge(
        &mut self,
        seen: (u64, u64),
        looked_ns: u64,
        scheduling: impl FnOnce() -> Scheduling,
    ) -> Option<u64> {
        let (run, _) = seen;
        if seen != self.seen || run == 0 {
            *self = Self { seen, since_ns: looked_ns, suspected: None, holds: false };
            return None;
        }
        let all_ns = looked_ns - self.since_ns;
        if self.holds || all_ns < SUSPECT_NS {
            return None;
        }
        let Some((suspected_ns, before)) = &self.suspected else {
            self.suspected = Some((looked_ns, scheduling()));
            return None;
        };
        // What came before the suspicion is not accounted for, and is short.
        let elapsed_ns = looked_ns - suspected_ns;
        if all_ns < LONGEST_POLL_NS {
            return None;
        }
        self.holds = scheduling().own_ns(before, elapsed_ns) >= OWN_NS;
        self.holds.then_some(run)
    }
}

/// What the kernel tells of a thread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Scheduling {
    /// `R` running or ready to, `S` and `D` waiting, `T` stopped; `None` if it is not known.
    state: Option<char>,
    /// Time on a core, and time spent ready without one, ever. The latter is added when it ends.
    figures: Option<(u64, u64)>,
}

impl Scheduling {
    fn of(thread: i32) -> Self {
        let read = |name| fs::read_to_string(format!("/proc/self/task/{thread}/{name}"));
        Self {
            state: read("stat").ok().as_deref().and_then(state),
            figures: read("schedstat").ok().as_deref().and_then(figures),
        }
    }

    /// For how much of `elapsed_ns` the thread was on a core or chose to wait. Without a core it is
    /// not its code that takes long.
    fn own_ns(&self, before: &Self, elapsed_ns: u64) -> u64 {
        let (Some((ran, waited)), Some((ran_then, waited_then))) = (self.figures, before.figures)
        else {
            // Nothing speaks for the thread, but that it may be ready and without a core.
            return if self.state == Some('R') { 0 } else { elapsed_ns };
        };
        match self.state {
            // It may have been ready without a core since it last had one.
            Some('R') | None => ran.saturating_sub(ran_then),
            Some('T' | 't') => 0,
            Some(_) => elapsed_ns.saturating_sub(waited.saturating_sub(waited_then)),
        }
    }
}

/// The state in `pid (name) state …`; a name may hold anything.
fn state(stat: &str) -> Option<char> {
    stat.rsplit_once(')')?.1.trim_start().chars().next()
}

/// `ran waited slices`, in nanoseconds.
fn figures(schedstat: &str) -> Option<(u64, u64)> {
    let mut fields = schedstat.split_whitespace().map(str::parse);
    Some((fields.next()?.ok()?, fields.next()?.ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn thread(state: char, ran_ms: u64, waited_ms: u64) -> Scheduling {
        Scheduling { state: Some(state), figures: Some((ran_ms * MS, waited_ms * MS)) }
    }

    /// Looks every 20 ms of attention at one poll of run 7, whose thread does in each millisecond
    /// what `at` says of the time until then; when it is accused.
    fn accused_ms(mut at: impl FnMut(u64) -> Scheduling) -> Option<u64> {
        let mut watch = Watch::default();
        (0..10_000).step_by(20).find(|&ms| {
            let run = watch.judge((7, 42), ms * MS, || at(ms));
            assert!(matches!(run, None | Some(7)));
            run.is_some()
        })
    }

    #[test]
    fn code_that_runs_or_sleeps_for_two_seconds_is_accused_once() {
        for state in [|ms| thread('R', ms, 0), |ms| thread('S', 0, ms / 100)] {
            let at = accused_ms(state).expect("it holds the shard");
            assert!((2_000..2_200).contains(&at), "{at}");
        }
        let mut watch = Watch::default();
        let accusations = (0..1_000)
            .filter(|&look| watch.judge((7, 42), look * 20 * MS, || thread('S', 0, 0)).is_some());
        assert_eq!(accusations.count(), 1);
    }

    #[test]
    fn a_thread_without_a_core_is_not_accused_of_what_others_do() {
        // Ready all the time, and given nothing.
        assert_eq!(accused_ms(|_| thread('R', 5, 0)), None);
        // Given a tenth of the core: it takes longer until it is sure.
        let at = accused_ms(|ms| thread('R', ms / 10, ms * 9 / 10)).expect("it runs on and on");
        assert!((5_000..5_300).contains(&at), "{at}");
        // Had no core, and sleeps just now.
        let at = accused_ms(|ms| thread('S', 0, ms.min(3_000))).expect("it sleeps on and on");
        assert!((3_450..3_800).contains(&at), "{at}");
        // Stopped by a debugger.
        assert_eq!(accused_ms(|_| thread('t', 0, 0)), None);
        // A kernel that tells nothing of it.
        let untold = |state| Scheduling { state: Some(state), figures: None };
        assert_eq!(accused_ms(|_| untold('R')), None);
        assert!(accused_ms(|_| untold('S')).is_some());
    }

    #[test]
    fn polls_that_return_are_nobodys_matter() {
        let mut watch = Watch::default();
        for look in 0..1_000 {
            // Entered anew each second.
            let seen = (7, look / 50);
            assert_eq!(watch.judge(seen, look * 20 * MS, || thread('R', look * 20, 0)), None);
        }
        for look in 1_000..2_000 {
            assert_eq!(watch.judge((0, 99), look * 20 * MS, || thread('S', 0, 0)), None);
        }
    }

    #[test]
    fn time_in_which_the_aggregator_was_away_does_not_count() {
        let mut attention = Attention::new(5 * MS);
        attention.look(25 * MS);
        assert_eq!(attention.looked_ns, 20 * MS);
        attention.look(60_025 * MS);
        assert_eq!(attention.looked_ns, 520 * MS);
    }

    #[test]
    fn a_shard_that_comes_back_holds_nothing_any_more() {
        let pulse = Pulse::new();
        let outer = pulse.enter(7);
        let mut watch = Watch::default();
        for look in 0..200 {
            watch.judge(pulse.seen(), look * 20 * MS, || thread('S', 0, 0));
        }
        assert!(watch.holds(&pulse));
        pulse.leave(outer);
        assert!(!watch.holds(&pulse));
    }

    #[test]
    fn the_kernel_tells_of_a_thread_that_works_and_of_one_that_sleeps() {
        assert_eq!(state("12 (a) b) R 1 2"), Some('R'));
        assert_eq!(figures("126728 75650 2\n"), Some((126_728, 75_650)));
        assert_eq!(figures(""), None);
        let (tell, told) = std::sync::mpsc::channel();
        let sleeper = std::thread::spawn(move || {
            tell.send(Pulse::new().thread).expect("it is waited for");
            std::thread::park();
        });
        let thread = told.recv().expect("it tells");
        let begun = std::time::Instant::now();
        while Scheduling::of(thread).state != Some('S') {
            assert!(begun.elapsed().as_secs() < 60, "{:?}", Scheduling::of(thread));
            std::thread::yield_now();
        }
        sleeper.thread().unpark();
        sleeper.join().expect("it ends");
    }
}
