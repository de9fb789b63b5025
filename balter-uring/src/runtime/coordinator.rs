//! A run that this node leads: what the aggregator is to the shards of a process, this is to the
//! nodes of a cluster. It merges their windows, decides by the same [`Steering`], and leases out
//! their shares.

pub(crate) mod cost;
mod ending;
mod link;
mod member;
mod shown;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use balter_controllers::{Allowance, LeaseBook, LeaseConfig, Window};
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::{MissedTickBehavior, interval};

use super::node::Node;
use super::peers::{Peer, PeerState};
use super::request::RunRequest;
use super::runs::RunEntry;
use super::view::{RunState, RunView, unix_seconds};
use super::wire::{Grant, Names, PROTOCOL, Prepare, Report, Summary};
use crate::RunStatistics;
use crate::config::Load;
use crate::engine::budget::Course;
use crate::engine::clock::{Clock, nanoseconds};
use crate::engine::steering::Steering;
use crate::engine::totals::for_controllers;
use crate::engine::window::ShardWindow;
use crate::scenario::Scenario;
use link::{Event, Links};
use member::Member;
use shown::Shown;

/// A worker may use what it was granted for so long after the report that was answered. A node that
/// is lost keeps its share from the others for this time; a machine that is this busy loses its own.
pub(super) const LEASE_NS: u64 = 2_000_000_000;

/// For clocks that differ in speed by up to two per cent.
const MARGIN_NS: u64 = LEASE_NS / 50;

/// From when all nodes are ready until the first transaction is due.
const HEAD_START_NS: u64 = 300_000_000;

/// Nodes that are not ready by then join later.
const PREPARATION: Duration = Duration::from_secs(5);

/// A part that ends so long before the run does ended by itself. Clocks are told apart by less.
const EARLY_NS: u64 = 500_000_000;

/// One run, led.
pub(crate) struct Lead {
    node: Node,
    id: String,
    name: &'static str,
    request: RunRequest,
    steering: Steering,
    book: LeaseBook,
    members: Vec<Member>,
    /// As the totals have them: one for each process that took part, so that a node that was started
    /// again has two.
    parts: Vec<Part>,
    /// Nodes that take no part, and why.
    refused: BTreeMap<String, String>,
    names: Names,
    /// Where windows are unpacked.
    scratch: ShardWindow,
    clock: Clock,
    window_ns: u64,
    duration_ns: u64,
    grace_ns: u64,
    /// 0 until it is settled.
    start_ns: u64,
    end_ns: u64,
    stopped_ns: Option<u64>,
    /// Whoever is not ready by then is not waited for.
    prepared_by_ns: u64,
    course: Course,
    is_ended: bool,
    last_decision_ns: u64,
    shown: Shown,
    view: watch::Sender<Arc<RunView>>,
    statistics: Arc<Mutex<Option<Arc<RunStatistics>>>>,
}

/// A process's part of the run, beside its counts.
struct Part {
    /// Of its node.
    name: String,
    shards: u32,
    summary: Option<Summary>,
}

/// Begins to lead a run. The request and the scenario have been checked.
pub(crate) fn begin(node: &Node, request: RunRequest, scenario: Scenario) -> String {
    let (lead, entry) = Lead::new(node, request, scenario);
    let (id, stop) = (lead.id.clone(), Arc::clone(&entry.stop));
    node.runs.insert(id.clone(), entry);
    tokio::spawn(lead.run(stop));
    id
}

/// Few nodes tell as often as shards do; many more seldom, so that leading them stays cheap.
fn window_ns(nodes: usize) -> u64 {
    (nodes as u64).saturating_mul(1_000_000).clamp(100_000_000, 1_000_000_000)
}

/// What nobody can guess.
pub(super) fn random() -> u64 {
    use ring::rand::{SecureRandom, SystemRandom};
    let mut bytes = [0; 8];
    SystemRandom::new().fill(&mut bytes).expect("the system has random numbers");
    u64::from_ne_bytes(bytes)
}

