//! Whose turn it is to ask for a permit, where not all can in one turn of the shard.

use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use super::permits::Permits;
use super::{Grant, ShardRun, Ticket};
use crate::engine::instance::Instance;

impl ShardRun {
    /// For a transaction that waits for its turn.
    // Not for the hot path, which comes after it.
    #[cold]
    #[inline(never)]
    pub(super) fn poll_turn(
        &self,
        instance: &Rc<Instance>,
        ticket: &mut Option<Ticket>,
        grant: &mut Grant,
        cx: &Context<'_>,
    ) -> Poll<()> {
        let now = self.shard.now();
        let is_called =
            ticket.as_ref().is_some_and(|ticket| self.permits.borrow().is_called(ticket));
        let has_turn = match is_called && self.is_running() {
            true => self.shard.answer_call(now),
            // Another transaction of the same task may have been called in its place.
            false => now < self.shard.free_until(),
        };
        if !has_turn {
            return self.wait_for_turn(instance, ticket, cx);
        }
        drop(ticket.take_if(|ticket| self.permits.borrow_mut().take_turn(ticket)));
        self.poll_permit(instance, ticket, grant, cx)
    }

    /// Has a transaction wait for its turn, or go on doing so.
    #[cold]
    #[inline(never)]
    pub(super) fn wait_for_turn(
        &self,
        instance: &Rc<Instance>,
        ticket: &mut Option<Ticket>,
        cx: &Context<'_>,
    ) -> Poll<()> {
        let ticket = ticket.get_or_insert_with(|| Permits::turn_ticket(&self.permits, instance));
        let displaced = self.permits.borrow_mut().queue(ticket, cx);
        drop(displaced);
        Poll::Pending
    }

    /// This turn's calls begin.
    pub(crate) fn begin_calls(&self) {
        let mut permits = self.permits.borrow_mut();
        if !self.is_running() {
            permits.dissolve_queue();
        }
        permits.begin_calls();
    }

    /// Calls the next of those who wait for a turn. Its waker is to be woken.
    pub(crate) fn call_next(&self, now: u64) -> Option<Waker> {
        self.permits.borrow_mut().call_next(now)
    }
}
