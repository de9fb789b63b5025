//! A shard: one thread, pinned to one core, with one executor and one ring. Its driver is the
//! heartbeat.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Waker;

use crossbeam_channel::{Receiver, Sender};

use super::calls::Calls;
use super::clock::Clock;
#[cfg(feature = "tokio")]
use super::remote_wake::Inbox;
use super::run::{Next, RunSpec, ShardRun};
use super::timers::Timers;
use super::watchdog::Pulse;
use super::{executor, instance, outside};
use crate::handshake;
use crate::ring::{self, Ring, RingWaker, Wait};

/// Tasks of one turn may go on starting transactions for so long. It bounds how late the driver
/// can be where transactions take next to no time.
const SLICE_NS: u64 = 50_000;

/// The same while nothing else is due sooner, as in a closed loop. Longer slices start more at a time,
/// and answers to these wait for each other: with 1 024 connections on a saturated core the service
/// time's median was 0.26, 0.52, 0.98 and 1.97 ms with slices of 50, 100, 200 and 400 µs, at 38, 38, 49
/// and 48 thousand requests a second.
const LONG_SLICE_NS: u64 = 200_000;

/// A shard spins from so long before a permit is due: waking up from a wait in the kernel takes
/// 40 to 90 µs here, turning takes one.
const SPIN_BEFORE_PERMIT_NS: u64 = 100_000;

/// A wait ends so long before a permit is due; the rest is spun.
const WAKE_EARLY_NS: u64 = 60_000;

/// A shard with transactions in flight spins for so long after it last had something to do: an
/// answer that comes soon is then seen at once.
const SPIN_FOR_ANSWER_NS: u64 = 100_000;

/// Longest wait in the kernel while a run is on, so that the stop of a run is seen soon.
const LONGEST_WAIT_NS: u64 = 1_000_000;

/// Longest wait of an idle shard. Commands end it at once.
const LONGEST_IDLE_WAIT_NS: u64 = 100_000_000;

/// What a shard is told by other threads.
pub(crate) enum Command {
    Run(RunSpec),
    /// Runs on the shard, to start a service there.
    Execute(Work),
}

/// What starts a service on a shard.
pub(crate) type Work = Box<dyn FnOnce(&Rc<Shard>) + Send>;

/// The other threads' hold on a shard.
#[derive(Clone)]
pub(crate) struct ShardHandle {
    pub(crate) core: usize,
    commands: Sender<Command>,
    waker: RingWaker,
    pub(super) pulse: Arc<Pulse>,
}

impl ShardHandle {
    /// `false` if the shard is gone.
    pub(crate) fn send(&self, command: Command) -> bool {
        let sent = self.commands.send(command).is_ok();
        self.waker.wake();
        sent
    }
}

thread_local! {
    static CURRENT: RefCell<Option<Rc<Shard>>> = const { RefCell::new(None) };
}

/// The shard that this thread is, if it is one.
pub(crate) fn current() -> Option<Rc<Shard>> {
    CURRENT.with(|current| current.borrow().clone())
}

/// See the module's documentation.
pub(crate) struct Shard {
    clock: Clock,
    /// The clock as the turn began.
    now: Cell<u64>,
    slice_end: Cell<u64>,
    /// Until then the task that is being polled may start transactions without waiting for a turn.
    free_until: Cell<u64>,
    /// Polls of guarded tasks, ever: a turn in which it stands still had nothing to run.
    polls: Cell<u64>,
    idle_ns: Cell<u64>,
    look: Cell<Look>,
    /// Something made a task ready outside of the tasks' own polls.
    stirred: Cell<bool>,
    /// Transactions of all runs that wait for a turn.
    queued: Rc<Cell<u32>>,
    calls: Cell<Calls>,
    /// Who is called in this turn; empty between turns, and kept for its memory.
    called: RefCell<Vec<Waker>>,
    runs: RefCell<Vec<Rc<ShardRun>>>,
    /// Services (a test target) that want the shard awake for their connections.
    services: Cell<u32>,
    pub(crate) timers: Timers,
    pulse: Arc<Pulse>,
    pub(crate) ring: Rc<Ring>,
    #[cfg(feature = "tokio")]
    inbox: Arc<Inbox>,
}