impl Lead {
    fn new(node: &Node, request: RunRequest, mut scenario: Scenario) -> (Self, RunEntry) {
        let id = format!("{:016x}", random());
        let view = RunView {
            id: id.clone(),
            coordinator: node.name.to_string(),
            request: request.clone(),
            ..RunView::default()
        };
        let (view, watched) = watch::channel(Arc::new(view));
        let (statistics, stop) = (Arc::default(), Arc::new(Notify::new()));
        let limits = &node.config.limits;
        let name = scenario.name();
        let config = scenario.settle(limits.max_tps);
        let duration = config.duration.unwrap_or(limits.max_duration).min(limits.max_duration);
        let entry = RunEntry { view: watched, statistics: Arc::clone(&statistics), stop };
        let lead = Self {
            node: node.clone(),
            id,
            name,
            request,
            steering: Steering::new(config, std::iter::empty()),
            book: LeaseBook::new(LeaseConfig { length_ns: LEASE_NS, margin_ns: MARGIN_NS }),
            members: Vec::new(),
            parts: Vec::new(),
            refused: BTreeMap::new(),
            names: Names::default(),
            scratch: ShardWindow::new(config.load.is_open()),
            clock: Clock::get(),
            window_ns: window_ns(node.peers.borrow().len()),
            duration_ns: nanoseconds(duration),
            grace_ns: nanoseconds(config.grace.min(config.timeout)),
            start_ns: 0,
            end_ns: 0,
            stopped_ns: None,
            prepared_by_ns: Clock::get().now().saturating_add(nanoseconds(PREPARATION)),
            course: Course::Run,
            is_ended: false,
            last_decision_ns: 0,
            shown: Shown::default(),
            view,
            statistics,
        };
        (lead, entry)
    }

    async fn run(mut self, stop: Arc<Notify>) {
        let (events, mut received) = mpsc::channel(1024);
        let mut links = Links::new(self.node.clone(), events);
        let mut peers = self.node.peers.clone();
        self.invite(&peers.borrow_and_update().clone(), &mut links);
        let mut tick = interval(Duration::from_nanos((self.window_ns / 2).min(250_000_000)));
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut leaving = self.node.leaving.clone();
        loop {
            tokio::select! {
                event = received.recv() => {
                    let Some(event) = event else { break };
                    self.hear(event);
                }
                _ = tick.tick() => self.tick(),
                () = stop.notified() => self.stop(),
                Ok(()) = leaving.changed() => self.stop(),
                Ok(()) = peers.changed() => {
                    self.invite(&peers.borrow_and_update().clone(), &mut links);
                }
            }
            if self.is_ended {
                break;
            }
        }
        self.finish();
    }

    /// What is done several times a second, however much is heard.
    fn tick(&mut self) {
        let now = self.clock.now();
        if self.start_ns == 0 && !self.settle_start(now) {
            self.is_ended = true;
            return;
        }
        self.decide(now);
        self.grant(now);
        self.show(now);
        self.is_ended = self.is_over(now);
    }

    /// Asks peers that can take part and have not been asked yet.
    fn invite(&mut self, peers: &[Peer], links: &mut Links) {
        for peer in peers {
            let known = self.members.iter_mut().find(|member| member.name == peer.name);
            if let Some(member) = known {
                member.is_known_dead = peer.state != PeerState::Alive;
                continue;
            }
            match peer.state {
                PeerState::Alive
                    if peer.scenarios.iter().any(|name| name == &self.request.name) => {}
                PeerState::Alive => {
                    let reason = format!("it has no scenario `{}`", self.request.name);
                    self.refused.insert(peer.name.clone(), reason);
                    continue;
                }
                PeerState::Refused => {
                    let reason = peer.reason.clone().unwrap_or_default();
                    self.refused.insert(peer.name.clone(), reason);
                    continue;
                }
                PeerState::Dead | PeerState::Left => continue,
            }
            self.refused.remove(&peer.name);
            let part = self.members.len() as u32;
            let prepare = Prepare {
                run: self.id.clone(),
                protocol: PROTOCOL,
                version: self.node.version.to_string(),
                request: serde_json::to_string(&self.request).unwrap_or_default(),
                coordinator: self.node.name.to_string(),
                window_ns: self.window_ns,
                lease_ns: LEASE_NS,
                part,
            };
            self.members.push(Member::new(&peer.name, peer.address));
            links.open(part as usize, peer.address, prepare);
        }
    }

