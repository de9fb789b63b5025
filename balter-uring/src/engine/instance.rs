//! One instance of a scenario on its shard: the guard around each poll of user code, and the
//! permit that a transaction in it waits for.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use super::back_off::BackOff;
use super::errors::{Cause, DEADLINE, Key, PANICKED, Text};
use super::panic_hook;
use super::run::{Grant, ShardRun, Ticket};
use super::timers::SleepUntil;
use super::window::Outcome;
use crate::failure::{self, FailureClass, Scope, with_scope};
use crate::traffic::Meter;
use crate::transaction::TransactionMeta;
use crate::transaction::outcome::{Described, Judged};
use crate::userland;
use crate::waker::remember;

thread_local! {
    static CURRENT: RefCell<Option<Rc<Instance>>> = const { RefCell::new(None) };
}

/// The instance whose code is being polled on this thread.
#[inline]
pub(crate) fn current() -> Option<Rc<Instance>> {
    CURRENT.with(|current| current.borrow().clone())
}

/// What a guarded task is to the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Counts as concurrency, and starts over when its scenario returns or panics.
    Scenario,
    /// Started by one with [`spawn`](crate::spawn); ends when it ends.
    Child,
}

/// The side of an instance that its run, its transactions and its task share.
pub(crate) struct Instance {
    pub(crate) run: Rc<ShardRun>,
    role: Role,
    /// The run wants it gone; its task drops it at its next poll.
    killed: Cell<bool>,
    /// A transaction has outlived its deadline without giving up: the code that waits for it can
    /// be given no result, so it is dropped, and a scenario starts over.
    abandoned: Cell<bool>,
    /// Started transactions that have not ended.
    in_flight: Cell<u32>,
    /// A transaction has started since the scenario was last begun: one of its own, or of a task
    /// that it has started, which shares this with it.
    has_transacted: Rc<Cell<bool>>,
    /// A transaction has started this task, so what it does is part of that one.
    in_transaction: bool,
    waker: RefCell<Option<Waker>>,
    /// It is on its way to its first transaction, as with a log-in.
    starting: Cell<bool>,
    /// Requests of it outside of transactions.
    pub(super) outside: Cell<u32>,
    /// When it took its last permit, until it asks for the next.
    taken_ns: Cell<Option<u64>>,
    /// Place of its last transaction, kept for the next: it has this instance's waker already.
    ticket: Cell<Option<Ticket>>,
}

impl Instance {
    pub(crate) fn new(run: Rc<ShardRun>, role: Role) -> Rc<Self> {
        let parent = if role == Role::Child { current() } else { None };
        Rc::new(Self {
            has_transacted: parent
                .as_ref()
                .map_or_else(Rc::default, |it| Rc::clone(&it.has_transacted)),
            in_transaction: parent
                .is_some_and(|parent| parent.in_transaction || failure::in_transaction()),
            run,
            role,
            killed: Cell::new(false),
            abandoned: Cell::new(false),
            in_flight: Cell::new(0),
            waker: RefCell::new(None),
            starting: Cell::new(true),
            outside: Cell::new(0),
            taken_ns: Cell::new(None),
            ticket: Cell::new(None),
        })
    }

    /// Has its task drop it, soon.
    pub(crate) fn kill(&self) {
        self.killed.set(true);
        self.wake();
    }

    pub(crate) fn is_killed(&self) -> bool {
        self.killed.get()
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.in_flight.get() == 0
    }

    /// `true` if that is new.
    #[inline]
    pub(crate) fn set_starting(&self, starting: bool) -> bool {
        self.starting.replace(starting) != starting
    }

    /// A transaction of it starts; `true` if it was in none.
    #[inline]
    pub(crate) fn starts(&self, now_ns: u64) -> bool {
        self.taken_ns.set(Some(now_ns));
        self.has_transacted.set(true);
        let in_flight = self.in_flight.get();
        self.in_flight.set(in_flight + 1);
        in_flight == 0
    }

    /// A transaction of it has ended; `true` if it is in none any more.
    #[inline]
    pub(crate) fn ends(&self) -> bool {
        let in_flight = self.in_flight.get() - 1;
        self.in_flight.set(in_flight);
        in_flight == 0
    }

    /// It asks for a permit; answers when it took the one before, once.
    #[inline]
    pub(crate) fn asks(&self) -> Option<u64> {
        self.taken_ns.take()
    }

    #[inline]
    pub(crate) fn take_ticket(&self) -> Option<Ticket> {
        self.ticket.take()
    }

    /// Leaves a transaction's place to the next, unless another has done so. `true` if the
    /// transaction has been counted already.
    fn leave(&self, ticket: Ticket) -> bool {
        let is_counted = self.run.rest(&ticket);
        let kept = self.ticket.take().unwrap_or(ticket);
        self.ticket.set(Some(kept));
        is_counted
    }

