//! Leases and deliveries among fifty simulated nodes, over a network that loses, delays, reorders
//! and repeats messages, and with nodes that stall, die, are cut off, and join late.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use balter_controllers::{
    Allowance, LeaseBook, LeaseConfig, LeaseGrant, LeaseHolder, Ledger, Outbox,
};
use rand_core::{Rng, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;

const MS: u64 = 1_000_000;
const LENGTH_NS: u64 = 2_000 * MS;
const MARGIN_NS: u64 = 60 * MS;
const TICK_NS: u64 = 100 * MS;
const NODES: usize = 50;
/// Until then everything goes wrong; afterwards nothing does, and all has to come right.
const TROUBLE_NS: u64 = 12_000 * MS;
const END_NS: u64 = 20_000 * MS;

struct Random(Xoshiro256PlusPlus);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0.next_u64() % bound.max(1)
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

struct Node {
    holder: LeaseHolder,
    outbox: Outbox<u64>,
    /// Its clock starts anywhere and runs up to one per cent too fast or too slow.
    clock_offset: u64,
    clock_rate: f64,
    joins_ns: u64,
    dies_ns: u64,
    cut_off: (u64, u64),
    stalled: (u64, u64),
    /// What it has done, in thousandths of transactions.
    done: u64,
    worked_until: u64,
    last_resent: u64,
    party: Option<usize>,
}

impl Node {
    fn clock(&self, now: u64) -> u64 {
        self.clock_offset + (now as f64 * self.clock_rate) as u64
    }

    fn lives(&self, now: u64) -> bool {
        (self.joins_ns..self.dies_ns).contains(&now)
    }

    fn is_stalled(&self, now: u64) -> bool {
        (self.stalled.0..self.stalled.1).contains(&now)
    }

    fn is_cut_off(&self, now: u64) -> bool {
        (self.cut_off.0..self.cut_off.1).contains(&now)
    }

    fn uses(&self, now: u64) -> Allowance {
        match self.lives(now) {
            true => self.holder.allowance(self.clock(now)),
            false => Allowance::default(),
        }
    }
}

#[derive(Clone)]
enum Message {
    Report { node: usize, stamp: u64, holds: u64, windows: Vec<(u64, u64)> },
    Grant { node: usize, grant: LeaseGrant, confirmed: u64 },
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    NodeTick(usize),
    BookTick,
    Arrival(usize),
    NewGoal,
}

struct World {
    random: Random,
    /// In per cent.
    loss: u64,
    most_delay: u64,
    nodes: Vec<Node>,
    book: LeaseBook,
    ledgers: Vec<Ledger>,
    received: Vec<u64>,
    events: BinaryHeap<Reverse<(u64, u64, Event)>>,
    order: u64,
    messages: Vec<Option<Message>>,
    free: Vec<usize>,
    /// A closed loop: its goals have no rate.
    is_closed: bool,
    /// Goals that may still be in use: until when, and how much.
    goals: Vec<(u64, Allowance)>,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut random = Random(Xoshiro256PlusPlus::seed_from_u64(seed));
        let book = LeaseBook::new(LeaseConfig { length_ns: LENGTH_NS, margin_ns: MARGIN_NS });
        let kind = random.below(4);
        let nodes = (0..NODES)
            .map(|_| {
                let interval = |random: &mut Random, percent| {
                    let start = random.below(TROUBLE_NS);
                    let length = random.below(10_000 * MS);
                    match random.chance(percent) {
                        true => (start, (start + length).min(TROUBLE_NS)),
                        false => (0, 0),
                    }
                };
                Node {
                    holder: LeaseHolder::new(LENGTH_NS),
                    outbox: Outbox::new(4),
                    clock_offset: random.below(1 << 50),
                    clock_rate: 0.99 + random.below(2_001) as f64 / 1e5,
                    joins_ns: if random.chance(30) { random.below(TROUBLE_NS) } else { 0 },
                    dies_ns: if random.chance(20) { random.below(TROUBLE_NS) } else { u64::MAX },
                    cut_off: interval(&mut random, 40),
                    stalled: interval(&mut random, 30),
                    done: 0,
                    worked_until: 0,
                    last_resent: 0,
                    party: None,
                }
            })
            .collect();
        let mut world = Self {
            loss: [0, 5, 30, 60][kind as usize],
            most_delay: [5, 100, 800, 4_000][random.below(4) as usize] * MS,
            is_closed: random.chance(20),
            random,
            nodes,
            book,
            ledgers: Vec::new(),
            received: Vec::new(),
            events: BinaryHeap::new(),
            order: 0,
            messages: Vec::new(),
            free: Vec::new(),
            goals: Vec::new(),
        };
        world.new_goal(0);
        for node in 0..NODES {
            let phase = world.random.below(TICK_NS);
            let joins = world.nodes[node].joins_ns;
            world.at(joins + phase, Event::NodeTick(node));
        }
        world.at(0, Event::BookTick);
        world
    }

    fn at(&mut self, time: u64, event: Event) {
        self.order += 1;
        self.events.push(Reverse((time, self.order, event)));
    }

    fn new_goal(&mut self, now: u64) {
        if let Some(last) = self.goals.last_mut() {
            last.0 = now + LENGTH_NS + MARGIN_NS;
        }
        let goal = Allowance {
            tps: if self.is_closed { 0 } else { self.random.below(40_000) as u32 },
            concurrency: 1 + self.random.below(2_000) as u32,
        };
        self.book.set_goal(goal);
        self.goals.push((u64::MAX, goal));
        // Half of all worlds keep their first goal.
        if self.random.chance(50) && now < TROUBLE_NS {
            let next = now + self.random.below(5_000 * MS);
            self.at(next, Event::NewGoal);
        }
    }

    fn send(&mut self, now: u64, node: usize, message: Message) {
        let trouble = now < TROUBLE_NS;
        let copies = 1 + usize::from(trouble && self.random.chance(5));
        for _ in 0..copies {
            let lost = trouble && self.random.chance(self.loss);
            if lost || self.nodes[node].is_cut_off(now) {
                continue;
            }
            let delay = match trouble {
                true => self.random.below(self.most_delay),
                false => MS,
            };
            let place = self.free.pop().unwrap_or_else(|| {
                self.messages.push(None);
                self.messages.len() - 1
            });
            self.messages[place] = Some(message.clone());
            self.at(now + delay, Event::Arrival(place));
        }
    }

    /// What all nodes together use now is within what was the goal lately.
    fn check(&self, now: u64, seed: u64) {
        let (mut tps, mut instances) = (0, 0);
        for node in &self.nodes {
            let uses = node.uses(now);
            tps += u64::from(uses.tps);
            instances += u64::from(uses.concurrency);
        }
        let lately = self.goals.iter().filter(|goal| now <= goal.0).map(|goal| goal.1);
        let (most_tps, most_instances) = lately.fold((0, 0), |most, goal| {
            (most.0.max(u64::from(goal.tps)), most.1.max(u64::from(goal.concurrency)))
        });
        assert!(tps <= most_tps, "seed {seed}, {now} ns: {tps} a second of {most_tps}");
        assert!(instances <= most_instances, "seed {seed}, {now} ns: {instances}");
        let held = self.book.held(now);
        assert!(tps <= held.0 && instances <= held.1, "seed {seed}, {now} ns: unknown to the book");
    }

    fn node_tick(&mut self, now: u64, index: usize) {
        let node = &mut self.nodes[index];
        if now >= node.dies_ns {
            return;
        }
        if !node.is_stalled(now) {
            let clock = node.clock(now);
            // What it did since the last tick, at the rate that it may use now.
            let since = node.worked_until.max(now.saturating_sub(TICK_NS)).min(now);
            let did = u64::from(node.holder.allowance(clock).tps) * (now - since) / MS;
            node.worked_until = now;
            node.done += did;
            node.outbox.push(did, |sum, more| *sum += more);
            if now - node.last_resent > 700 * MS {
                node.outbox.reconnected();
                node.last_resent = now;
            }
            let mut windows = Vec::new();
            while let Some((number, &count)) = node.outbox.send() {
                windows.push((number, count));
            }
            let (stamp, holds) = (clock, node.holder.number());
            self.send(now, index, Message::Report { node: index, stamp, holds, windows });
        }
        self.at(now + TICK_NS, Event::NodeTick(index));
    }

    fn book_tick(&mut self, now: u64, seed: u64) {
        let (before, goal) = (self.book.held(now), self.book.goal());
        let grants = self.book.grants(now);
        let held = self.book.held(now);
        assert!(held.0 <= before.0.max(u64::from(goal.tps)), "seed {seed}: {held:?} {goal:?}");
        assert!(held.1 <= before.1.max(u64::from(goal.concurrency)), "seed {seed}: {held:?}");
        for (party, grant) in grants {
            let node = self.nodes.iter().position(|node| node.party == Some(party)).expect("known");
            let confirmed = self.ledgers[party].last();
            self.send(now, node, Message::Grant { node, grant, confirmed });
        }
        self.at(now + TICK_NS, Event::BookTick);
    }

    fn arrival(&mut self, now: u64, place: usize) {
        let message = self.messages[place].take().expect("a message arrives once");
        self.free.push(place);
        match message {
            Message::Report { node, stamp, holds, windows } => {
                let party = *self.nodes[node].party.get_or_insert_with(|| {
                    self.ledgers.push(Ledger::default());
                    self.received.push(0);
                    self.book.join(1 + node as u64 % 3, now)
                });
                self.book.heard(party, now, stamp, holds);
                for (number, count) in windows {
                    if self.ledgers[party].take(number) {
                        self.received[party] += count;
                    }
                }
            }
            Message::Grant { node, grant, confirmed } => {
                let node = &mut self.nodes[node];
                if node.lives(now) {
                    node.holder.take(&grant);
                    node.outbox.confirmed(confirmed);
                }
            }
        }
    }

    fn live(mut self, seed: u64) {
        while let Some(Reverse((now, _, event))) = self.events.pop() {
            if now >= END_NS {
                break;
            }
            match event {
                Event::NodeTick(node) => self.node_tick(now, node),
                Event::BookTick => self.book_tick(now, seed),
                Event::Arrival(place) => self.arrival(now, place),
                Event::NewGoal => self.new_goal(now),
            }
            self.check(now, seed);
        }
        self.end(seed);
    }

    /// After the trouble everybody has a share, the goal is used to the unit, and all that was
    /// measured has been counted once.
    fn end(&self, seed: u64) {
        let goal = self.book.goal();
        let living: Vec<_> = self.nodes.iter().filter(|node| node.lives(END_NS)).collect();
        let used = |part: fn(&Allowance) -> u32| {
            living.iter().map(|node| u64::from(part(&node.uses(END_NS)))).sum::<u64>()
        };
        assert_eq!(used(|uses| uses.tps), u64::from(goal.tps), "seed {seed}");
        assert_eq!(used(|uses| uses.concurrency), u64::from(goal.concurrency), "seed {seed}");
        for node in &self.nodes {
            let Some(party) = node.party else { continue };
            let received = self.received[party];
            if node.lives(END_NS) {
                // What has been done since the last report is on its way.
                let open = u64::from(goal.tps) * 3 * TICK_NS / MS;
                assert!(received <= node.done && node.done - received <= open, "seed {seed}");
            } else {
                assert!(received <= node.done, "seed {seed}: {received} of {}", node.done);
            }
        }
    }
}