    fn hear(&mut self, event: Event) {
        match event {
            Event::Connected(index, commands) => self.members[index].commands = Some(commands),
            Event::Broken(index, reason) => {
                let member = &mut self.members[index];
                member.commands = None;
                member.trouble = Some(reason);
                if let Some(party) = member.party {
                    self.book.silent(party);
                }
            }
            Event::Report(index, report) => self.report(index, report),
        }
    }

    fn report(&mut self, index: usize, mut report: Report) {
        let now = self.clock.now();
        let member = &mut self.members[index];
        // A program that did not fit may have been replaced by one that does.
        member.is_refused = !report.refused.is_empty();
        match member.is_refused {
            true => {
                self.refused.insert(member.name.clone(), std::mem::take(&mut report.refused));
            }
            false => drop(self.refused.remove(&member.name)),
        }
        if report.stop {
            self.stop();
        }
        let member = &mut self.members[index];
        if !report.ready || member.is_refused {
            return;
        }
        if member.boot.is_some_and(|boot| boot != report.boot) {
            // Another process at the same place: what the one before did not tell is lost.
            if let (Some(party), Some(part), false) = (member.party, member.part, member.is_over) {
                self.book.silent(party);
                self.steering.totals.lose(part);
            }
            member.start_over();
        }
        member.boot = Some(report.boot);
        let weight = u64::from(report.shards.max(1));
        let party = *member.party.get_or_insert_with(|| self.book.join(weight, now));
        let part = *member.part.get_or_insert_with(|| {
            self.parts.push(Part {
                name: member.name.clone(),
                shards: report.shards,
                summary: None,
            });
            self.steering.totals.join()
        });
        member.trouble = None;
        if !report.leaving {
            self.book.heard(party, now, report.stamp_ns, report.holds);
        } else {
            self.book.silent(party);
        }
        member.is_leaving |= report.leaving;
        member.stamped = (report.stamp_ns, now);
        let mut ends_early = false;
        for delivery in report.windows {
            if !member.ledger.take(delivery.number) {
                continue;
            }
            let Some(window) = delivery.window else { continue };
            self.scratch.reset();
            if let Err(malformed) = window.fill(&mut self.names, &mut self.scratch) {
                tracing::warn!(node = member.name, "{malformed} was refused");
                let note = format!("{}: {malformed} was refused", member.name);
                self.steering.totals.note(note);
                continue;
            }
            self.steering.add(part, &self.scratch, None);
            if self.scratch.instances > 0 {
                member.instances = self.scratch.instances;
            }
            member.window.append(&for_controllers(&self.scratch));
            member.has_reported = true;
            member.is_steady &= self.book.is_steady(party, delivery.grant);
            if self.scratch.last {
                self.steering.totals.close(part);
                self.book.retire(party);
                member.is_over = true;
                // Its instances have given up before the end, and so will those of the others.
                let is_early = now.saturating_add(EARLY_NS) < self.end_ns;
                ends_early |= is_early && self.course == Course::Run && !member.is_leaving;
            }
        }
        if let Some(summary) = report.summary {
            for note in summary.notes() {
                self.steering.totals.note(format!("{}: {note}", member.name));
            }
            self.parts[part].summary = Some(summary);
            member.has_summed_up = true;
            if !member.is_over {
                // It never began.
                member.is_over = true;
                self.book.retire(party);
            }
        }
        if ends_early {
            self.stop();
        }
    }

    /// Has what is in flight end, and nothing start any more.
    fn stop(&mut self) {
        self.course = self.course.max(Course::Drain);
        self.stopped_ns.get_or_insert(self.clock.now());
    }

