//! Budgets for parties that can be lost: leases that end by themselves, and a book that never
//! grants what another party may still be using.

use std::collections::VecDeque;

use crate::split;

/// What one party may use, or all of them together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Allowance {
    /// Transactions a second; 0 for all in a closed loop, which is bounded by its instances alone.
    pub tps: u32,
    /// Scenario instances.
    pub concurrency: u32,
}

/// A grant, as it is sent to a party.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseGrant {
    /// Grants of one book are numbered from 1, later ones higher. A party never goes back to a lower
    /// number.
    pub number: u64,
    /// The stamp of the party's own clock that this grant answers, in nanoseconds.
    pub stamp_ns: u64,
    /// What may be used.
    pub allowance: Allowance,
}

/// The party's side: what it may use, and until when.
///
/// ```
/// use balter_controllers::{Allowance, LeaseGrant, LeaseHolder};
///
/// let mut holder = LeaseHolder::new(2_000_000_000);
/// let allowance = Allowance { tps: 100, concurrency: 10 };
/// assert!(holder.take(&LeaseGrant { number: 1, stamp_ns: 500, allowance }));
/// assert_eq!(holder.allowance(2_000_000_499).tps, 100);
/// assert_eq!(holder.allowance(2_000_000_500).tps, 0);
/// ```
#[derive(Clone, Debug)]
pub struct LeaseHolder {
    length_ns: u64,
    number: u64,
    allowance: Allowance,
    until_ns: u64,
}

impl LeaseHolder {
    /// Holds nothing yet. The length is the book's.
    #[must_use]
    pub fn new(length_ns: u64) -> Self {
        Self { length_ns, number: 0, allowance: Allowance::default(), until_ns: 0 }
    }

    /// Takes a grant; `false` if it is none to take, because a later one was taken before.
    ///
    /// It counts from the stamp that it answers, so a grant that was under way for long is over
    /// when it arrives, whatever the clocks of others say.
    pub fn take(&mut self, grant: &LeaseGrant) -> bool {
        if grant.number <= self.number {
            return false;
        }
        self.number = grant.number;
        self.allowance = grant.allowance;
        self.until_ns = grant.stamp_ns.saturating_add(self.length_ns);
        true
    }

    /// Number of the grant that is held; 0 before the first.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.number
    }

    /// When it ends, on this party's clock.
    #[must_use]
    pub fn until_ns(&self) -> u64 {
        self.until_ns
    }

    /// What was granted last, whether it is over or not.
    #[must_use]
    pub fn granted(&self) -> Allowance {
        self.allowance
    }

    /// What may be used now.
    #[must_use]
    pub fn allowance(&self, now_ns: u64) -> Allowance {
        if now_ns < self.until_ns { self.allowance } else { Allowance::default() }
    }
}

/// Settings of a [`LeaseBook`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseConfig {
    /// A party may use a grant for so long after the stamp that it answers.
    pub length_ns: u64,
    /// The book takes it to be used for so much longer after it was sent: for clocks that run at
    /// different speeds.
    pub margin_ns: u64,
}

/// Divides a goal among parties that come, go, and fall silent, so that what they may use never adds
/// up to more than the goal, whatever the network does to the messages.
///
/// Each party reports now and then with a stamp of its own clock and the number of the grant that it
/// holds; each report is answered by a grant that is valid for a fixed time *after that stamp*. So no
/// two clocks are compared. The book knows for every party the most that it can be using: the
/// largest of the grants that it has not gone beyond and that can still be valid. A share is raised
/// only as far as the goal leaves room beside that; a lowered one makes room when the party has said
/// so, or when its old lease must have ended.
///
/// All times are nanoseconds on the caller's clock.
///
/// ```
/// use balter_controllers::{Allowance, LeaseBook, LeaseConfig};
///
/// let config = LeaseConfig { length_ns: 2_000_000_000, margin_ns: 50_000_000 };
/// let mut book = LeaseBook::new(config);
/// book.set_goal(Allowance { tps: 100, concurrency: 10 });
/// let one = book.join(1, 0);
/// book.heard(one, 0, 77, 0);
/// let grants = book.grants(0);
/// assert_eq!((grants[0].1.stamp_ns, grants[0].1.allowance.tps), (77, 100));
/// // Another party joins, but what the first may use is not free yet.
/// let other = book.join(1, 1);
/// book.heard(other, 1, 500, 0);
/// assert_eq!(book.grants(1)[0].1.allowance.tps, 0);
/// ```
#[derive(Debug)]
pub struct LeaseBook {
    length_ns: u64,
    /// For so long after it was sent a grant may be in use.
    kept_ns: u64,
    goal: Allowance,
    parties: Vec<Party>,
    number: u64,
}