fn live(seeds: std::ops::Range<u64>) {
    for seed in seeds {
        World::new(seed).live(seed);
    }
}

#[test]
fn fifty_nodes_never_exceed_the_goal_and_end_with_all_of_it_0() {
    live(0..500);
}

#[test]
fn fifty_nodes_never_exceed_the_goal_and_end_with_all_of_it_1() {
    live(500..1_000);
}

#[test]
fn fifty_nodes_never_exceed_the_goal_and_end_with_all_of_it_2() {
    live(1_000..1_500);
}

#[test]
fn fifty_nodes_never_exceed_the_goal_and_end_with_all_of_it_3() {
    live(1_500..2_000);
}

/// Without a rate, another number of instances is another load.
#[test]
fn in_a_closed_loop_other_instances_are_another_load() {
    for (tps, is_steady) in [(0, false), (100, true)] {
        let mut book = LeaseBook::new(LeaseConfig { length_ns: LENGTH_NS, margin_ns: MARGIN_NS });
        book.set_goal(Allowance { tps, concurrency: 4 });
        let party = book.join(1, 0);
        book.heard(party, 0, 1, 0);
        let first = book.grants(0)[0].1.number;
        assert!(book.is_steady(party, first));
        book.set_goal(Allowance { tps, concurrency: 8 });
        book.heard(party, 1, 2, first);
        let second = book.grants(1)[0].1.number;
        assert_eq!(book.is_steady(party, first), is_steady, "at {tps} a second");
        assert!(book.is_steady(party, second));
    }
}
