//! The queue of those who wait for a turn: see [`Calls`](crate::engine::calls).
//!
//! Who is called keeps the place until it starts its transaction, so a call that comes too late in the
//! slice costs a poll, and no further wait behind others.

use std::cell::RefCell;
use std::rc::Rc;
use std::task::{Context, Waker};

use super::{NONE, Permits, State, Ticket};
use crate::engine::instance::Instance;

impl Permits {
    /// Transactions of this run that wait for a turn.
    pub(in crate::engine::run) fn queued(&self) -> u32 {
        self.list(State::Queued) + self.list(State::Passed)
    }

    /// A place for nothing but a wait for a turn.
    pub(in crate::engine::run) fn turn_ticket(
        permits: &Rc<RefCell<Self>>,
        instance: &Rc<Instance>,
    ) -> Ticket {
        let ticket = Self::ticket(permits, instance);
        permits.borrow_mut().entries[ticket.key as usize].for_turn = true;
        ticket
    }

    /// Leaves the queue; `true` if the ticket is of no more use.
    pub(in crate::engine::run) fn take_turn(&mut self, ticket: &Ticket) -> bool {
        self.leave(ticket.key);
        self.entries[ticket.key as usize].for_turn
    }

    /// Takes a place at the end of the queue, or keeps the one that it has.
    pub(in crate::engine::run) fn queue(
        &mut self,
        ticket: &Ticket,
        cx: &Context<'_>,
    ) -> Option<Waker> {
        let state = &mut self.entries[ticket.key as usize].state;
        match state {
            State::Queued | State::Passed => {}
            // In the same list, so nothing is moved.
            State::Called(..) => *state = State::Passed,
            _ => {
                self.set(ticket.key, State::Queued);
                self.queued.set(self.queued.get() + 1);
            }
        }
        self.remember(ticket.key, cx)
    }

    /// Whether it has been called in this turn and not been polled since.
    pub(in crate::engine::run) fn is_called(&self, ticket: &Ticket) -> bool {
        matches!(self.entries[ticket.key as usize].state, State::Called(..))
    }

    /// Calls begin with those that have been called before.
    pub(in crate::engine::run) fn begin_calls(&mut self) {
        self.next_called = self.first(State::Passed).unwrap_or(NONE);
    }

    /// Calls the next; its waker is to be woken when nothing is borrowed.
    pub(in crate::engine::run) fn call_next(&mut self, now: u64) -> Option<Waker> {
        while self.next_called != NONE {
            let key = self.next_called;
            let called = State::Called(now, self.turn);
            let entry = &mut self.entries[key as usize];
            self.next_called = entry.after;
            let state = entry.state;
            match state {
                State::Passed => {
                    entry.state = called;
                    return entry.waker.clone();
                }
                // Should it be polled after all, it asks anew.
                State::Called(at, turn) if self.is_unpolled(now, at, turn) => {
                    self.leave(key);
                }
                _ => {}
            }
        }
        let key = self.first(State::Queued)?;
        self.set(key, State::Called(now, self.turn));
        self.entries[key as usize].waker.clone()
    }

    /// Nobody is called any more.
    pub(in crate::engine::run) fn dissolve_queue(&mut self) {
        for state in [State::Queued, State::Passed] {
            while let Some(key) = self.first(state) {
                self.leave(key);
            }
        }
    }
}