impl Shard {
    /// Nanoseconds of the process's clock.
    #[inline]
    pub(crate) fn now(&self) -> u64 {
        self.clock.now()
    }

    /// The same as the turn began, at no cost.
    pub(crate) fn now_coarse(&self) -> u64 {
        self.now.get()
    }

    /// Where runs count those that wait for a turn.
    pub(crate) fn queued(&self) -> Rc<Cell<u32>> {
        Rc::clone(&self.queued)
    }

    /// Until then the task that is being polled may start transactions without waiting for a turn: to
    /// the end of the slice if nobody waits, or for its part of the slice if it is its turn.
    #[inline]
    pub(crate) fn free_until(&self) -> u64 {
        self.free_until.get()
    }

    /// One that was called in this turn has been polled. `true` if it may start transactions.
    pub(crate) fn answer_call(&self, now: u64) -> bool {
        let mut calls = self.calls.get();
        let free_until = calls.answer(now, self.slice_end.get(), SLICE_NS);
        self.calls.set(calls);
        self.free_until.set(free_until.unwrap_or(0));
        free_until.is_some()
    }

    /// Calls as many of those who wait for a turn as it can serve, one of each run after the other.
    fn call(&self, runs: &[Rc<ShardRun>], now: u64) {
        if self.queued.get() == 0 || runs.is_empty() {
            return;
        }
        let mut calls = self.calls.get();
        let most = calls.begin();
        let mut called = self.called.take();
        runs.iter().for_each(|run| run.begin_calls());
        let first = calls.first(runs.len());
        let mut in_a_row = 0;
        for run in runs.iter().cycle().skip(first) {
            if called.len() as u32 == most || in_a_row == runs.len() {
                break;
            }
            match run.call_next(now) {
                Some(waker) => {
                    called.push(waker);
                    in_a_row = 0;
                }
                None => in_a_row += 1,
            }
        }
        calls.called(called.len() as u32);
        self.calls.set(calls);
        // To wake a task may drop it, and so run code of the user: nothing is borrowed here.
        called.drain(..).for_each(Waker::wake);
        self.called.replace(called);
        // Those that were not called want another turn.
        self.stir();
    }

    pub(crate) fn pulse(&self) -> &Pulse {
        &self.pulse
    }

    pub(crate) fn count_poll(&self) {
        self.polls.set(self.polls.get() + 1);
        // Who comes while others wait goes behind them.
        let free_until = if self.queued.get() == 0 { self.slice_end.get() } else { 0 };
        self.free_until.set(free_until);
        // What this task reads is its own, and what others have read is not.
        self.ring.forget_receipt();
    }

    /// Says that a task has been made ready, so that the driver must not wait before it has run.
    pub(crate) fn stir(&self) {
        self.stirred.set(true);
    }

    /// Time, ever, in which the shard had nothing to do.
    pub(crate) fn idle_ns(&self) -> u64 {
        self.idle_ns.get()
    }

    /// The most by which the end of a transaction, read now, can have come later than its answer.
    #[inline]
    pub(crate) fn seen_late_ns(&self, start_ns: u64, end_ns: u64) -> u64 {
        self.look.get().late_ns(start_ns, end_ns)
    }

    pub(crate) fn add_service(&self) {
        self.services.set(self.services.get() + 1);
    }

    pub(crate) fn remove_service(&self) {
        self.services.set(self.services.get() - 1);
    }

    /// Where other threads leave the tasks that they have woken.
    #[cfg(feature = "tokio")]
    pub(crate) fn inbox(&self) -> &Arc<Inbox> {
        &self.inbox
    }

    /// What it waits for is done by threads that may want this very core: to spin would keep them
    /// from it.
    fn makes_room(&self) -> bool {
        #[cfg(feature = "tokio")]
        return self.inbox.is_in_use(self.now.get()) && crate::tokio_context::shares_cores();
        #[cfg(not(feature = "tokio"))]
        false
    }

    /// Runs a future of a service on this shard, guarded like any other task's polls are not: the
    /// crate's own services must not panic.
    pub(crate) fn spawn_service(self: &Rc<Self>, future: impl Future<Output = ()> + 'static) {
        let shard = Rc::clone(self);
        let mut future = Box::pin(future);
        executor::spawn_local(std::future::poll_fn(move |cx| {
            shard.count_poll();
            future.as_mut().poll(cx)
        }));
    }
}