#[derive(Debug)]
struct Party {
    weight: u64,
    /// It is to have a share.
    present: bool,
    /// It takes no part any more.
    gone: bool,
    /// Its newest stamp that no grant has answered yet.
    unanswered: Option<u64>,
    heard_ns: u64,
    /// The number that it last said it holds.
    acked: u64,
    /// What was granted and may be in use, oldest first.
    issued: VecDeque<Issued>,
    /// Its share, when shares were last dealt.
    share: Allowance,
    /// From this grant on all had what drives the load of `share`.
    steady_from: u64,
}

#[derive(Clone, Copy, Debug)]
struct Issued {
    number: u64,
    allowance: Allowance,
    sent_ns: u64,
}

impl Party {
    /// The most that it can be using.
    fn held(&self) -> Allowance {
        self.issued.iter().fold(Allowance::default(), |most, issued| Allowance {
            tps: most.tps.max(issued.allowance.tps),
            concurrency: most.concurrency.max(issued.allowance.concurrency),
        })
    }
}

impl LeaseBook {
    /// A book without parties and with nothing to divide.
    #[must_use]
    pub fn new(config: LeaseConfig) -> Self {
        let LeaseConfig { length_ns, margin_ns } = config;
        Self {
            length_ns,
            kept_ns: length_ns.saturating_add(margin_ns),
            goal: Allowance::default(),
            parties: Vec::new(),
            number: 0,
        }
    }

    /// What all parties together may use from now on.
    pub fn set_goal(&mut self, goal: Allowance) {
        self.goal = goal;
    }

    /// What all parties together may use.
    #[must_use]
    pub fn goal(&self) -> Allowance {
        self.goal
    }

    /// Adds a party, and returns its index. It has a share once it is heard of, in proportion to its
    /// weight.
    pub fn join(&mut self, weight: u64, now_ns: u64) -> usize {
        self.parties.push(Party {
            weight,
            present: false,
            gone: false,
            unanswered: None,
            heard_ns: now_ns,
            acked: 0,
            issued: VecDeque::new(),
            share: Allowance::default(),
            steady_from: u64::MAX,
        });
        self.parties.len() - 1
    }

    /// The party said this: a stamp of its clock, and the number of the grant that it holds (0 for
    /// none). What is older than what was heard before changes nothing. Numbers that were never
    /// granted to it are ignored.
    pub fn heard(&mut self, party: usize, now_ns: u64, stamp_ns: u64, holds: u64) {
        let party = &mut self.parties[party];
        if party.gone {
            return;
        }
        party.present = true;
        party.heard_ns = party.heard_ns.max(now_ns);
        party.unanswered = Some(party.unanswered.map_or(stamp_ns, |before| before.max(stamp_ns)));
        // A number that has expired from the list is as good as any before the list.
        if holds > party.acked && holds <= self.number {
            party.acked = holds;
            while party.issued.front().is_some_and(|issued| issued.number < holds) {
                party.issued.pop_front();
            }
        }
    }

    /// The party cannot be reached: it gets no share until it is heard of again. What it was granted
    /// stays taken until its lease must have ended.
    pub fn silent(&mut self, party: usize) {
        self.parties[party].present = false;
        self.parties[party].unanswered = None;
    }

    /// The party has said itself that it uses nothing any more, and never will.
    pub fn retire(&mut self, party: usize) {
        let party = &mut self.parties[party];
        party.gone = true;
        party.present = false;
        party.unanswered = None;
        party.issued.clear();
    }

    /// The most that all parties together can be using.
    #[must_use]
    pub fn held(&self, now_ns: u64) -> (u64, u64) {
        let live = |issued: &&Issued| now_ns < issued.sent_ns.saturating_add(self.kept_ns);
        let mut sum = (0, 0);
        for party in &self.parties {
            let issued = party.issued.iter().filter(live).map(|issued| issued.allowance);
            let (tps, concurrency) =
                issued.fold((0, 0), |most, one| (most.0.max(one.tps), most.1.max(one.concurrency)));
            sum = (sum.0 + u64::from(tps), sum.1 + u64::from(concurrency));
        }
        sum
    }

