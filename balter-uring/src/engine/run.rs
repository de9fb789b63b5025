//! One run on one shard: its schedule, its instances, its current window.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use balter_controllers::{Arrival, Pacer, PacerConfig};
use crossbeam_channel::{Receiver, Sender, TrySendError};
use slab::Slab;

use super::budget::{Budget, BudgetSlot, Course};
use super::executor;
use super::instance::{Guarded, Instance, NO_ENTRY, Role};
use super::shard::Shard;
use super::window::{Outcome, ShardWindow, Times};
use crate::failure::FailureClass;
use crate::transaction::TransactionMeta;

/// Makes the future of one scenario instance.
pub(crate) trait Factory: Send {
    fn make(&self) -> Pin<Box<dyn Future<Output = ()>>>;
    fn boxed_clone(&self) -> Box<dyn Factory>;
}

/// A factory on the engine's side. Dropping it drops the scenario's arguments, which is user code:
/// its panic must not end a shard or the aggregator.
pub(crate) struct Maker(Option<Box<dyn Factory>>);

impl Maker {
    pub(crate) fn new(factory: Box<dyn Factory>) -> Self {
        Self(Some(factory))
    }

    fn factory(&self) -> &dyn Factory {
        self.0.as_deref().expect("taken by `drop` alone")
    }

    pub(crate) fn boxed_clone(&self) -> Self {
        Self::new(self.factory().boxed_clone())
    }
}

impl Drop for Maker {
    fn drop(&mut self) {
        let factory = self.0.take();
        if let Err(payload) = catch_unwind(AssertUnwindSafe(|| drop(factory))) {
            // Dropping the payload could panic again.
            std::mem::forget(payload);
        }
    }
}

/// A window on its way to the aggregator.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) run: u64,
    /// Index of the shard among those of the run.
    pub(crate) part: u32,
    pub(crate) window: Box<ShardWindow>,
}

/// What a shard is told of a run.
pub(crate) struct RunSpec {
    pub(crate) run: u64,
    pub(crate) part: u32,
    pub(crate) parts: u32,
    pub(crate) factory: Maker,
    pub(crate) slot: Arc<BudgetSlot>,
    /// Open loop: transactions wait for permits. Closed: they start when an instance is free.
    pub(crate) open: bool,
    pub(crate) arrival: Arrival,
    /// Instances to begin with, on this shard.
    pub(crate) initial: u32,
    pub(crate) start_ns: u64,
    /// `u64::MAX` for a run without end.
    pub(crate) end_ns: u64,
    pub(crate) window_ns: u64,
    pub(crate) timeout_ns: u64,
    pub(crate) grace_ns: u64,
    pub(crate) reports: Sender<Report>,
    /// Emptied windows come back here.
    pub(crate) returned: Receiver<Box<ShardWindow>>,
}

/// Windows of a shard that may be with the aggregator at a time. When it is slower than that, the
/// current window just grows longer.
pub(crate) const WINDOWS_IN_FLIGHT: usize = 3;

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

/// Overdue permits that one shard keeps (8 MiB of them).
const MAX_BACKLOG: usize = 1 << 20;

/// The longest that a permit may be overdue.
const MAX_BACKLOG_AGE_NS: u64 = 10_000_000_000;

/// A shard that has not turned for so long was not running, and must not make up for it.
const MAX_GAP_NS: u64 = 1_000_000_000;

/// Panics in a row after which a scenario is taken to do nothing else.
const MAX_PANICS: u32 = 100;

/// A permit, taken.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Grant {
    pub(crate) intended: u64,
    /// See [`Times::punctual`].
    pub(crate) punctual: u64,
    pub(crate) start: u64,
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

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum EntryState {
    Idle,
    /// In `waiters`.
    Waiting,
    /// Has a permit with this intended start that it has not taken yet.
    Granted(u64),
    /// Started and pending; late at this time.
    Pending(u64),
}

