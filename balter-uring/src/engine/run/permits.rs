//! The permits of a run on its shard, and the transactions that wait: for a permit, or, started,
//! for their target.

mod turns;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::{Context, Waker};

use balter_controllers::{Pacer, PacerConfig, Permit, Ticks};
use slab::Slab;

use super::Grant;
use super::spec::RunSpec;
use crate::engine::instance::{Instance, Role};
use crate::transaction::TransactionMeta;

/// Overdue permits that one shard keeps (16 MiB of them).
const MAX_BACKLOG: usize = 1 << 20;

/// The longest that a permit may be overdue.
const MAX_BACKLOG_AGE_NS: u64 = 10_000_000_000;

/// A permit that this shard comes to so late is missed: the shard stood still, and the target must
/// not get all of that at once.
const MAX_LATE_NS: u64 = 250_000_000;

/// A transaction that was woken and has not been polled for so long, in so many turns, is polled by
/// nobody: it was kept or leaked, or is the loser of a race. A task that is woken is polled in the
/// same turn, or in one of the next where wakers are passed on.
const UNPOLLED_NS: u64 = 1_000_000;
const UNPOLLED_TURNS: u64 = 4;

/// No entry.
const NONE: u32 = u32::MAX;

/// A place among the waiting transactions of a run. Dropping it gives the place up, and a permit
/// that was handed out and not taken goes back.
///
/// An instance keeps it for its next transaction, with the waker in it, so that a transaction
/// neither allocates nor clones a waker.
pub(crate) struct Ticket {
    permits: Rc<RefCell<Permits>>,
    key: u32,
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let entry = self.permits.borrow_mut().remove(self.key);
        // Outside of the borrow: to drop a waker may drop its task, and with that user code.
        drop(entry);
    }
}

/// See the module's documentation.
pub(crate) struct Permits {
    pub(super) pacer: Pacer,
    entries: Slab<Entry>,
    lists: [List; State::LISTS],
    turn: u64,
    /// Entries of all runs of the shard that wait for a turn.
    queued: Rc<Cell<u32>>,
    /// Next of those called before that this turn's calls come to.
    next_called: u32,
}

/// A transaction that waits, in the list of its state.
struct Entry {
    state: State,
    waker: Option<Waker>,
    /// Whose transaction it is, and stays.
    instance: Rc<Instance>,
    /// It was made for a wait for a turn, after which it is of no more use: a transaction that never
    /// waits is cheaper without a ticket.
    for_turn: bool,
    /// Of a transaction that is pending or late.
    started: Option<(&'static TransactionMeta, Grant)>,
    before: u32,
    after: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Idle,
    /// Waits for a turn in which it may ask for a permit.
    Queued,
    /// It is its turn, since this time and turn, and it has not been polled since.
    Called(u64, u64),
    /// It was called, and when it was polled the slice had been used up: it keeps its place.
    Passed,
    /// Waits for a permit.
    Waiting,
    /// The same, for an instance that is in a transaction already, or a task of one: the limit on
    /// instances in transactions is not for these, which could otherwise wait for themselves.
    Nested,
    /// Has a permit that it has not taken yet, since this time and turn.
    Granted(Permit, u64, u64),
    /// Started and pending; late at this time.
    Pending(u64),
    /// Started, pending, and late; woken at this time and turn.
    Late(u64, u64),
    /// Was late, and nobody polled it: it has been counted as timed out.
    Lapsed,
}

/// A transaction that has lapsed, for its record.
pub(super) struct Lapsed {
    pub(super) instance: Rc<Instance>,
    pub(super) meta: &'static TransactionMeta,
    pub(super) grant: Grant,
}

impl State {
    const LISTS: usize = 7;

    #[inline]
    fn list(self) -> Option<usize> {
        match self {
            Self::Idle | Self::Lapsed => None,
            Self::Waiting => Some(0),
            Self::Nested => Some(1),
            Self::Granted(..) => Some(2),
            Self::Pending(_) => Some(3),
            Self::Late(..) => Some(4),
            Self::Queued => Some(5),
            Self::Called(..) | Self::Passed => Some(6),
        }
    }
}

/// The entries in one state, in the order in which they came into it. Linked through the entries,
/// so that one that goes leaves nothing behind.
#[derive(Clone, Copy)]
struct List {
    first: u32,
    last: u32,
    length: u32,
}

const EMPTY: List = List { first: NONE, last: NONE, length: 0 };

/// What an entry has to say to the transaction that asks for its permit.
pub(super) enum Place {
    /// It has not asked before, or its permit has been given to somebody else meanwhile.
    New,
    /// It waits for its turn to ask, or has just been called.
    Queued,
    Waiting,
    /// A permit, and when it was handed out.
    Granted(Permit, u64),
}

impl Permits {
    /// `queued` is the shard's count of those that wait for a turn.
    pub(super) fn new(spec: &RunSpec, ticks: Ticks, queued: Rc<Cell<u32>>) -> Self {
        let config = PacerConfig {
            arrival: spec.arrival,
            sequence: spec.part,
            max_backlog: MAX_BACKLOG,
            max_backlog_age_ns: MAX_BACKLOG_AGE_NS.min(spec.timeout_ns),
            max_late_ns: MAX_LATE_NS,
        };
        let pacer = Pacer::new(config, ticks, spec.end_ns);
        let (entries, lists) = (Slab::new(), [EMPTY; State::LISTS]);
        Self { pacer, entries, lists, turn: 0, queued, next_called: NONE }
    }