/// The shard's main task: builds the shard, tells `ready` how that went, and drives it for ever.
pub(crate) async fn main(
    core: usize,
    max_sockets: u32,
    ready: Sender<Result<ShardHandle, std::io::Error>>,
) {
    let ring = match Ring::new(max_sockets) {
        Ok(ring) => ring,
        Err(error) => {
            let _ = ready.send(Err(error));
            return;
        }
    };
    let (sender, commands) = crossbeam_channel::unbounded();
    let pulse = Arc::new(Pulse::new());
    let handle =
        ShardHandle { core, commands: sender, waker: ring.waker(), pulse: Arc::clone(&pulse) };
    let clock = Clock::get();
    let shard = Rc::new(Shard {
        now: Cell::new(clock.now()),
        clock,
        slice_end: Cell::new(0),
        free_until: Cell::new(0),
        polls: Cell::new(0),
        idle_ns: Cell::new(0),
        look: Cell::default(),
        stirred: Cell::new(false),
        queued: Rc::default(),
        calls: Cell::default(),
        called: RefCell::default(),
        runs: RefCell::new(Vec::new()),
        services: Cell::new(0),
        timers: Timers::default(),
        pulse,
        #[cfg(feature = "tokio")]
        inbox: Inbox::new(ring.waker()),
        ring: Rc::clone(&ring),
    });
    ring::set_current(Some(ring));
    // The instance that is polled is the one whose connection it is.
    handshake::observe(|handshake| {
        if let Some(instance) = instance::current() {
            instance.run.shook_hands(handshake);
        }
    });
    outside::watch_clients();
    CURRENT.with(|current| *current.borrow_mut() = Some(Rc::clone(&shard)));
    if ready.send(Ok(handle)).is_ok() {
        drive(&shard, &commands).await;
    }
    CURRENT.with(|current| *current.borrow_mut() = None);
    ring::set_current(None);
}

/// Turn after turn: read the clock once, do what is due, hand over and reap in one system call,
/// let the tasks run.
async fn drive(shard: &Rc<Shard>, commands: &Receiver<Command>) {
    let mut runs = Vec::new();
    let mut last_active = shard.now();
    let mut was_active = true;
    // In the kernel, in the turn before.
    let mut waited = 0;
    loop {
        let now = shard.now();
        if was_active {
            last_active = now;
        }
        let idle = idle_ns(now.saturating_sub(shard.now.get()), waited, was_active);
        shard.idle_ns.set(shard.idle_ns.get() + idle);
        shard.now.set(now);
        while let Ok(command) = commands.try_recv() {
            execute(shard, command);
        }
        // A copy, since a run's turn may add to the list only through commands, but tasks that
        // it wakes may look at it.
        runs.clone_from(&*shard.runs.borrow());
        let polls_before = shard.polls.get();
        let mut next = Next::NEVER;
        let mut in_flight = false;
        let mut done = false;
        for run in &runs {
            next = next.or(run.turn(now));
            in_flight |= run.has_in_flight();
            done |= run.is_done();
        }
        shard.call(&runs, now);
        if done {
            let mut runs = shard.runs.borrow_mut();
            runs.retain(|run| !run.is_done());
            if runs.is_empty() {
                drop(runs);
                shard.ring.idle();
            }
        }
        // Not only when a run ends: what its last clones kept open goes only with them, and a
        // client's user may drop it later, on another thread.
        if runs.is_empty() && !was_active {
            shard.ring.idle();
        }
        next = next.or(Next::plain(shard.timers.fire(now, || shard.stir())));
        let idle_for = now.saturating_sub(last_active);
        let busy_with = Load {
            runs: !runs.is_empty(),
            answers: in_flight && !shard.makes_room(),
            services: shard.services.get(),
        };
        // Tasks that ran may have woken others, which only another turn would find.
        let ready = shard.stirred.replace(false) || was_active;
        let wait = wait(now, next, ready, idle_for, &busy_with);
        #[cfg(feature = "tokio")]
        let wait = shard.inbox.before(wait);
        let entered = if wait == Wait::No { None } else { Some(shard.now()) };
        let turn = match shard.ring.turn(wait) {
            Ok(turn) => turn,
            // Nothing can go on without its ring. The thread's end tells the aggregator.
            Err(error) => panic!("balter-uring: the ring of a shard failed: {error}"),
        };
        let left = shard.now();
        waited = entered.map_or(0, |entered| left.saturating_sub(entered));
        shard.look.set(shard.look.get().next(left, waited, turn.more));
        #[cfg(feature = "tokio")]
        shard.inbox.deliver(now);
        shard.slice_end.set(left + slice_ns(left, next));
        executor::yield_now().await;
        was_active = turn.completed + turn.submitted > 0 || shard.polls.get() != polls_before;
    }
}

