//! One run on one shard: its phases, its instances, and what these ask of it.

mod permits;
mod spec;
mod windows;

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use slab::Slab;

use super::budget::{Budget, Course};
use super::executor;
use super::instance::{Guarded, Instance, Role};
use super::shard::Shard;
use super::window::{Outcome, Times};
use crate::handshake::Handshake;
use crate::traffic::Traffic;
use crate::transaction::TransactionMeta;
use permits::{Permits, Place};
pub(crate) use spec::{Factory, Maker, Report, RunSpec, WINDOWS_IN_FLIGHT};
use windows::{Running, Sent, Standing, Windows};

/// A permit that has waited so long is reason to start another instance: an instance that is about
/// to be free would have taken it, and a connection takes about as long to open.
const SPAWN_AFTER_NS: u64 = 1_000_000;

/// Instances that are started in one go when permits wait, as a share of those there are.
const SPAWN_SHARE: u32 = 4;

/// A shard with less idle time than this share has no use for more instances: what its permits
/// wait for is the shard itself.
const SPARE_SHARE: u64 = 20;

/// Permits due in the last moment before the end are still handed out for so long: without it,
/// whether the last permit counts as missed would be a matter of microseconds.
const LAST_CALL_NS: u64 = 10_000_000;

/// Panics in a row after which a scenario is taken to do nothing else.
const MAX_PANICS: u32 = 100;

/// A permit, taken.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Grant {
    pub(crate) intended: u64,
    pub(crate) start: u64,
    /// See [`Times::awaited`].
    pub(crate) awaited: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Before its start, or running.
    Running,
    /// Past its end, handing out what was due.
    LastCall,
    /// Nothing starts any more; what is in flight has until the given time.
    Draining {
        until_ns: u64,
    },
    /// Instances are being dropped.
    Ending,
    /// The last window waits for its place in the channel.
    Reporting,
    Done,
}

/// See the module's documentation.
pub(crate) struct ShardRun {
    spec: RunSpec,
    shard: Rc<Shard>,
    phase: Cell<Phase>,
    budget: Cell<Budget>,
    permits: RefCell<Permits>,
    windows: RefCell<Windows>,
    next_sweep: Cell<u64>,
    next_spawn: Cell<u64>,
    /// The clock, and the shard's idle time, when starting instances was last thought of.
    spawn_checked: Cell<(u64, u64)>,
    tasks: RefCell<Slab<Rc<Instance>>>,
    instances: Cell<u32>,
    /// Instances beyond the limit, which leave when they next ask for a permit.
    surplus: Cell<u32>,
    /// Transactions, ever.
    started: Cell<u64>,
    in_flight: Cell<u32>,
    panics_in_a_row: Cell<u32>,
}

impl ShardRun {
    pub(crate) fn new(spec: RunSpec, shard: Rc<Shard>) -> Rc<Self> {
        let budget = spec.slot.budget(spec.start_ns).unwrap_or_default();
        let tps = if spec.open { budget.tps } else { 0 };
        Rc::new(Self {
            phase: Cell::new(Phase::Running),
            budget: Cell::new(budget),
            permits: RefCell::new(Permits::new(&spec, tps)),
            windows: RefCell::new(Windows::new(&spec, shard.idle_ns())),
            next_sweep: Cell::new(0),
            next_spawn: Cell::new(0),
            spawn_checked: Cell::new((spec.start_ns, shard.idle_ns())),
            tasks: RefCell::new(Slab::new()),
            instances: Cell::new(0),
            surplus: Cell::new(0),
            started: Cell::new(0),
            in_flight: Cell::new(0),
            panics_in_a_row: Cell::new(0),
            spec,
            shard,
        })
    }

    pub(crate) fn shard(&self) -> &Rc<Shard> {
        &self.shard
    }

    pub(crate) fn is_done(&self) -> bool {
        self.phase.get() == Phase::Done
    }

    pub(crate) fn has_in_flight(&self) -> bool {
        self.in_flight.get() > 0
    }

    pub(crate) fn make(&self) -> Pin<Box<dyn Future<Output = ()>>> {
        self.spec.factory.factory().make()
    }

    // ---- The shard's driver, each turn -------------------------------------------------------