    /// Transactions that wait for a permit.
    #[inline]
    pub(super) fn waiting(&self) -> u32 {
        self.list(State::Waiting) + self.list(State::Nested)
    }

    /// Permits that were handed out and are about to be taken: they must not be lost to the end.
    pub(super) fn granted(&self) -> u32 {
        self.list(State::Granted(Permit::default(), 0, 0))
    }

    #[inline]
    fn list(&self, state: State) -> u32 {
        state.list().map_or(0, |list| self.lists[list].length)
    }

    fn first(&self, state: State) -> Option<u32> {
        state.list().map(|list| self.lists[list].first).filter(|&key| key != NONE)
    }

    /// Hands due permits to those who wait for one: to no more than `room` instances that are in no
    /// transaction yet. `true` if a task has been woken.
    pub(super) fn release(&mut self, now: u64, room: u32) -> bool {
        self.take_back(now);
        self.pacer.advance(now);
        let mut woken = false;
        // What has been handed out and not taken is in a transaction in a moment.
        let mut room = room.saturating_sub(self.granted());
        while self.pacer.backlog() > 0 {
            let waiting = self.first(State::Waiting).filter(|_| room > 0);
            let Some(key) = self.first(State::Nested).or(waiting) else { break };
            let Some(permit) = self.pacer.take() else { break };
            if self.entries[key as usize].state == State::Waiting {
                room -= 1;
            }
            self.set(key, State::Granted(permit, now, self.turn));
            woken |= self.wake(key);
        }
        woken
    }

    /// Permits that nobody has come for go back.
    pub(super) fn take_back(&mut self, now: u64) {
        while let Some(key) = self.first(State::Granted(Permit::default(), 0, 0)) {
            let State::Granted(permit, at, turn) = self.entries[key as usize].state else { return };
            if !self.is_unpolled(now, at, turn) {
                return;
            }
            self.set(key, State::Idle);
            // That it was in the wrong hands is no wait for the target or for instances.
            self.pacer.put_back(Permit { released_ns: now, ..permit });
        }
    }

    fn is_unpolled(&self, now: u64, woken_at: u64, turn: u64) -> bool {
        now >= woken_at.saturating_add(UNPOLLED_NS) && self.turn >= turn + UNPOLLED_TURNS
    }

    /// A late transaction that nobody polls any more. It is to be counted as timed out: otherwise it
    /// would keep its place under the limit until the end of the run.
    pub(super) fn lapse(&mut self, now: u64) -> Option<Lapsed> {
        let key = self.first(State::Late(0, 0))?;
        let State::Late(at, turn) = self.entries[key as usize].state else { return None };
        if !self.is_unpolled(now, at, turn) {
            return None;
        }
        self.set(key, State::Lapsed);
        let entry = &mut self.entries[key as usize];
        let (meta, grant) = entry.started.take()?;
        Some(Lapsed { instance: Rc::clone(&entry.instance), meta, grant })
    }

    /// Scenario instances that wait for a permit and do nothing else, the youngest first.
    pub(super) fn idle_instances(&self) -> impl Iterator<Item = &Rc<Instance>> {
        let mut key = State::Waiting.list().map_or(NONE, |list| self.lists[list].last);
        let entries = std::iter::from_fn(move || {
            let entry = self.entries.get(key as usize)?;
            key = entry.before;
            Some(entry)
        });
        entries.map(|entry| &entry.instance).filter(|instance| {
            instance.role() == Role::Scenario && instance.is_idle() && !instance.is_killed()
        })
    }

    /// Wakes transactions whose deadline has passed; `true` if there was one. To be asked in every
    /// turn.
    pub(super) fn expire(&mut self, now: u64) -> bool {
        self.turn += 1;
        let mut woken = false;
        while let Some(key) = self.first(State::Pending(0)) {
            match self.entries[key as usize].state {
                State::Pending(deadline) if deadline <= now => {
                    self.set(key, State::Late(now, self.turn));
                }
                _ => break,
            }
            woken |= self.wake(key);
        }
        woken
    }

    /// When the next deadline passes; `u64::MAX` if nothing is pending. All have the same timeout,
    /// so that the oldest is the first.
    pub(super) fn next_deadline(&self) -> u64 {
        let state = self.first(State::Pending(0)).map(|key| self.entries[key as usize].state);
        if let Some(State::Pending(deadline)) = state { deadline } else { u64::MAX }
    }