/// How long the tasks of a turn that begins at `now` may go on starting transactions.
fn slice_ns(now: u64, next: Next) -> u64 {
    next.at_ns.saturating_sub(now).clamp(SLICE_NS, LONG_SLICE_NS)
}

/// How much of a turn of `length` nanoseconds the shard had nothing to do in. It waits in the kernel
/// only when nothing is left to do and to submit, so that wait is idle even if a completion ends it.
fn idle_ns(length: u64, waited: u64, was_active: bool) -> u64 {
    if was_active { waited.min(length) } else { length }
}

/// When the shard last asked the kernel for completions. Only there are they produced
/// (`DEFER_TASKRUN`), so an answer that came in between was not seen before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Look {
    /// What was seen by the last look came no earlier than this long before its end, with the wait
    /// in the kernel left out: had it been there when the wait began, there would have been none.
    since_ns: u64,
    /// The end of the last look.
    at_ns: u64,
    /// The end of the last look that saw all that had come.
    all_ns: u64,
}

impl Look {
    /// Another look has ended at `left_ns`, of which so much was a wait in the kernel, and which has
    /// left something unseen if there is `more`.
    fn next(self, left_ns: u64, waited_ns: u64, more: bool) -> Self {
        Self {
            since_ns: self.all_ns.saturating_add(waited_ns).min(left_ns),
            at_ns: left_ns,
            all_ns: if more { self.all_ns } else { left_ns },
        }
    }

    #[inline]
    fn late_ns(self, start_ns: u64, end_ns: u64) -> u64 {
        // One that has started since cannot have been answered through the kernel.
        if start_ns >= self.at_ns { 0 } else { end_ns.saturating_sub(self.since_ns.max(start_ns)) }
    }
}

/// What a shard waits for.
#[derive(Clone, Copy, Debug, Default)]
struct Load {
    runs: bool,
    /// Answers may come that are worth being awake for.
    answers: bool,
    services: u32,
}

/// How long the shard may wait in the kernel. Whatever else is due before a permit, the shard is
/// awake for the permit.
fn wait(now: u64, next: Next, ready: bool, idle_for: u64, load: &Load) -> Wait {
    if ready || next.at_ns <= now {
        return Wait::No;
    }
    let until_permit = next.permit_ns.saturating_sub(now);
    if until_permit <= SPIN_BEFORE_PERMIT_NS {
        return Wait::No;
    }
    if load.answers && idle_for < SPIN_FOR_ANSWER_NS {
        return Wait::No;
    }
    let longest =
        if load.runs || load.services > 0 { LONGEST_WAIT_NS } else { LONGEST_IDLE_WAIT_NS };
    Wait::AtMost((next.at_ns - now).min(until_permit - WAKE_EARLY_NS).min(longest))
}