    /// The share that a party is to have. It may not have all of it yet.
    #[must_use]
    pub fn share(&self, party: usize) -> Allowance {
        self.parties[party].share
    }

    /// Whether a party gets a share.
    #[must_use]
    pub fn is_present(&self, party: usize) -> bool {
        self.parties[party].present
    }

    /// Whether what a party did under a grant, and whatever came after it until now, was done at the
    /// rate that is its share now; in a closed loop, with the instances.
    #[must_use]
    pub fn is_steady(&self, party: usize, grant: u64) -> bool {
        let party = &self.parties[party];
        party.present && grant >= party.steady_from
    }

    /// Deals the shares anew and answers everybody who has reported since the last call.
    pub fn grants(&mut self, now_ns: u64) -> Vec<(usize, LeaseGrant)> {
        self.expire(now_ns);
        self.deal();
        let held: Vec<_> = self.parties.iter().map(Party::held).collect();
        let sum = |part: fn(&Allowance) -> u32| held.iter().map(|h| u64::from(part(h))).sum();
        let mut free_tps = u64::from(self.goal.tps).saturating_sub(sum(|held| held.tps));
        let mut free_instances =
            u64::from(self.goal.concurrency).saturating_sub(sum(|held| held.concurrency));
        let mut grants = Vec::new();
        for (index, party) in self.parties.iter_mut().enumerate() {
            let Some(stamp_ns) = party.unanswered.take() else { continue };
            let (share, held) = (party.share, held[index]);
            let allowance = Allowance {
                tps: raised(share.tps, held.tps, &mut free_tps),
                concurrency: raised(share.concurrency, held.concurrency, &mut free_instances),
            };
            self.number += 1;
            if driven(self.goal, allowance) != driven(self.goal, share) {
                party.steady_from = u64::MAX;
            } else if party.steady_from == u64::MAX {
                party.steady_from = self.number;
            }
            party.issued.push_back(Issued { number: self.number, allowance, sent_ns: now_ns });
            grants.push((index, LeaseGrant { number: self.number, stamp_ns, allowance }));
        }
        grants
    }

    fn expire(&mut self, now_ns: u64) {
        for party in &mut self.parties {
            let over = |issued: &Issued| now_ns >= issued.sent_ns.saturating_add(self.kept_ns);
            while party.issued.front().is_some_and(over) {
                party.issued.pop_front();
            }
            if now_ns >= party.heard_ns.saturating_add(self.length_ns) {
                party.present = false;
                party.unanswered = None;
            }
        }
    }

    /// Shares of the goal for those who are present. With fewer instances than parties, only so many
    /// of these get anything: a rate without an instance is of no use.
    fn deal(&mut self) {
        let mut working = self.goal.concurrency;
        let weights: Vec<_> = self
            .parties
            .iter()
            .map(|party| {
                let works = party.present && working > 0;
                working -= u32::from(works);
                if works { party.weight.max(1) } else { 0 }
            })
            .collect();
        let is_empty = weights.iter().all(|&weight| weight == 0);
        let rates = split(u64::from(self.goal.tps), &weights);
        // Instances go where the rate goes, and every working party gets one at least.
        let count = weights.iter().filter(|&&weight| weight > 0).count() as u64;
        let beyond = u64::from(self.goal.concurrency).saturating_sub(count);
        let instances =
            split(beyond, &if self.goal.tps > 0 { rates.clone() } else { weights.clone() });
        for (index, party) in self.parties.iter_mut().enumerate() {
            let share = match weights[index] {
                0 => Allowance::default(),
                _ => {
                    Allowance { tps: rates[index] as u32, concurrency: instances[index] as u32 + 1 }
                }
            };
            let share = if is_empty { Allowance::default() } else { share };
            if driven(self.goal, share) != driven(self.goal, party.share) {
                party.steady_from = u64::MAX;
            }
            party.share = share;
        }
    }
}

/// What the load follows: the rate, or the instances where nothing is paced.
fn driven(goal: Allowance, allowance: Allowance) -> u32 {
    if goal.tps > 0 { allowance.tps } else { allowance.concurrency }
}

/// The share, as far as it is held already or there is room.
fn raised(share: u32, held: u32, free: &mut u64) -> u32 {
    let extra = u64::from(share.saturating_sub(held)).min(*free);
    *free -= extra;
    // At most the share, which is 32 bits wide.
    share.min(held) + extra as u32
}