    /// It is a task that a transaction has started.
    pub(crate) fn is_in_transaction(&self) -> bool {
        self.in_transaction
    }

    pub(crate) fn role(&self) -> Role {
        self.role
    }

    fn wake(&self) {
        if let Some(waker) = &*self.waker.borrow() {
            waker.wake_by_ref();
        }
    }
}

/// One transaction of an instance, from its wait for a permit to its record. Dropped before its
/// end it counts as cancelled, or as a panic where one is unwinding.
pub(crate) struct Attempt {
    instance: Rc<Instance>,
    meta: &'static TransactionMeta,
    /// Its place among those who wait, where it has one.
    ticket: Option<Ticket>,
    scope: Scope,
    stage: Stage,
    /// Holds once it has started.
    grant: Grant,
}

#[derive(Clone, Copy, Debug)]
enum Stage {
    Waiting,
    Started,
    Ended,
}

impl Attempt {
    #[inline]
    pub(crate) fn new(instance: Rc<Instance>, meta: &'static TransactionMeta) -> Self {
        let ticket = instance.take_ticket();
        let (scope, grant) = (Scope::default(), Grant::default());
        Self { instance, meta, ticket, scope, stage: Stage::Waiting, grant }
    }

    /// Waits for the permit, starts the clock, and polls `work`.
    #[inline]
    pub(crate) fn poll<F: Future>(
        &mut self,
        cx: &mut Context<'_>,
        work: Pin<&mut F>,
    ) -> Poll<F::Output> {
        let run = &self.instance.run;
        if let Stage::Started = self.stage {
            // Only what has been pending can be late, and that has a place.
            if self.ticket.as_ref().is_some_and(|ticket| run.is_late(ticket)) {
                self.scope.expire();
            }
        } else {
            ready!(run.poll_permit(&self.instance, &mut self.ticket, &mut self.grant, cx));
            self.stage = Stage::Started;
        }
        let polled = with_scope(&mut self.scope, || work.poll(cx));
        if polled.is_pending() {
            self.pend(cx);
        }
        polled
    }

    fn pend(&mut self, cx: &Context<'_>) {
        if self.scope.is_expired() {
            self.fail(FailureClass::Timeout, DEADLINE);
            self.instance.abandoned.set(true);
            self.instance.wake();
        } else {
            let started = (self.meta, self.grant);
            self.instance.run.pend(&self.instance, &mut self.ticket, started, cx);
        }
    }

    #[inline]
    pub(crate) fn finish(&mut self, judged: Judged<'_>) {
        match judged {
            None => self.end(Outcome::Succeeded, None),
            Some(error) => {
                let class = match self.scope.noted() {
                    _ if self.scope.is_expired() => FailureClass::Timeout,
                    Some(class) => class,
                    None => FailureClass::Application,
                };
                self.fail(class, error);
            }
        }
    }

    /// Not inlined: the way of a transaction that succeeds is shorter without it.
    #[inline(never)]
    fn fail(&mut self, class: FailureClass, error: Described<'_>) {
        let key = Key { id: self.meta.id(), class, note: self.scope.note() };
        // Written before anything is borrowed: it is the user's code that does it.
        let text = self.instance.run.wants_text(key).then(|| Text::of(error));
        self.end(Outcome::Failed(class), Some(&Cause { key, text }));
    }

    /// `cause` is that of a failure.
    #[inline]
    fn end(&mut self, outcome: Outcome, cause: Option<&Cause>) {
        if let Stage::Started = std::mem::replace(&mut self.stage, Stage::Ended)
            && !self.leave_ticket()
        {
            self.instance.run.ended(&self.instance, self.meta, &self.grant, outcome, cause);
        }
    }

    /// Leaves its place, where it has one, to the instance's next transaction. `true` if it has been
    /// counted already.
    #[inline]
    fn leave_ticket(&mut self) -> bool {
        self.ticket.take().is_some_and(|ticket| self.instance.leave(ticket))
    }

    /// Not inlined: the way of a transaction that ends by itself is shorter without it.
    #[inline(never)]
    fn dropped_early(&mut self) {
        match self.stage {
            Stage::Ended => {}
            Stage::Waiting => {
                self.leave_ticket();
            }
            Stage::Started if std::thread::panicking() => {
                self.fail(FailureClass::Panic, PANICKED);
            }
            Stage::Started => self.end(Outcome::Cancelled, None),
        }
    }
}

impl Drop for Attempt {
    #[inline]
    fn drop(&mut self) {
        if !matches!(self.stage, Stage::Ended) {
            self.dropped_early();
        }
    }
}

