//! One run on one shard: its phases, its instances, and what these ask of it.

mod instances;
mod permits;
mod spec;
mod turns;
mod waits;
mod windows;

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use balter_controllers::{Permit, Population, Ticks};
use slab::Slab;

use super::budget::{Course, Share};
use super::errors::{Cause, DEADLINE, Key, Text};
use super::executor;
use super::instance::{Guarded, Instance, Role};
use super::outside;
use super::shard::Shard;
use super::window::{Outcome, Times};
use crate::failure::{FailureClass, Note};
use crate::handshake::Handshake;
use crate::traffic::Traffic;
use crate::transaction::TransactionMeta;
pub(crate) use permits::Ticket;
use permits::{Lapsed, Permits, Place};
pub(crate) use spec::{Factory, Maker, Report, RunSpec, WINDOWS_IN_FLIGHT};
use waits::{Load, Waits};
use windows::{Running, Sent, Standing, Windows};

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
    /// See [`Times::late`].
    pub(crate) late: u64,
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
    /// Version of the share that was read last, the share, and when it ends.
    seen: Cell<u64>,
    granted: Cell<(Share, u64)>,
    /// What holds now.
    share: Cell<Share>,
    permits: Rc<RefCell<Permits>>,
    population: RefCell<Population>,
    windows: RefCell<Windows>,
    outside: outside::Queue,
    tasks: RefCell<Slab<Rc<Instance>>>,
    instances: Cell<u32>,
    /// Those that are on their way to their first transaction.
    starting: Cell<u32>,
    /// Those that are in a transaction.
    busy: Cell<u32>,
    cycles: Cell<Cycles>,
    waits: RefCell<Waits>,
    /// The shard has had next to no time of its own lately.
    overloaded: Cell<bool>,
    /// Instances beyond the limit, which leave when they next ask for a permit.
    surplus: Cell<u32>,
    /// Transactions, ever.
    started: Cell<u64>,
    in_flight: Cell<u32>,
    panics_in_a_row: Cell<u32>,
}

