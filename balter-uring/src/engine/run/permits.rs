//! The permits of a run on its shard, and the transactions that wait: for a permit, or, started,
//! for their target.

use std::collections::VecDeque;
use std::rc::Rc;
use std::task::{Context, Waker};

use balter_controllers::{Pacer, PacerConfig};
use slab::Slab;

use super::spec::RunSpec;
use crate::engine::instance::{Instance, NO_ENTRY, Role};
use crate::waker::remember;

/// Overdue permits that one shard keeps (8 MiB of them).
const MAX_BACKLOG: usize = 1 << 20;

/// The longest that a permit may be overdue.
const MAX_BACKLOG_AGE_NS: u64 = 10_000_000_000;

/// A shard that has not turned for so long was not running, and must not make up for it.
const MAX_GAP_NS: u64 = 1_000_000_000;

/// See the module's documentation.
pub(super) struct Permits {
    pub(super) pacer: Pacer,
    entries: Slab<Entry>,
    /// Keys of `entries`, oldest first. One whose entry is no longer waiting is passed over.
    waiters: VecDeque<u32>,
}

/// A transaction that waits. Entries are used again with the waker that they have, so that a
/// transaction clones none.
struct Entry {
    state: State,
    waker: Option<Waker>,
    /// Set while waiting for a permit.
    instance: Option<Rc<Instance>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Idle,
    /// In `waiters`.
    Waiting,
    /// Has a permit with this intended start that it has not taken yet.
    Granted(u64),
    /// Started and pending; late at this time.
    Pending(u64),
}

/// What an entry has to say to the transaction that asks for its permit.
pub(super) enum Place {
    /// It has not asked before.
    New,
    Waiting,
    Granted(u64),
}

impl Permits {
    pub(super) fn new(spec: &RunSpec, tps: u32) -> Self {
        let config = PacerConfig {
            arrival: spec.arrival,
            part: spec.part,
            parts: spec.parts,
            max_backlog: MAX_BACKLOG,
            max_backlog_age_ns: MAX_BACKLOG_AGE_NS.min(spec.timeout_ns),
            max_gap_ns: MAX_GAP_NS,
        };
        let pacer = Pacer::new(config, spec.start_ns, spec.end_ns, tps);
        Self { pacer, entries: Slab::new(), waiters: VecDeque::new() }
    }

    pub(super) fn has_waiters(&self) -> bool {
        !self.waiters.is_empty()
    }

    /// A permit that was handed out is about to be taken: it must not be lost to the end.
    pub(super) fn has_granted(&self) -> bool {
        self.entries.iter().any(|(_, entry)| matches!(entry.state, State::Granted(_)))
    }

    /// Hands due permits to those who wait for one. `true` if a task has been woken.
    pub(super) fn release(&mut self, now: u64) -> bool {
        self.pacer.advance(now);
        let mut woken = false;
        while self.pacer.backlog() > 0
            && let Some(key) = self.waiters.pop_front()
        {
            let entry = self.entries.get_mut(key as usize);
            let Some(entry) = entry.filter(|entry| entry.state == State::Waiting) else { continue };
            let Some(intended) = self.pacer.take() else { break };
            entry.state = State::Granted(intended);
            entry.instance = None;
            woken |= wake(entry);
        }
        woken
    }

    /// Scenario instances that wait for a permit and do nothing else, the youngest first.
    pub(super) fn idle_instances(&self) -> impl Iterator<Item = &Rc<Instance>> {
        let entries = self.waiters.iter().rev().filter_map(|&key| self.entries.get(key as usize));
        entries.filter_map(|entry| entry.instance.as_ref()).filter(|instance| {
            instance.role() == Role::Scenario && instance.is_idle() && !instance.is_killed()
        })
    }

    /// Wakes transactions whose deadline has passed; `true` if there was one.
    pub(super) fn sweep(&self, now: u64) -> bool {
        let mut woken = false;
        for (_, entry) in &self.entries {
            if matches!(entry.state, State::Pending(deadline) if deadline <= now) {
                woken |= wake(entry);
            }
        }
        woken
    }

    /// Where the transaction with this entry stands; a granted permit is taken by asking.
    pub(super) fn place(&mut self, key: u32, cx: &Context<'_>) -> Place {
        if key == NO_ENTRY {
            return Place::New;
        }
        let entry = &mut self.entries[key as usize];
        match entry.state {
            State::Granted(intended) => {
                entry.state = State::Idle;
                Place::Granted(intended)
            }
            State::Waiting => {
                remember(&mut entry.waker, cx);
                Place::Waiting
            }
            State::Idle | State::Pending(_) => Place::New,
        }
    }

    /// Takes its place in the queue. Answers with the entry, which is `key` where there is one.
    pub(super) fn wait(&mut self, key: u32, instance: &Rc<Instance>, cx: &Context<'_>) -> u32 {
        let key = self.enter(key, State::Waiting, cx);
        self.entries[key as usize].instance = Some(Rc::clone(instance));
        self.waiters.push_back(key);
        key
    }

    /// Notes that a started transaction is pending, so that its deadline is watched.
    pub(super) fn pend(&mut self, key: u32, deadline: u64, cx: &Context<'_>) -> u32 {
        self.enter(key, State::Pending(deadline), cx)
    }

    fn enter(&mut self, key: u32, state: State, cx: &Context<'_>) -> u32 {
        if key == NO_ENTRY {
            let waker = Some(cx.waker().clone());
            let key = self.entries.insert(Entry { state, waker, instance: None });
            return u32::try_from(key).expect("fewer than 2^32 transactions wait on a shard");
        }
        let entry = &mut self.entries[key as usize];
        entry.state = state;
        remember(&mut entry.waker, cx);
        key
    }

    pub(super) fn unpend(&mut self, key: u32) {
        self.entries[key as usize].state = State::Idle;
    }

    pub(super) fn is_expired(&self, key: u32, now: u64) -> bool {
        matches!(self.entries[key as usize].state, State::Pending(deadline) if deadline <= now)
    }

    /// Gives up an entry; a permit that was not taken goes back.
    pub(super) fn leave(&mut self, key: u32) {
        let entry = self.entries.remove(key as usize);
        if let State::Granted(intended) = entry.state {
            self.pacer.put_back(intended);
        }
    }
}

fn wake(entry: &Entry) -> bool {
    if let Some(waker) = &entry.waker {
        waker.wake_by_ref();
    }
    entry.waker.is_some()
}