fn execute(shard: &Rc<Shard>, command: Command) {
    match command {
        Command::Run(spec) => {
            let run = ShardRun::new(spec, Rc::clone(shard));
            shard.runs.borrow_mut().push(run);
        }
        Command::Execute(work) => work(shard),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUN: Load = Load { runs: true, answers: false, services: 0 };
    const NOW: u64 = 1_000_000_000;

    /// Times from now, in microseconds.
    fn next(at: u64, permit: Option<u64>) -> Next {
        let permit_ns = permit.map_or(u64::MAX, |permit| NOW + permit * 1_000);
        Next { at_ns: (NOW + at * 1_000).min(permit_ns), permit_ns }
    }

    #[test]
    fn a_permit_is_spun_for_whatever_comes_before_it() {
        // Another thing that is due, the permit, and how long to wait in the kernel; µs.
        let cases = [
            (5_000, None, Some(1_000)),
            (400, None, Some(400)),
            (30, None, Some(30)),
            (5_000, Some(5_000), Some(1_000)),
            (5_000, Some(500), Some(440)),
            (5_000, Some(101), Some(41)),
            (5_000, Some(100), None),
            (5_000, Some(0), None),
            // The end of a window or a timer just before the permit: to wait until then would be to
            // wake up after the permit.
            (480, Some(500), Some(440)),
            (440, Some(500), Some(440)),
            (300, Some(500), Some(300)),
            (30, Some(80), None),
            (90, Some(100), None),
            (10, Some(101), Some(10)),
            (50, Some(101), Some(41)),
            (0, Some(500), None),
        ];
        for (at, permit, expected) in cases {
            let expected = expected.map_or(Wait::No, |micros: u64| Wait::AtMost(micros * 1_000));
            assert_eq!(wait(NOW, next(at, permit), false, 0, &RUN), expected, "{at} {permit:?}");
        }
    }

    #[test]
    fn the_nearest_of_several_runs_is_kept_apart_for_permits() {
        let (permit, timer) = (next(9_000, Some(150)), next(130, None));
        for both in [permit.or(timer), timer.or(permit)] {
            assert_eq!((both.at_ns, both.permit_ns), (NOW + 130_000, NOW + 150_000));
        }
        assert_eq!(Next::NEVER.or(Next::NEVER).at_ns, u64::MAX);
    }

    #[test]
    fn a_slice_is_short_when_something_is_due() {
        assert_eq!(slice_ns(NOW, Next::NEVER), LONG_SLICE_NS);
        assert_eq!(slice_ns(NOW, next(120, None)), 120_000);
        assert_eq!(slice_ns(NOW, next(5_000, Some(10))), SLICE_NS);
        assert_eq!(slice_ns(NOW, Next::plain(0)), SLICE_NS);
    }

    #[test]
    fn a_shard_waits_only_when_nothing_else_is_to_be_done() {
        let far = next(50_000, None);
        assert_eq!(wait(NOW, far, true, u64::MAX, &RUN), Wait::No);
        let answers = Load { answers: true, ..RUN };
        assert_eq!(wait(NOW, far, false, SPIN_FOR_ANSWER_NS - 1, &answers), Wait::No);
        let waits = wait(NOW, far, false, SPIN_FOR_ANSWER_NS, &answers);
        assert_eq!(waits, Wait::AtMost(LONGEST_WAIT_NS));
        let idle = Load::default();
        assert_eq!(wait(NOW, Next::NEVER, false, 0, &idle), Wait::AtMost(LONGEST_IDLE_WAIT_NS));
    }

    #[test]
    fn a_wait_that_a_completion_ends_is_idle() {
        // Of 800 µs all but 20 were spent in the kernel: it did not work 100 % of the time.
        assert_eq!(idle_ns(800_000, 780_000, true), 780_000);
        assert_eq!(idle_ns(800_000, 780_000, false), 800_000);
        assert_eq!(idle_ns(5_000, 0, true), 0);
        assert_eq!(idle_ns(5_000, 6_000, true), 5_000);
    }

    #[test]
    fn an_answer_is_seen_late_by_no_more_than_the_time_since_the_look_before() {
        // Two looks, at 1 000 and 1 700, neither of which waited.
        let look = Look::default().next(1_000, 0, false).next(1_700, 0, false);
        assert_eq!(look.late_ns(400, 1_750), 750);
        // It started between them: its answer is no older than itself.
        assert_eq!(look.late_ns(1_200, 1_750), 550);
        // It started after both: nothing of it went through the kernel.
        assert_eq!(look.late_ns(1_700, 1_750), 0);
        // The second waited for 600 of the 700: what it saw came while it waited, or at the most
        // in the 100 before.
        let look = Look::default().next(1_000, 0, false).next(1_700, 600, false);
        assert_eq!(look.late_ns(400, 1_750), 150);
        // A clock that stands still is no underflow.
        assert_eq!(look.next(1_700, 10, false).late_ns(400, 1_700), 0);
        // The look at 1 700 did not see all: what the next ones see may have been there before it.
        let look = Look::default().next(1_000, 0, false).next(1_700, 0, true).next(1_900, 0, false);
        assert_eq!(look.late_ns(400, 1_950), 950);
        assert_eq!(look.next(2_000, 0, false).late_ns(400, 2_010), 110);
    }
}