    /// Does what is due at `now`. Answers when it next wants a turn, in nanoseconds of the clock;
    /// `is_permit` in the answer is `true` if that is a permit, which is worth being awake for.
    pub(crate) fn turn(self: &Rc<Self>, now: u64) -> Next {
        self.advance_phase(now);
        match self.phase.get() {
            Phase::Running if now < self.spec.start_ns => return Next::plain(self.spec.start_ns),
            Phase::Running => {
                self.apply_budget(now);
                self.keep_instances(now);
                self.release(now);
            }
            Phase::LastCall => self.release(now),
            Phase::Draining { .. } | Phase::Ending | Phase::Reporting | Phase::Done => {}
        }
        if now >= self.next_sweep.get() {
            self.sweep(now);
        }
        if now >= self.windows.borrow().end_ns {
            self.close_window(now, false);
        }
        self.next(now)
    }

    fn next(&self, now: u64) -> Next {
        let mut at = self.windows.borrow().end_ns;
        // A transaction can only be late where one is pending.
        if self.in_flight.get() > 0 {
            at = at.min(self.next_sweep.get());
        }
        match self.phase.get() {
            Phase::Running => {
                let permit = self.permits.borrow().pacer.next_due_ns().unwrap_or(u64::MAX);
                at = at.min(self.spec.end_ns);
                if permit <= at {
                    return Next { at_ns: permit, is_permit: true };
                }
            }
            Phase::Draining { until_ns } => at = at.min(until_ns),
            Phase::LastCall | Phase::Ending | Phase::Reporting => at = now + 100_000,
            Phase::Done => {}
        }
        Next::plain(at)
    }

    fn advance_phase(self: &Rc<Self>, now: u64) {
        let course = self.spec.slot.course();
        if self.phase.get() == Phase::Running && (now >= self.spec.end_ns || course > Course::Run) {
            self.permits.borrow_mut().pacer.advance(now.min(self.spec.end_ns));
            self.phase.set(Phase::LastCall);
        }
        if self.phase.get() == Phase::LastCall {
            self.release(now);
            let over = course > Course::Run
                || self.permits.borrow().pacer.backlog() == 0
                || now >= self.spec.end_ns.saturating_add(LAST_CALL_NS);
            if over && !self.permits.borrow().has_granted() {
                self.drain(now);
            }
        }
        if let Phase::Draining { until_ns } = self.phase.get()
            && (self.in_flight.get() == 0 || now >= until_ns || course == Course::Stop)
        {
            self.phase.set(Phase::Ending);
            self.kill_all();
        }
        if self.phase.get() == Phase::Ending && self.tasks.borrow().is_empty() {
            self.phase.set(Phase::Reporting);
        }
        if self.phase.get() == Phase::Reporting {
            self.close_window(now, true);
        }
    }

    fn drain(&self, now: u64) {
        self.permits.borrow_mut().pacer.finish();
        self.phase.set(Phase::Draining { until_ns: now.saturating_add(self.spec.grace_ns) });
    }

    fn apply_budget(&self, now: u64) {
        let before = self.budget.get();
        let granted = match self.spec.slot.budget(now) {
            Some(budget) => budget,
            // Without permits the instances start nothing, and keep their connections.
            None if self.spec.open => Budget { tps: 0, ..before },
            None => Budget::default(),
        };
        self.budget.set(granted);
        if granted != before && self.spec.open {
            self.permits.borrow_mut().pacer.set_rate(now, granted.tps);
        }
    }

    /// Hands due permits to those who wait for one.
    fn release(&self, now: u64) {
        if !self.spec.open {
            return;
        }
        if self.permits.borrow_mut().release(now) {
            self.shard.stir();
        }
    }

    /// Starts instances that are wanted, and has surplus ones leave.
    fn keep_instances(self: &Rc<Self>, now: u64) {
        let (limit, count) = (self.budget.get().concurrency, self.instances.get());
        if count > limit {
            self.surplus.set(count - limit);
            self.retire_waiting();
            return;
        }
        self.surplus.set(0);
        let wanted = if self.spec.open {
            let initial = self.spec.initial.min(limit);
            if count < initial { initial - count } else { self.spawn_for_backlog(now, count) }
        } else {
            limit - count
        };
        for _ in 0..wanted.min(limit - count) {
            self.spawn(Role::Scenario, None);
        }
    }