    /// Where the transaction with this ticket stands; a granted permit is taken by asking. What is
    /// in `displaced` is to be dropped outside of the borrow.
    // Not inlined: a transaction that never waits does not come here, and its way is shorter so.
    #[inline(never)]
    pub(super) fn place(
        &mut self,
        ticket: &Ticket,
        cx: &Context<'_>,
        displaced: &mut Option<Waker>,
    ) -> Place {
        match self.entries[ticket.key as usize].state {
            State::Granted(permit, at, _) => {
                self.set(ticket.key, State::Idle);
                Place::Granted(permit, at)
            }
            State::Waiting | State::Nested => {
                *displaced = self.remember(ticket.key, cx);
                Place::Waiting
            }
            State::Queued | State::Called(..) | State::Passed => Place::Queued,
            State::Idle | State::Pending(_) | State::Late(..) | State::Lapsed => Place::New,
        }
    }

    /// A new place.
    pub(super) fn ticket(permits: &Rc<RefCell<Self>>, instance: &Rc<Instance>) -> Ticket {
        let entry = Entry {
            state: State::Idle,
            waker: None,
            instance: Rc::clone(instance),
            for_turn: false,
            started: None,
            before: NONE,
            after: NONE,
        };
        let key = permits.borrow_mut().entries.insert(entry);
        let key = u32::try_from(key).expect("fewer than 2^32 transactions wait on a shard");
        Ticket { permits: Rc::clone(permits), key }
    }

    /// Takes its place in the queue.
    pub(super) fn wait(
        &mut self,
        ticket: &Ticket,
        is_nested: bool,
        cx: &Context<'_>,
    ) -> Option<Waker> {
        self.set(ticket.key, if is_nested { State::Nested } else { State::Waiting });
        self.remember(ticket.key, cx)
    }

    /// Notes that a started transaction is pending, so that its deadline is watched.
    pub(super) fn pend(
        &mut self,
        ticket: &Ticket,
        deadline: u64,
        started: (&'static TransactionMeta, Grant),
        cx: &Context<'_>,
    ) -> Option<Waker> {
        if let State::Idle = self.entries[ticket.key as usize].state {
            self.set(ticket.key, State::Pending(deadline));
            self.entries[ticket.key as usize].started = Some(started);
        }
        self.remember(ticket.key, cx)
    }

    /// The transaction waits no more; a permit that it was given goes back. `true` if it has lapsed,
    /// and so has been counted.
    pub(super) fn rest(&mut self, ticket: &Ticket) -> bool {
        self.leave(ticket.key) == State::Lapsed
    }

    fn leave(&mut self, key: u32) -> State {
        let state = self.entries[key as usize].state;
        self.set(key, State::Idle);
        match state {
            State::Granted(permit, ..) => self.pacer.put_back(permit),
            State::Queued | State::Called(..) | State::Passed => {
                self.queued.set(self.queued.get() - 1);
            }
            _ => {}
        }
        state
    }

    pub(super) fn is_late(&self, ticket: &Ticket, now: u64) -> bool {
        match self.entries[ticket.key as usize].state {
            State::Pending(deadline) => deadline <= now,
            state => matches!(state, State::Late(..) | State::Lapsed),
        }
    }

    fn remove(&mut self, key: u32) -> Entry {
        self.leave(key);
        self.entries.remove(key as usize)
    }

    /// Moves an entry to the end of the list of another state.
    fn set(&mut self, key: u32, state: State) {
        let entry = &mut self.entries[key as usize];
        let old = std::mem::replace(&mut entry.state, state);
        if let Some(list) = old.list() {
            let (before, after) = (entry.before, entry.after);
            match self.entries.get_mut(before as usize) {
                Some(entry) => entry.after = after,
                None => self.lists[list].first = after,
            }
            match self.entries.get_mut(after as usize) {
                Some(entry) => entry.before = before,
                None => self.lists[list].last = before,
            }
            self.lists[list].length -= 1;
        }
        if let Some(list) = state.list() {
            let last = std::mem::replace(&mut self.lists[list].last, key);
            let entry = &mut self.entries[key as usize];
            (entry.before, entry.after) = (last, NONE);
            match self.entries.get_mut(last as usize) {
                Some(last) => last.after = key,
                None => self.lists[list].first = key,
            }
            self.lists[list].length += 1;
        }
    }

    /// Keeps the waker of `cx`; answers with the one that was there, if it was another.
    fn remember(&mut self, key: u32, cx: &Context<'_>) -> Option<Waker> {
        let place = &mut self.entries[key as usize].waker;
        match place {
            Some(waker) if waker.will_wake(cx.waker()) => None,
            _ => place.replace(cx.waker().clone()),
        }
    }

    fn wake(&self, key: u32) -> bool {
        let waker = &self.entries[key as usize].waker;
        if let Some(waker) = waker {
            waker.wake_by_ref();
        }
        waker.is_some()
    }
}
