//! A shard: one thread, pinned to one core, with one executor and one ring. Its driver is the
//! heartbeat.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Waker};

use crossbeam_channel::{Receiver, Sender};

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
    /// Polls of guarded tasks, ever: a turn in which it stands still had nothing to run.
    polls: Cell<u64>,
    idle_ns: Cell<u64>,
    /// Something made a task ready outside of the tasks' own polls.
    stirred: Cell<bool>,
    /// Tasks that go on with the next turn, in the order in which they were told to wait for it.
    yielded: RefCell<Vec<Waker>>,
    runs: RefCell<Vec<Rc<ShardRun>>>,
    /// Services (a test target) that want the shard awake for their connections.
    services: Cell<u32>,
    pub(crate) timers: Timers,
    pulse: Arc<Pulse>,
    pub(crate) ring: Rc<Ring>,
    #[cfg(feature = "tokio")]
    inbox: std::sync::Arc<Inbox>,
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

    pub(crate) fn slice_end(&self) -> u64 {
        self.slice_end.get()
    }

    /// Has the task go on with the next turn, since this one's slice has been used up.
    pub(crate) fn wait_for_turn(&self, cx: &Context<'_>) {
        self.yielded.borrow_mut().push(cx.waker().clone());
    }

    /// The first that was told to wait is the one that used up the slice. Now the others come first:
    /// where none of them ever waits for anything else, it would have all slices otherwise.
    fn resume(&self) {
        let mut yielded = self.yielded.take();
        if yielded.is_empty() {
            return;
        }
        yielded.rotate_left(1);
        yielded.drain(..).for_each(Waker::wake);
        // Its memory serves again. To wake a task may drop it, and so run code of the user.
        let mut place = self.yielded.borrow_mut();
        if place.is_empty() {
            *place = yielded;
        }
        self.stir();
    }

    pub(crate) fn pulse(&self) -> &Pulse {
        &self.pulse
    }

    pub(crate) fn count_poll(&self) {
        self.polls.set(self.polls.get() + 1);
    }

    /// Says that a task has been made ready, so that the driver must not wait before it has run.
    pub(crate) fn stir(&self) {
        self.stirred.set(true);
    }

    /// Time, ever, in which the shard had nothing to do.
    pub(crate) fn idle_ns(&self) -> u64 {
        self.idle_ns.get()
    }

    pub(crate) fn add_service(&self) {
        self.services.set(self.services.get() + 1);
    }

    pub(crate) fn remove_service(&self) {
        self.services.set(self.services.get() - 1);
    }

    /// Where other threads leave the tasks that they have woken.
    #[cfg(feature = "tokio")]
    pub(crate) fn inbox(&self) -> &std::sync::Arc<Inbox> {
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
        polls: Cell::new(0),
        idle_ns: Cell::new(0),
        stirred: Cell::new(false),
        yielded: RefCell::default(),
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
    loop {
        let now = shard.now();
        if was_active {
            last_active = now;
        } else {
            let since = now.saturating_sub(shard.now.get());
            shard.idle_ns.set(shard.idle_ns.get() + since);
        }
        shard.now.set(now);
        while let Ok(command) = commands.try_recv() {
            execute(shard, command);
        }
        // A copy, since a run's turn may add to the list only through commands, but tasks that
        // it wakes may look at it.
        runs.clone_from(&*shard.runs.borrow());
        let polls_before = shard.polls.get();
        let mut next = Next { at_ns: u64::MAX, is_permit: false };
        let mut in_flight = false;
        let mut done = false;
        for run in &runs {
            let wanted = run.turn(now);
            if wanted.at_ns < next.at_ns {
                next = wanted;
            }
            in_flight |= run.has_in_flight();
            done |= run.is_done();
        }
        shard.resume();
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
        let timer = shard.timers.fire(now, || shard.stir());
        if timer < next.at_ns {
            next = Next { at_ns: timer, is_permit: false };
        }
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
        let turn = match shard.ring.turn(wait) {
            Ok(turn) => turn,
            // Nothing can go on without its ring. The thread's end tells the aggregator.
            Err(error) => panic!("balter-uring: the ring of a shard failed: {error}"),
        };
        #[cfg(feature = "tokio")]
        shard.inbox.deliver(now);
        shard.slice_end.set(shard.now() + SLICE_NS);
        executor::yield_now().await;
        was_active = turn.completed + turn.submitted > 0 || shard.polls.get() != polls_before;
    }
}

/// What a shard waits for.
struct Load {
    runs: bool,
    /// Answers may come that are worth being awake for.
    answers: bool,
    services: u32,
}

fn wait(now: u64, next: Next, ready: bool, idle_for: u64, load: &Load) -> Wait {
    if ready || next.at_ns <= now {
        return Wait::No;
    }
    let until_next = next.at_ns - now;
    if next.is_permit && until_next <= SPIN_BEFORE_PERMIT_NS {
        return Wait::No;
    }
    if load.answers && idle_for < SPIN_FOR_ANSWER_NS {
        return Wait::No;
    }
    let longest =
        if load.runs || load.services > 0 { LONGEST_WAIT_NS } else { LONGEST_IDLE_WAIT_NS };
    let early = if next.is_permit { WAKE_EARLY_NS } else { 0 };
    Wait::AtMost((until_next - early).min(longest))
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