    fn spawn_for_backlog(&self, now: u64, count: u32) -> u32 {
        if now < self.next_spawn.get() || self.permits.borrow().has_waiters() {
            return 0;
        }
        let oldest = self.permits.borrow().pacer.oldest_due_ns();
        if oldest.is_none_or(|oldest| now.saturating_sub(oldest) < SPAWN_AFTER_NS) {
            return 0;
        }
        self.next_spawn.set(now + SPAWN_AFTER_NS);
        let idle = self.shard.idle_ns();
        let (checked, idle_then) = self.spawn_checked.replace((now, idle));
        if (idle - idle_then) * SPARE_SHARE < now.saturating_sub(checked) {
            return 0;
        }
        let backlog = u32::try_from(self.permits.borrow().pacer.backlog()).unwrap_or(u32::MAX);
        (count / SPAWN_SHARE).max(1).min(backlog)
    }

    /// Drops instances that wait for a permit, the youngest first, while there are too many.
    fn retire_waiting(&self) {
        let surplus = self.surplus.get();
        let leaving: Vec<_> =
            self.permits.borrow().idle_instances().take(surplus as usize).cloned().collect();
        self.surplus.set(surplus - leaving.len() as u32);
        for instance in leaving {
            instance.kill();
        }
    }

    /// Wakes transactions whose deadline has passed. Looking at all of them now and then, at a
    /// sixty-fourth of the timeout, costs less than a timer for each.
    fn sweep(&self, now: u64) {
        let every = (self.spec.timeout_ns / 64).clamp(1_000_000, 100_000_000);
        self.next_sweep.set(now + every);
        if self.permits.borrow().sweep(now) {
            self.shard.stir();
        }
    }

    fn kill_all(&self) {
        let tasks: Vec<_> =
            self.tasks.borrow().iter().map(|(_, instance)| Rc::clone(instance)).collect();
        for instance in tasks {
            instance.kill();
        }
        self.shard.stir();
    }

    // ---- Instances and their transactions ----------------------------------------------------

    /// Starts a task of this run.
    pub(crate) fn spawn(
        self: &Rc<Self>,
        role: Role,
        future: Option<Pin<Box<dyn Future<Output = ()>>>>,
    ) {
        let instance = Instance::new(Rc::clone(self), role);
        if matches!(self.phase.get(), Phase::Ending | Phase::Reporting | Phase::Done) {
            // A drop at the end of the run started it: it comes too late to do anything.
            instance.kill();
        }
        let key = self.tasks.borrow_mut().insert(Rc::clone(&instance));
        if role == Role::Scenario {
            self.instances.set(self.instances.get() + 1);
        }
        self.shard.stir();
        let task = Guarded::new(instance, key, future);
        #[cfg(feature = "tokio")]
        let task = super::remote_wake::Reachable::new(self.shard.inbox(), task);
        executor::spawn_local(task);
    }

    /// A task has ended.
    pub(crate) fn forget(&self, key: usize, instance: &Rc<Instance>) {
        let forgotten = self.tasks.borrow_mut().remove(key);
        debug_assert!(Rc::ptr_eq(&forgotten, instance));
        if instance.role() == Role::Scenario {
            self.instances.set(self.instances.get() - 1);
        }
    }

    /// `entry` is the caller's place among those who wait, where it has one. The permit is written
    /// to `grant`, once: returned by value it would be copied in pieces, which costs 5 ns.
    pub(crate) fn poll_permit(
        &self,
        instance: &Rc<Instance>,
        entry: &mut u32,
        grant: &mut Grant,
        cx: &Context<'_>,
    ) -> Poll<()> {
        match self.permits.borrow_mut().place(*entry, cx) {
            Place::Granted(intended) => {
                let start = self.shard.now();
                return self.started(grant, Grant { intended, start, awaited: true });
            }
            Place::Waiting => return Poll::Pending,
            Place::New => {}
        }
        if self.phase.get() != Phase::Running {
            // It ends here: its task is dropped when the run has drained.
            return Poll::Pending;
        }
        let now = self.shard.now();
        if now >= self.shard.slice_end() {
            // It has had its slice of the turn. Code that never waits, as a transaction that does
            // nothing, would otherwise keep the driver from its clock.
            self.shard.wait_for_turn(cx);
            return Poll::Pending;
        }
        if self.surplus.get() > 0 && instance.is_idle() && instance.role() == Role::Scenario {
            self.surplus.set(self.surplus.get() - 1);
            instance.kill();
            return Poll::Pending;
        }
        if !self.spec.open {
            return self.started(grant, Grant { intended: now, start: now, awaited: false });
        }
        let mut permits = self.permits.borrow_mut();
        // Who waits comes first; then there is no permit left to take here.
        if let Some(intended) = permits.pacer.take_due(now) {
            return self.started(grant, Grant { intended, start: now, awaited: false });
        }
        *entry = permits.wait(*entry, instance, cx);
        Poll::Pending
    }