/// The task around user code. Everything that user code can do to a thread is caught here: a
/// panic, a panic in a `Drop`, a future that never yields its deadline.
pub(crate) struct Guarded {
    instance: Rc<Instance>,
    future: Option<Pin<Box<dyn Future<Output = ()>>>>,
    /// Key in the run's list of tasks.
    key: usize,
    back_off: BackOff,
    /// Until it starts over.
    pause: Option<SleepUntil>,
}

impl Guarded {
    /// `future` is `None` for a scenario, which the run's factory makes anew each time.
    pub(crate) fn new(
        instance: Rc<Instance>,
        key: usize,
        future: Option<Pin<Box<dyn Future<Output = ()>>>>,
    ) -> Self {
        let back_off = BackOff::new([instance.run.id(), instance.run.part(), key as u64]);
        Self { instance, future, key, back_off, pause: None }
    }

    /// Runs user code with this instance as the current one. `Err` is the payload of a panic.
    fn guarded<T>(&mut self, run: impl FnOnce(&mut Self) -> T) -> Result<T, Box<dyn Any + Send>> {
        let outer = CURRENT.with(|current| current.replace(Some(Rc::clone(&self.instance))));
        let run_id = self.instance.run.id();
        let outer_run = panic_hook::set_run(run_id);
        let outer_polled = self.instance.run.shard().pulse().enter(run_id);
        let meter = Meter::start();
        // Unwind safety: after a panic the future is dropped, not polled again, and the run's
        // tables are only borrowed for the length of their own methods, which do not panic.
        let result = catch_unwind(AssertUnwindSafe(|| {
            #[cfg(feature = "tokio")]
            let _context = crate::tokio_context::enter();
            run(self)
        }));
        let traffic = meter.end();
        if !traffic.is_none() {
            self.instance.run.moved(traffic);
        }
        self.instance.run.shard().pulse().leave(outer_polled);
        panic_hook::set_run(outer_run);
        CURRENT.with(|current| *current.borrow_mut() = outer);
        result
    }

    fn drop_future(&mut self) {
        if let Some(future) = self.future.take()
            && let Err(payload) = self.guarded(|_| drop(future))
        {
            self.instance.run.panicked(&*payload);
            userland::forget(payload);
        }
    }

    fn poll_once(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let polled = self.guarded(|this| {
            let future = match &mut this.future {
                Some(future) => future,
                None => this.future.insert(this.instance.run.make()),
            };
            future.as_mut().poll(cx)
        });
        match polled {
            Ok(Poll::Pending) if self.instance.abandoned.replace(false) => self.drop_future(),
            Ok(Poll::Pending) => {
                if self.instance.outside.get() == 0 {
                    // It pauses, before its first transaction or after one.
                    self.instance.run.set_starting(&self.instance, false);
                }
                return Poll::Pending;
            }
            Ok(Poll::Ready(())) => {
                self.instance.run.survived();
                self.drop_future();
                self.returned();
            }
            Err(payload) => {
                self.instance.run.panicked(&*payload);
                userland::forget(payload);
                self.drop_future();
            }
        }
        Poll::Ready(())
    }

    /// A scenario that returns without a transaction, as one does whose log-in has failed, would do
    /// so as fast as it can. It has to wait. One that panics need not: few panics end the run.
    fn returned(&mut self) {
        if self.instance.role == Role::Child {
            return;
        }
        if self.instance.has_transacted.take() {
            self.back_off.reset();
            return;
        }
        let run = &self.instance.run;
        run.returned_early();
        run.set_starting(&self.instance, true);
        let at_ns = run.shard().now().saturating_add(self.back_off.next_ns());
        self.pause = Some(SleepUntil::new(Rc::clone(run.shard()), at_ns));
    }

    /// Whether the scenario waits before it starts over.
    fn pauses(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(pause) = &mut self.pause else { return false };
        // Once the run is ending it is not begun again, only dropped.
        if Pin::new(pause).poll(cx).is_pending() || !self.instance.run.is_running() {
            return true;
        }
        self.pause = None;
        false
    }
}

impl Future for Guarded {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let instance = Rc::clone(&self.instance);
        instance.run.shard().count_poll();
        remember(&mut instance.waker.borrow_mut(), cx);
        if !instance.is_killed() {
            if self.pauses(cx) {
                return Poll::Pending;
            }
            if self.poll_once(cx).is_pending() && !instance.is_killed() {
                return Poll::Pending;
            }
            if instance.role == Role::Scenario && !instance.is_killed() {
                if self.pauses(cx) {
                    return Poll::Pending;
                }
                // Starts over in a turn of its own: a scenario that returns at once must not
                // keep the shard to itself.
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
        }
        self.drop_future();
        instance.run.forget(self.key, &instance);
        Poll::Ready(())
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        // Reached with a future only when the executor itself is torn down.
        self.drop_future();
    }
}
