//! Delivery exactly once, of what a part has measured, over connections that break.

use std::collections::VecDeque;

/// What is kept until its receipt has been confirmed.
///
/// Measurements are pushed as they come; while the line is slow or broken, those that have not been
/// sent yet are merged into one, so that memory stays bounded and nothing is lost. What has been sent
/// once is sent again after a reconnection, under the same number and unchanged, so that the
/// [`Ledger`] at the other end can tell it from new.
///
/// ```
/// use balter_controllers::{Ledger, Outbox};
///
/// let mut outbox = Outbox::new(2);
/// for count in [1_u64, 2, 3, 4] {
///     outbox.push(count, |sum, more| *sum += more);
/// }
/// // Nothing could be sent so far, so they wait as one.
/// assert_eq!(outbox.send().map(|(number, &count)| (number, count)), Some((1, 10)));
/// ```
#[derive(Debug)]
pub struct Outbox<T> {
    /// Sent and not confirmed, oldest first; the first has the number `first`.
    sent: VecDeque<T>,
    first: u64,
    /// How many of them have been sent over this connection.
    resent: usize,
    open: Option<T>,
    most: usize,
}

impl<T> Outbox<T> {
    /// Keeps at most so many (one at least) that were sent and are not confirmed.
    #[must_use]
    pub fn new(most: usize) -> Self {
        Self { sent: VecDeque::new(), first: 1, resent: 0, open: None, most: most.max(1) }
    }

    /// Adds a measurement.
    pub fn push(&mut self, item: T, merge: impl FnOnce(&mut T, T)) {
        match &mut self.open {
            Some(open) => merge(open, item),
            None => self.open = Some(item),
        }
    }

    /// The next one to send over this connection, with its number; `None` if there is none, or if
    /// too many wait for their confirmation.
    pub fn send(&mut self) -> Option<(u64, &T)> {
        if self.resent == self.sent.len() {
            if self.sent.len() >= self.most {
                return None;
            }
            self.sent.push_back(self.open.take()?);
        }
        self.resent += 1;
        let number = self.first + self.resent as u64 - 1;
        self.sent.get(self.resent - 1).map(|item| (number, item))
    }

    /// The other end has all up to this number.
    pub fn confirmed(&mut self, number: u64) {
        while self.first <= number && self.sent.pop_front().is_some() {
            self.first += 1;
            self.resent = self.resent.saturating_sub(1);
        }
    }

    /// There is a new connection: what is not confirmed is to be sent again.
    pub fn reconnected(&mut self) {
        self.resent = 0;
    }

    /// Everything has been confirmed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sent.is_empty() && self.open.is_none()
    }
}

/// The other end: takes each number once, in order.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    last: u64,
}

impl Ledger {
    /// Whether what came under this number is to be taken: `false` for what was taken before, and
    /// for what comes too early, which will be sent again.
    pub fn take(&mut self, number: u64) -> bool {
        let is_next = number == self.last + 1;
        self.last += u64::from(is_next);
        is_next
    }

    /// The number up to which everything has been taken.
    #[must_use]
    pub fn last(&self) -> u64 {
        self.last
    }
}