    /// Settles when the run starts, once its nodes are ready. `false` if there will be no run.
    fn settle_start(&mut self, now: u64) -> bool {
        if self.course > Course::Run {
            return false;
        }
        let late = now >= self.prepared_by_ns;
        let waits = self.members.iter().any(|member| !member.is_refused && member.party.is_none());
        let is_ready = self.members.iter().any(|member| member.party.is_some());
        if is_ready && (late || !waits) {
            self.start_ns = now + HEAD_START_NS;
            self.end_ns = self.start_ns.saturating_add(self.duration_ns);
            self.last_decision_ns = self.start_ns;
            self.set_goal();
            let started_at = unix_seconds(SystemTime::now()) + HEAD_START_NS as f64 / 1e9;
            self.view.send_modify(|view| {
                let view = Arc::make_mut(view);
                (view.state, view.started_at) = (RunState::Running, started_at);
            });
        }
        is_ready || (waits && !late)
    }

    fn set_goal(&mut self) {
        let budget = self.steering.budget();
        let most_tps = self.node.config.limits.max_tps;
        self.book.set_goal(Allowance {
            tps: budget.tps.min(most_tps),
            concurrency: budget.concurrency.min(self.steering.max_concurrency()),
        });
    }

    /// All that take part have told of the last window: what they may use next.
    fn decide(&mut self, now: u64) {
        if self.start_ns == 0 || now < self.start_ns {
            return;
        }
        let book = &self.book;
        let active = |member: &&mut Member| {
            !member.is_over && member.party.is_some_and(|party| book.is_present(party))
        };
        let (mut all, mut any) = (true, false);
        for member in self.members.iter_mut().filter(active) {
            all &= member.has_reported;
            any |= member.has_reported;
        }
        let overdue = now.saturating_sub(self.last_decision_ns) > 3 * self.window_ns;
        if !any || !(all || overdue) {
            return;
        }
        self.last_decision_ns = now;
        let (mut whole, mut is_steady) = (Window::default(), all);
        for member in self.members.iter_mut().filter(active) {
            whole.merge(&std::mem::take(&mut member.window));
            is_steady &= std::mem::replace(&mut member.is_steady, true);
            member.has_reported = false;
        }
        self.steering.note(&whole);
        self.shown.window(now, &whole);
        if self.steering.is_done() && self.course == Course::Run {
            self.stop();
        }
        if self.course > Course::Run || now >= self.end_ns {
            return;
        }
        // What was done at another rate, or by a part of the nodes, says nothing of this one.
        match is_steady {
            true => drop(self.steering.decide(&whole)),
            false => self.steering.pass_over(),
        }
        self.set_goal();
    }

    /// Instances that there may be at all where so much of the goal is used: in proportion, so that
    /// they add up to no more than what the run may have.
    fn most_instances(steering: &Steering, allowance: &Allowance) -> u32 {
        let (budget, most) = (steering.budget(), u64::from(steering.max_concurrency()));
        let (part, whole) = match steering.load {
            Load::Rate(_) => (allowance.tps, budget.tps),
            Load::Instances(_) => return allowance.concurrency,
            _ => (allowance.concurrency, budget.concurrency),
        };
        (most * u64::from(part.min(whole)) / u64::from(whole.max(1))) as u32
    }

    fn grant(&mut self, now: u64) {
        for (party, grant) in self.book.grants(now) {
            let member = self.members.iter_mut().find(|member| member.party == Some(party));
            let Some(member) = member else { continue };
            member.tell(Grant {
                number: grant.number,
                stamp_ns: grant.stamp_ns,
                heard_ns: member.stamped.1,
                sent_ns: self.clock.now(),
                tps: grant.allowance.tps,
                concurrency: grant.allowance.concurrency,
                most: Self::most_instances(&self.steering, &grant.allowance),
                confirmed: member.ledger.last(),
                start_ns: self.start_ns,
                end_ns: self.end_ns,
                course: self.course as u32,
            });
        }
        // Those that are done still wait for the receipt of their last windows.
        for member in self.members.iter_mut().filter(|member| member.is_over || member.is_leaving) {
            let (stamp_ns, heard_ns) = member.stamped;
            let (confirmed, sent_ns) = (member.ledger.last(), self.clock.now());
            let course = Course::Drain as u32;
            if !member.has_summed_up {
                let receipt =
                    Grant { stamp_ns, heard_ns, sent_ns, confirmed, course, ..Grant::default() };
                member.tell(receipt);
            }
        }
    }
}