impl ShardRun {
    pub(crate) fn new(spec: RunSpec, shard: Rc<Shard>) -> Rc<Self> {
        let seen = Cell::new(0);
        let granted = spec.slot.changed(&seen).unwrap_or((Share::none(), 0));
        // Under a lease nothing may be used before it begins.
        let ticks = if granted.1 > spec.start_ns { granted.0.ticks } else { Ticks::none(0) };
        let ticks = Ticks { from_ns: ticks.from_ns.max(spec.start_ns), ..ticks };
        Rc::new(Self {
            phase: Cell::new(Phase::Running),
            seen,
            granted: Cell::new(granted),
            share: Cell::new(Share { ticks, ..Share::none() }),
            permits: Rc::new(RefCell::new(Permits::new(&spec, ticks, shard.queued()))),
            population: RefCell::new(Population::new(spec.initial)),
            windows: RefCell::new(Windows::new(&spec, shard.idle_ns())),
            outside: outside::Queue::new(spec.start_ns, spec.part, spec.parts),
            tasks: RefCell::new(Slab::new()),
            instances: Cell::new(0),
            starting: Cell::new(0),
            busy: Cell::new(0),
            cycles: Cell::default(),
            waits: RefCell::new(Waits::new(spec.start_ns, shard.idle_ns())),
            overloaded: Cell::new(false),
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

    /// Its number in the process.
    pub(crate) fn id(&self) -> u64 {
        self.spec.run
    }

    /// The shard's place among those of the run.
    pub(crate) fn part(&self) -> u64 {
        u64::from(self.spec.part)
    }

    pub(crate) fn timeout_ns(&self) -> u64 {
        self.spec.timeout_ns
    }

    /// Transactions may start.
    pub(crate) fn is_running(&self) -> bool {
        self.phase.get() == Phase::Running
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

    /// Does what is due at `now`. Answers when it next wants a turn.
    pub(crate) fn turn(self: &Rc<Self>, now: u64) -> Next {
        self.overloaded.set(self.waits.borrow_mut().turn(now, self.shard.idle_ns()));
        self.advance_phase(now);
        match self.phase.get() {
            Phase::Running if now < self.spec.start_ns => {
                return Next { at_ns: self.spec.start_ns, permit_ns: self.next_permit_ns() };
            }
            Phase::Running => {
                self.apply_share(now);
                self.keep_instances(now);
                self.release(now);
                self.note_waits(now);
                self.release_outside(now);
            }
            Phase::LastCall
            | Phase::Draining { .. }
            | Phase::Ending
            | Phase::Reporting
            | Phase::Done => {}
        }
        self.expire(now);
        if now >= self.windows.borrow().end_ns {
            self.close_window(now, false);
        }
        self.next(now)
    }

    /// Wakes transactions whose deadline has passed, and counts those that nobody polls any more.
    fn expire(&self, now: u64) {
        if self.permits.borrow_mut().expire(now) {
            self.shard.stir();
        }
        loop {
            // In a statement of its own, so that nothing is borrowed while it is counted.
            let lapsed = self.permits.borrow_mut().lapse(now);
            let Some(Lapsed { instance, meta, grant }) = lapsed else { return };
            let class = FailureClass::Timeout;
            let key = Key { id: meta.id(), class, note: Note::default() };
            let text = self.wants_text(key).then(|| Text::of(DEADLINE));
            let cause = Cause { key, text };
            self.ended(&instance, meta, &grant, Outcome::Failed(class), Some(&cause));
        }
    }

    fn next(&self, now: u64) -> Next {
        let mut at = self.windows.borrow().end_ns;
        at = at.min(self.permits.borrow().next_deadline());
        match self.phase.get() {
            Phase::Running => {
                let permit_ns = self.next_permit_ns();
                at = at.min(self.outside.next_ns(self.outside_interval_ns(now)));
                return Next { at_ns: at.min(self.spec.end_ns).min(permit_ns), permit_ns };
            }
            Phase::Draining { until_ns } => at = at.min(until_ns),
            Phase::LastCall | Phase::Ending | Phase::Reporting => at = now + 100_000,
            Phase::Done => {}
        }
        Next::plain(at)
    }

    fn next_permit_ns(&self) -> u64 {
        self.permits.borrow().pacer.next_due_ns().unwrap_or(u64::MAX)
    }

    fn advance_phase(self: &Rc<Self>, now: u64) {
        let course = self.spec.slot.course();
        if self.phase.get() == Phase::Running && (now >= self.spec.end_ns || course > Course::Run) {
            self.permits.borrow_mut().pacer.advance(now.min(self.spec.end_ns));
            self.phase.set(Phase::LastCall);
        }
        if self.phase.get() == Phase::LastCall {
            let over = course > Course::Run || now >= self.spec.end_ns.saturating_add(LAST_CALL_NS);
            if over {
                // No permit is handed out any more. Those that are not taken go back, so that the
                // last call ends even if a transaction with a permit is never polled again.
                self.permits.borrow_mut().take_back(now);
            } else {
                self.release(now);
            }
            let permits = self.permits.borrow();
            let is_over = permits.granted() == 0 && (over || permits.pacer.backlog() == 0);
            drop(permits);
            if is_over {
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
        self.permits.borrow_mut().pacer.finish(now.min(self.spec.end_ns));
        self.phase.set(Phase::Draining { until_ns: now.saturating_add(self.spec.grace_ns) });
    }

    fn apply_share(&self, now: u64) {
        if let Some(granted) = self.spec.slot.changed(&self.seen) {
            self.granted.set(granted);
        }
        let (granted, until_ns) = self.granted.get();
        let share = match now < until_ns {
            true => granted,
            // Without permits the instances start nothing, and keep their connections.
            false if self.spec.open => {
                let ticks = Ticks { tps: 0, ..granted.ticks };
                Share { ticks, ..self.share.get() }
            }
            false => Share::none(),
        };
        let before = self.share.replace(share);
        if share.ticks != before.ticks && self.spec.open {
            self.permits.borrow_mut().pacer.follow(now, share.ticks);
        }
    }

    /// Hands due permits to those who wait for one.
    fn release(&self, now: u64) {
        if !self.spec.open {
            return;
        }
        let room = self.share.get().concurrency.saturating_sub(self.busy.get());
        if self.permits.borrow_mut().release(now, room) {
            self.shard.stir();
        }
    }

    /// The turn's end: what waits now waits until the next.
    fn note_waits(&self, now: u64) {
        let mut permits = self.permits.borrow_mut();
        let load = Load {
            backlog: permits.pacer.backlog() as u64,
            started: self.started.get(),
            busy: self.busy.get(),
            limit: self.share.get().concurrency,
            instances: self.instances.get(),
        };
        if let Some(before_ns) = self.waits.borrow_mut().note(now, load) {
            permits.pacer.shed(before_ns);
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
            self.starting.set(self.starting.get() + 1);
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
        self.set_starting(instance, false);
        // Its place, and with it the waker of this task, goes with the task.
        drop(instance.take_ticket());
    }

    /// Notes whether an instance is on its way to its first transaction. It is no longer when it asks
    /// for a permit, starts a task that may, or pauses; and again when it has returned without one.
    #[inline]
    pub(crate) fn set_starting(&self, instance: &Instance, starting: bool) {
        if instance.set_starting(starting) && instance.role() == Role::Scenario {
            let count = self.starting.get();
            self.starting.set(if starting { count + 1 } else { count - 1 });
        }
    }

    /// `ticket` is the caller's place among those who wait, where it has one. The permit is written
    /// to `grant`, once: returned by value it would be copied in pieces, which costs 5 ns.
    pub(crate) fn poll_permit(
        &self,
        instance: &Rc<Instance>,
        ticket: &mut Option<Ticket>,
        grant: &mut Grant,
        cx: &Context<'_>,
    ) -> Poll<()> {
        if let Some(held) = &*ticket {
            let mut displaced = None;
            let place = self.permits.borrow_mut().place(held, cx, &mut displaced);
            match place {
                Place::Granted(permit, at) => {
                    *grant = self.grant(permit, at);
                    return self.started(instance, grant.start);
                }
                Place::Waiting => return Poll::Pending,
                Place::Queued => return self.poll_turn(instance, ticket, grant, cx),
                Place::New => {}
            }
        }
        if self.phase.get() != Phase::Running {
            // It ends here: its task is dropped when the run has drained.
            return Poll::Pending;
        }
        let now = self.shard.now();
        if now >= self.shard.free_until() {
            // Code that never waits, as a transaction that does nothing, would otherwise keep the
            // driver from its clock.
            return self.wait_for_turn(instance, ticket, cx);
        }
        self.set_starting(instance, false);
        if let Some(taken) = instance.asks() {
            self.cycles.set(self.cycles.get().plus(now.saturating_sub(taken)));
        }
        let is_nested = instance.role() == Role::Child || !instance.is_idle();
        if self.surplus.get() > 0 && !is_nested {
            self.surplus.set(self.surplus.get() - 1);
            instance.kill();
            return Poll::Pending;
        }
        if let Some(permit) = self.take_due(now, is_nested) {
            let Permit { intended_ns: intended, released_ns: released } = permit;
            // A shard without time of its own is what it has waited for.
            let until = if self.overloaded.get() { now } else { released };
            *grant = Grant { intended, start: now, late: until.saturating_sub(intended) };
            return self.started(instance, now);
        }
        let ticket = ticket.get_or_insert_with(|| Permits::ticket(&self.permits, instance));
        let displaced = self.permits.borrow_mut().wait(ticket, is_nested, cx);
        drop(displaced);
        Poll::Pending
    }

    /// The permit for who asks now, if there is one and nobody comes first. In a closed loop a
    /// transaction is due when it starts.
    #[inline]
    fn take_due(&self, now: u64, is_nested: bool) -> Option<Permit> {
        if !self.spec.open {
            return Some(Permit { intended_ns: now, released_ns: now });
        }
        let mut permits = self.permits.borrow_mut();
        let is_next =
            is_nested || permits.waiting() == 0 && self.busy.get() < self.share.get().concurrency;
        if is_next { permits.pacer.take_due(now) } else { None }
    }

    /// A permit that was handed to a waiting instance at that time is taken, now.
    fn grant(&self, permit: Permit, at: u64) -> Grant {
        let start = self.shard.now();
        let Permit { intended_ns: intended, released_ns: released } = permit;
        // An instance was waiting for it, so how long it was on its way is our doing.
        let late = match self.overloaded.get() {
            true => start.saturating_sub(intended),
            false => released.saturating_sub(intended) + start.saturating_sub(at),
        };
        Grant { intended, start, late }
    }

    #[inline]
    fn started(&self, instance: &Instance, start: u64) -> Poll<()> {
        self.in_flight.set(self.in_flight.get() + 1);
        self.started.set(self.started.get() + 1);
        if instance.starts(start) && instance.role() == Role::Scenario {
            self.busy.set(self.busy.get() + 1);
        }
        Poll::Ready(())
    }

    /// The transaction with this ticket waits no more; a permit that was not taken goes back. `true`
    /// if it was late and has been counted already, since nobody polled it.
    pub(crate) fn rest(&self, ticket: &Ticket) -> bool {
        self.permits.borrow_mut().rest(ticket)
    }

    /// Notes that a started transaction waits, so that its deadline is watched.
    pub(crate) fn pend(
        &self,
        instance: &Rc<Instance>,
        ticket: &mut Option<Ticket>,
        started: (&'static TransactionMeta, Grant),
        cx: &Context<'_>,
    ) {
        let deadline = started.1.start.saturating_add(self.spec.timeout_ns);
        let ticket = ticket.get_or_insert_with(|| Permits::ticket(&self.permits, instance));
        let displaced = self.permits.borrow_mut().pend(ticket, deadline, started, cx);
        drop(displaced);
    }

    pub(crate) fn is_late(&self, ticket: &Ticket) -> bool {
        self.permits.borrow().is_late(ticket, self.shard.now_coarse())
    }

    /// Whether the text of a failure is to be read.
    pub(crate) fn wants_text(&self, key: Key) -> bool {
        self.windows.borrow_mut().current.errors.wants_text(key)
    }

    /// A started transaction has ended, now; `cause` is that of a failure.
    #[inline]
    pub(crate) fn ended(
        &self,
        instance: &Instance,
        meta: &'static TransactionMeta,
        grant: &Grant,
        outcome: Outcome,
        cause: Option<&Cause>,
    ) {
        let &Grant { intended, start, late } = grant;
        let end = self.shard.now();
        let times = Times { intended, start, end, late };
        self.in_flight.set(self.in_flight.get() - 1);
        if instance.ends() && instance.role() == Role::Scenario {
            self.busy.set(self.busy.get() - 1);
        }
        if outcome == Outcome::Succeeded {
            self.panics_in_a_row.set(0);
        }
        let window = &mut self.windows.borrow_mut().current;
        window.record(meta, times, outcome);
        if let Some(cause) = cause {
            window.errors.count(cause);
        }
        if outcome != Outcome::Cancelled {
            window.record_seen_late(self.shard.seen_late_ns(start, end));
            if let Some(delay_ns) = self.shard.ring.take_receive_delay_ns() {
                window.record_receive_delay(delay_ns);
            }
        }
    }

    /// A connection of an instance has shaken hands.
    pub(crate) fn shook_hands(&self, handshake: Handshake) {
        self.windows.borrow_mut().current.record_handshake(handshake);
    }

    // ---- What stands outside of transactions -------------------------------------------------

    /// From one request outside of transactions to the next, `u64::MAX` while there may be none.
    pub(crate) fn outside_interval_ns(&self, now: u64) -> u64 {
        // Without a lease nothing may be sent.
        match self.is_running() && now < self.granted.get().1 {
            true => self.spec.slot.outside_interval_ns(),
            false => u64::MAX,
        }
    }

    pub(super) fn outside(&self) -> &outside::Queue {
        &self.outside
    }

    fn release_outside(&self, now: u64) {
        if self.outside.admit(now, self.outside_interval_ns(now)) {
            self.shard.stir();
        }
    }

    /// A request outside of transactions is being sent.
    pub(crate) fn sent_outside(&self, waited: bool) {
        let outside = &mut self.windows.borrow_mut().current.outside;
        outside.requests += 1;
        outside.held_back += u64::from(waited);
    }

    /// One of them has failed.
    pub(crate) fn failed_outside(&self) {
        self.windows.borrow_mut().current.outside.failed += 1;
    }

    /// A scenario has returned without having started a transaction.
    pub(crate) fn returned_early(&self) {
        self.windows.borrow_mut().current.returned_early += 1;
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
        let current = &mut windows.current;
        let tell = |time_ns, count| current.record_given_up(time_ns, count);
        self.permits.borrow_mut().pacer.drain_waited(tell);
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
        let (counts, cycles, waits) = (pacer.counts(), self.cycles.get(), self.waits.borrow());
        Standing {
            running: Running {
                planned: self.spec.open.then_some(counts.planned),
                missed: counts.missed,
                stalled: counts.stalled,
                started: self.started.get(),
                idle_ns: self.shard.idle_ns(),
                cycles: cycles.count,
                cycle_ns: cycles.sum_ns,
                target_wait_ns: waits.target_ns,
                instance_wait_ns: waits.instance_ns,
            },
            backlog: pacer.backlog() as u64,
            instances: self.instances.get(),
            starting: self.starting.get(),
            in_flight: self.in_flight.get(),
        }
    }
}

/// Times from one permit of an instance to its asking for the next.
#[derive(Clone, Copy, Debug, Default)]
struct Cycles {
    count: u64,
    sum_ns: u64,
    /// `RECENT` times the mean over the last some: in integers, since this is done for each
    /// transaction.
    recent_ns: u64,
}

/// The newest cycle is one part in so many of the mean over the last some.
const RECENT: u64 = 64;

impl Cycles {
    #[inline]
    fn plus(self, cycle_ns: u64) -> Self {
        let recent_ns = match self.count {
            0 => cycle_ns.saturating_mul(RECENT),
            _ => (self.recent_ns - self.recent_ns / RECENT).saturating_add(cycle_ns),
        };
        Self { count: self.count + 1, sum_ns: self.sum_ns.saturating_add(cycle_ns), recent_ns }
    }

    fn mean_ns(self) -> u64 {
        self.recent_ns / RECENT
    }
}

/// When a run wants its next turn, in nanoseconds of the clock; `u64::MAX` is never.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Next {
    pub(crate) at_ns: u64,
    /// When its next permit is due, at `at_ns` or after: that is worth being awake for, so it is told
    /// apart from what comes before it.
    pub(crate) permit_ns: u64,
}

impl Next {
    pub(crate) const NEVER: Self = Self::plain(u64::MAX);

    pub(crate) const fn plain(at_ns: u64) -> Self {
        Self { at_ns, permit_ns: u64::MAX }
    }

    /// The sooner of each.
    pub(crate) fn or(self, other: Self) -> Self {
        Self { at_ns: self.at_ns.min(other.at_ns), permit_ns: self.permit_ns.min(other.permit_ns) }
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