/// A transaction that waits, for its permit or for its target. Entries are used again with the
/// waker that they have, so that a transaction clones none.
struct Entry {
    state: EntryState,
    waker: Option<Waker>,
    /// Set while waiting.
    instance: Option<Rc<Instance>>,
}

/// See the module's documentation.
pub(crate) struct ShardRun {
    spec: RunSpec,
    shard: Rc<Shard>,
    phase: Cell<Phase>,
    budget: Cell<Budget>,
    pacer: RefCell<Pacer>,
    /// Totals of the pacer at the last window's end.
    accounted: Cell<(u64, u64)>,
    window: RefCell<Box<ShardWindow>>,
    allocated: Cell<usize>,
    idle_before: Cell<u64>,
    window_end: Cell<u64>,
    next_sweep: Cell<u64>,
    next_spawn: Cell<u64>,
    /// The clock, and the shard's idle time, when starting instances was last thought of.
    spawn_checked: Cell<(u64, u64)>,
    entries: RefCell<Slab<Entry>>,
    /// Keys of `entries`, oldest first. One whose entry is no longer waiting is passed over.
    waiters: RefCell<VecDeque<u32>>,
    tasks: RefCell<Slab<Rc<Instance>>>,
    instances: Cell<u32>,
    /// Instances beyond the limit, which leave when they next ask for a permit.
    surplus: Cell<u32>,
    in_flight: Cell<u32>,
    panics_in_a_row: Cell<u32>,
}

