//! Whose turn it is to ask for a permit, where not all can in one turn of the shard.

use std::rc::Rc;
use std::task::{Context, Waker};

use super::permits::Permits;
use super::{ShardRun, Ticket};
use crate::engine::instance::Instance;

impl ShardRun {
    /// For a transaction that has been called, or that has come when the slice was used up or others
    /// waited. `false` if it has to wait: then it has its place in the queue.
    // Seldom needed, and what comes after it is the hot path.
    #[cold]
    #[inline(never)]
    pub(super) fn takes_turn(
        &self,
        instance: &Rc<Instance>,
        ticket: &mut Option<Ticket>,
        now: u64,
        cx: &Context<'_>,
    ) -> bool {
        let is_called =
            ticket.as_ref().is_some_and(|ticket| self.permits.borrow().is_called(ticket));
        // Another transaction of the same task may have been called in its place.
        let may =
            if is_called { self.shard.answer_call(now) } else { now < self.shard.free_until() };
        if may {
            if let Some(held) = ticket {
                self.rest(held);
                ticket.take_if(|ticket| ticket.is_for_turn());
            }
        } else {
            let ticket =
                ticket.get_or_insert_with(|| Permits::turn_ticket(&self.permits, instance));
            let displaced = self.permits.borrow_mut().queue(ticket, cx);
            drop(displaced);
        }
        may
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