    #[inline]
    fn started(&self, place: &mut Grant, grant: Grant) -> Poll<()> {
        self.in_flight.set(self.in_flight.get() + 1);
        self.started.set(self.started.get() + 1);
        *place = grant;
        Poll::Ready(())
    }

    /// Gives up an entry; a permit that was not taken goes back.
    pub(crate) fn release_entry(&self, key: u32) {
        self.permits.borrow_mut().leave(key);
    }

    /// Notes that a started transaction waits, so that its deadline is watched.
    pub(crate) fn pend(&self, key: u32, start: u64, cx: &Context<'_>) -> u32 {
        let deadline = start.saturating_add(self.spec.timeout_ns);
        self.permits.borrow_mut().pend(key, deadline, cx)
    }

    pub(crate) fn unpend(&self, key: u32) {
        self.permits.borrow_mut().unpend(key);
    }

    pub(crate) fn is_expired(&self, key: u32) -> bool {
        self.permits.borrow().is_expired(key, self.shard.now_coarse())
    }

    /// A started transaction has ended, now.
    #[inline]
    pub(crate) fn ended(&self, meta: &'static TransactionMeta, grant: &Grant, outcome: Outcome) {
        let &Grant { intended, start, awaited } = grant;
        let times = Times { intended, start, end: self.shard.now(), awaited };
        self.in_flight.set(self.in_flight.get() - 1);
        if outcome == Outcome::Succeeded {
            self.panics_in_a_row.set(0);
        }
        self.windows.borrow_mut().current.record(meta, times, outcome);
    }

    /// A connection of an instance has shaken hands.
    pub(crate) fn shook_hands(&self, handshake: Handshake) {
        self.windows.borrow_mut().current.record_handshake(handshake);
    }

    /// An instance has moved bytes or opened connections, in one poll.
    pub(crate) fn moved(&self, traffic: Traffic) {
        self.windows.borrow_mut().current.traffic.add(traffic);
    }

    /// A scenario has returned.
    pub(crate) fn survived(&self) {
        self.panics_in_a_row.set(0);
    }

    /// User code has panicked.
    pub(crate) fn panicked(&self, payload: &(dyn Any + Send)) {
        {
            let window = &mut self.windows.borrow_mut().current;
            window.panics += 1;
            window.panic.get_or_insert_with(|| message(payload));
        }
        let in_a_row = self.panics_in_a_row.get() + 1;
        self.panics_in_a_row.set(in_a_row);
        if in_a_row == MAX_PANICS {
            // For all shards: their instances run the same code.
            self.spec.slot.raise(Course::Drain);
        }
    }

    // ---- Windows -----------------------------------------------------------------------------

    fn close_window(&self, now: u64, last: bool) {
        let mut windows = self.windows.borrow_mut();
        if now < windows.end_ns && !last {
            return;
        }
        match windows.close(now, last, &self.standing(), &self.spec) {
            Sent::Yes if last => self.phase.set(Phase::Done),
            Sent::Yes | Sent::Later => {}
            Sent::Never => {
                self.phase.set(Phase::Done);
                drop(windows);
                self.kill_all();
            }
        }
    }

    fn standing(&self) -> Standing {
        let pacer = &self.permits.borrow().pacer;
        let counts = pacer.counts();
        Standing {
            running: Running {
                planned: self.spec.open.then_some(counts.planned),
                missed: counts.missed,
                started: self.started.get(),
                idle_ns: self.shard.idle_ns(),
            },
            backlog: pacer.backlog() as u64,
            instances: self.instances.get(),
            in_flight: self.in_flight.get(),
        }
    }
}

/// When a run wants its next turn.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Next {
    pub(crate) at_ns: u64,
    pub(crate) is_permit: bool,
}

impl Next {
    const fn plain(at_ns: u64) -> Self {
        Self { at_ns, is_permit: false }
    }
}

/// What tokio's own panics say where there is no runtime.
const NO_RUNTIME: &str = "there is no reactor running";

fn message(payload: &(dyn Any + Send)) -> String {
    let message = text(payload);
    if !cfg!(feature = "tokio") && message.contains(NO_RUNTIME) {
        return format!(
            "{message}. Clients made for tokio need the feature `tokio` of balter-uring inside a \
             scenario"
        );
    }
    message
}

fn text(payload: &(dyn Any + Send)) -> String {
    payload
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a panic with a payload that is no text".to_owned())
}