impl ShardRun {
    pub(crate) fn new(spec: RunSpec, shard: Rc<Shard>) -> Rc<Self> {
        let budget = spec.slot.budget();
        let config = PacerConfig {
            arrival: spec.arrival,
            part: spec.part,
            parts: spec.parts,
            max_backlog: MAX_BACKLOG,
            max_backlog_age_ns: MAX_BACKLOG_AGE_NS.min(spec.timeout_ns),
            max_gap_ns: MAX_GAP_NS,
        };
        let tps = if spec.open { budget.tps } else { 0 };
        let pacer = Pacer::new(config, spec.start_ns, spec.end_ns, tps);
        let mut window = Box::new(ShardWindow::new());
        window.start_ns = spec.start_ns;
        Rc::new(Self {
            phase: Cell::new(Phase::Running),
            budget: Cell::new(budget),
            pacer: RefCell::new(pacer),
            accounted: Cell::new((0, 0)),
            window: RefCell::new(window),
            allocated: Cell::new(1),
            idle_before: Cell::new(shard.idle_ns()),
            window_end: Cell::new(spec.start_ns.saturating_add(spec.window_ns)),
            next_sweep: Cell::new(0),
            next_spawn: Cell::new(0),
            spawn_checked: Cell::new((spec.start_ns, shard.idle_ns())),
            entries: RefCell::new(Slab::new()),
            waiters: RefCell::new(VecDeque::new()),
            tasks: RefCell::new(Slab::new()),
            instances: Cell::new(0),
            surplus: Cell::new(0),
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
        if now >= self.window_end.get() {
            self.close_window(now, false);
        }
        self.next(now)
    }

    fn next(&self, now: u64) -> Next {
        let mut at = self.window_end.get();
        // A transaction can only be late where one is pending.
        if self.in_flight.get() > 0 {
            at = at.min(self.next_sweep.get());
        }
        match self.phase.get() {
            Phase::Running => {
                let permit = self.pacer.borrow().next_due_ns().unwrap_or(u64::MAX);
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
            self.pacer.borrow_mut().advance(now.min(self.spec.end_ns));
            self.phase.set(Phase::LastCall);
        }
        if self.phase.get() == Phase::LastCall {
            self.release(now);
            let over = course > Course::Run
                || self.pacer.borrow().backlog() == 0
                || now >= self.spec.end_ns.saturating_add(LAST_CALL_NS);
            if over && !self.has_granted() {
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
        self.pacer.borrow_mut().finish();
        self.phase.set(Phase::Draining { until_ns: now.saturating_add(self.spec.grace_ns) });
    }

    /// A permit that was handed out is about to be taken: it must not be lost to the end.
    fn has_granted(&self) -> bool {
        let entries = self.entries.borrow();
        entries.iter().any(|(_, entry)| matches!(entry.state, EntryState::Granted(_)))
    }

    fn apply_budget(&self, now: u64) {
        let granted = self.spec.slot.budget();
        let before = self.budget.replace(granted);
        if granted != before && self.spec.open {
            self.pacer.borrow_mut().set_rate(now, granted.tps);
        }
    }

    /// Hands due permits to those who wait for one.
    fn release(&self, now: u64) {
        if !self.spec.open {
            return;
        }
        let mut pacer = self.pacer.borrow_mut();
        pacer.advance(now);
        if pacer.backlog() == 0 {
            return;
        }
        let mut entries = self.entries.borrow_mut();
        let mut waiters = self.waiters.borrow_mut();
        while let Some(&key) = waiters.front() {
            let entry = entries.get_mut(key as usize);
            let Some(entry) = entry.filter(|entry| entry.state == EntryState::Waiting) else {
                waiters.pop_front();
                continue;
            };
            let Some(intended) = pacer.take() else { return };
            waiters.pop_front();
            entry.state = EntryState::Granted(intended);
            entry.instance = None;
            if let Some(waker) = &entry.waker {
                waker.wake_by_ref();
                self.shard.stir();
            }
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
        if now < self.next_spawn.get() || !self.waiters.borrow().is_empty() {
            return 0;
        }
        let oldest = self.pacer.borrow().oldest_due_ns();
        if oldest.is_none_or(|oldest| now.saturating_sub(oldest) < SPAWN_AFTER_NS) {
            return 0;
        }
        self.next_spawn.set(now + SPAWN_AFTER_NS);
        let idle = self.shard.idle_ns();
        let (checked, idle_then) = self.spawn_checked.replace((now, idle));
        if (idle - idle_then) * SPARE_SHARE < now.saturating_sub(checked) {
            return 0;
        }
        let backlog = u32::try_from(self.pacer.borrow().backlog()).unwrap_or(u32::MAX);
        (count / SPAWN_SHARE).max(1).min(backlog)
    }

    /// Drops instances that wait for a permit, the youngest first, while there are too many.
    fn retire_waiting(&self) {
        let mut leaving = Vec::new();
        {
            let entries = self.entries.borrow();
            let waiters = self.waiters.borrow();
            for &key in waiters.iter().rev() {
                if leaving.len() as u32 >= self.surplus.get() {
                    break;
                }
                let instance = entries.get(key as usize).and_then(|entry| entry.instance.clone());
                if let Some(instance) = instance
                    && instance.role() == Role::Scenario
                    && instance.is_idle()
                    && !instance.is_killed()
                {
                    leaving.push(instance);
                }
            }
        }
        self.surplus.set(self.surplus.get() - leaving.len() as u32);
        for instance in leaving {
            instance.kill();
        }
    }

    /// Wakes transactions whose deadline has passed. Looking at all of them now and then, at a
    /// sixty-fourth of the timeout, costs less than a timer for each.
    fn sweep(&self, now: u64) {
        let every = (self.spec.timeout_ns / 64).clamp(1_000_000, 100_000_000);
        self.next_sweep.set(now + every);
        for (_, entry) in self.entries.borrow().iter() {
            if let (EntryState::Pending(deadline), Some(waker)) = (entry.state, &entry.waker)
                && deadline <= now
            {
                waker.wake_by_ref();
                self.shard.stir();
            }
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
        executor::spawn_local(Guarded::new(instance, key, future));
    }

    /// A task has ended.
    pub(crate) fn forget(&self, key: usize, instance: &Rc<Instance>) {
        let forgotten = self.tasks.borrow_mut().remove(key);
        debug_assert!(Rc::ptr_eq(&forgotten, instance));
        if instance.role() == Role::Scenario {
            self.instances.set(self.instances.get() - 1);
        }
    }

    /// `entry` is the caller's place in the table, where it has one.
    pub(crate) fn poll_permit(
        &self,
        instance: &Rc<Instance>,
        entry: &mut u32,
        cx: &mut Context<'_>,
    ) -> Poll<Grant> {
        if *entry != NO_ENTRY {
            let mut entries = self.entries.borrow_mut();
            let entry = &mut entries[*entry as usize];
            match entry.state {
                EntryState::Granted(intended) => {
                    entry.state = EntryState::Idle;
                    drop(entries);
                    let start = self.shard.now();
                    return Poll::Ready(self.started(intended, intended, start));
                }
                EntryState::Waiting => {
                    remember(&mut entry.waker, cx);
                    return Poll::Pending;
                }
                EntryState::Idle | EntryState::Pending(_) => {}
            }
        }
        if self.phase.get() != Phase::Running {
            // It ends here: its task is dropped when the run has drained.
            return Poll::Pending;
        }
        let now = self.shard.now();
        if now >= self.shard.slice_end() {
            // It has had its slice of the turn. Code that never waits, as a transaction that does
            // nothing, would otherwise keep the driver from its clock.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        if self.surplus.get() > 0 && instance.is_idle() && instance.role() == Role::Scenario {
            self.surplus.set(self.surplus.get() - 1);
            instance.kill();
            return Poll::Pending;
        }
        if !self.spec.open {
            return Poll::Ready(self.started(now, now, now));
        }
        {
            let mut pacer = self.pacer.borrow_mut();
            pacer.advance(now);
            // Who waits comes first; then there is no permit left to take here.
            if let Some(intended) = pacer.take() {
                drop(pacer);
                return Poll::Ready(self.started(intended, now, now));
            }
        }
        self.wait(instance, entry, cx);
        Poll::Pending
    }

    #[inline]
    fn started(&self, intended: u64, punctual: u64, start: u64) -> Grant {
        self.in_flight.set(self.in_flight.get() + 1);
        self.window.borrow_mut().started += 1;
        Grant { intended, punctual, start }
    }

    fn wait(&self, instance: &Rc<Instance>, key: &mut u32, cx: &mut Context<'_>) {
        let mut entries = self.entries.borrow_mut();
        if *key == NO_ENTRY {
            *key = new_entry(&mut entries);
        }
        let entry = &mut entries[*key as usize];
        entry.state = EntryState::Waiting;
        entry.instance = Some(Rc::clone(instance));
        remember(&mut entry.waker, cx);
        self.waiters.borrow_mut().push_back(*key);
    }

    /// Gives up an entry; a permit that was not taken goes back.
    pub(crate) fn release_entry(&self, key: u32) {
        let entry = self.entries.borrow_mut().remove(key as usize);
        if let EntryState::Granted(intended) = entry.state {
            self.pacer.borrow_mut().put_back(intended);
        }
    }

    /// Notes that a started transaction waits, so that its deadline is watched.
    pub(crate) fn pend(&self, key: u32, start: u64, cx: &mut Context<'_>) -> u32 {
        let mut entries = self.entries.borrow_mut();
        let key = if key == NO_ENTRY { new_entry(&mut entries) } else { key };
        let entry = &mut entries[key as usize];
        entry.state = EntryState::Pending(start.saturating_add(self.spec.timeout_ns));
        remember(&mut entry.waker, cx);
        key
    }

    pub(crate) fn unpend(&self, key: u32) {
        self.entries.borrow_mut()[key as usize].state = EntryState::Idle;
    }

    pub(crate) fn is_expired(&self, key: u32) -> bool {
        let now = self.shard.now_coarse();
        match self.entries.borrow()[key as usize].state {
            EntryState::Pending(deadline) => deadline <= now,
            _ => false,
        }
    }

    /// A started transaction has ended, now.
    #[inline]
    pub(crate) fn ended(&self, meta: &'static TransactionMeta, mut times: Times, outcome: Outcome) {
        times.end = self.shard.now();
        self.in_flight.set(self.in_flight.get() - 1);
        if outcome == Outcome::Succeeded {
            self.panics_in_a_row.set(0);
        }
        self.window.borrow_mut().record(meta, self.spec.open, times, outcome);
    }

    /// A scenario has returned.
    pub(crate) fn survived(&self) {
        self.panics_in_a_row.set(0);
    }

    /// User code has panicked.
    pub(crate) fn panicked(&self, payload: &(dyn Any + Send)) {
        let mut window = self.window.borrow_mut();
        window.panics += 1;
        window.panic.get_or_insert_with(|| message(payload));
        drop(window);
        let in_a_row = self.panics_in_a_row.get() + 1;
        self.panics_in_a_row.set(in_a_row);
        if in_a_row == MAX_PANICS {
            // For all shards: their instances run the same code.
            self.spec.slot.raise(Course::Drain);
        }
    }

    // ---- Windows -----------------------------------------------------------------------------

    /// Sends the current window off, if there is another to go on with and room in the channel.
    /// Otherwise it stays the current one and grows: nothing is lost but resolution.
    fn close_window(&self, now: u64, last: bool) {
        if now < self.window_end.get() && !last {
            return;
        }
        self.window_end.set(now.saturating_add(self.spec.window_ns));
        let Some(mut next) = self.next_window(last) else { return };
        next.start_ns = now;
        let mut window = self.window.replace(next);
        self.account(&mut window, now);
        window.last = last;
        let report = Report { run: self.spec.run, part: self.spec.part, window };
        match self.spec.reports.try_send(report) {
            Ok(()) if last => self.phase.set(Phase::Done),
            Ok(()) => {}
            Err(TrySendError::Full(report)) => {
                let next = self.window.replace(report.window);
                self.shard.keep_spare(next);
                // The one for after the last window was never counted.
                if !last {
                    self.allocated.set(self.allocated.get() - 1);
                }
            }
            // The aggregator is gone, and with it whoever could want the rest.
            Err(TrySendError::Disconnected(_)) => {
                self.kill_all();
                self.phase.set(Phase::Done);
            }
        }
    }

    fn next_window(&self, last: bool) -> Option<Box<ShardWindow>> {
        if last {
            return Some(Box::new(ShardWindow::new()));
        }
        if let Ok(window) = self.spec.returned.try_recv() {
            return Some(window);
        }
        if self.allocated.get() > WINDOWS_IN_FLIGHT {
            return None;
        }
        self.allocated.set(self.allocated.get() + 1);
        Some(Box::new(ShardWindow::new()))
    }

    fn account(&self, window: &mut ShardWindow, now: u64) {
        let pacer = self.pacer.borrow();
        let counts = pacer.counts();
        let (planned, missed) = self.accounted.replace((counts.planned, counts.missed));
        window.end_ns = now;
        if self.spec.open {
            window.planned += counts.planned - planned;
            window.missed += counts.missed - missed;
        } else {
            window.planned = window.started;
        }
        window.backlog = pacer.backlog() as u64;
        window.instances = self.instances.get();
        window.in_flight = self.in_flight.get();
        let idle = self.shard.idle_ns();
        window.idle_ns += idle - self.idle_before.replace(idle);
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

fn new_entry(entries: &mut Slab<Entry>) -> u32 {
    let key = entries.insert(Entry { state: EntryState::Idle, waker: None, instance: None });
    u32::try_from(key).expect("fewer than 2^32 transactions are pending on a shard")
}

fn remember(place: &mut Option<Waker>, cx: &Context<'_>) {
    match place {
        Some(waker) if waker.will_wake(cx.waker()) => {}
        _ => *place = Some(cx.waker().clone()),
    }
}

fn message(payload: &(dyn Any + Send)) -> String {
    payload
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a panic with a payload that is no text".to_owned())
}

/// Counts of failures that are this machine's own.
pub(crate) fn generator_faults(failures: &[u64; FailureClass::COUNT]) -> u64 {
    FailureClass::ALL
        .iter()
        .filter(|class| class.is_generator())
        .map(|class| failures[class.index()])
        .sum()
}
