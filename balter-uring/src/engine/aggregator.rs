//! The aggregator: one ordinary thread that merges windows, runs the controllers and grants
//! budgets.

use std::sync::{Arc, Weak};
use std::time::Duration;

use balter_controllers::{ConcurrencyState, RateState, Timetable, Window, WindowGrid};
use crossbeam_channel::{Receiver, Sender, bounded, select, unbounded};
use futures_channel::oneshot;

use super::Request;
use super::budget::{BudgetSlot, Course, Share, share_among, shares};
use super::clock::{Clock, nanoseconds};
#[cfg(feature = "rt")]
use super::lease::Led;
use super::observed::{CALLBACK_PANICKED, Observed};
use super::outside;
use super::panic_hook;
use super::pool::{self, Prepared};
use super::processor::Readings;
use super::run::{Report, RunSpec, WINDOWS_IN_FLIGHT};
use super::shard::{Command, ShardHandle};
use super::signals::{DEAF, Listening};
use super::steering::{Ending, Steering};
use super::totals::for_controllers;
use super::watchdog::{Attention, Watch};
use super::window::ShardWindow;
use crate::config::Load;
use crate::observe::{Published, RECORDER_PANICKED, State};
use crate::statistics::RunStatistics;
use crate::{RunError, cores, userland};

/// From the word to the shards until the first transaction is due: time for all of them to take
/// the run up and start their instances.
const HEAD_START_NS: u64 = 5_000_000;

/// A change of the rate is told so long before it holds, so that all shards make it at the same
/// moment: longer than a turn takes, or a wait of the ring.
const CHANGE_AHEAD_NS: u64 = 5_000_000;

/// Windows on their way from all shards together; full, it makes windows longer.
const REPORTS: usize = 1024;

/// A shard that has not reported so long after it should have ended is taken for lost: user code
/// blocks its thread.
const PATIENCE_NS: u64 = 5_000_000_000;

/// An aggregator that was away for so long (a callback of the user's kept it, or a suspended
/// machine) has heard of nobody meanwhile, and blames nobody for it.
const ABSENT_NS: u64 = 1_000_000_000;

/// What the aggregator is told.
pub(crate) enum Control {
    Start(Box<Start>),
    ShardLost {
        core: usize,
    },
    Interrupt,
    /// A run under a lease was told what it may use.
    #[cfg(feature = "rt")]
    Told,
}

/// A run to start.
pub(crate) struct Start {
    pub(crate) request: Request,
    pub(crate) prepared: Prepared,
    pub(crate) done: oneshot::Sender<Result<RunStatistics, RunError>>,
    pub(crate) interest: Weak<()>,
}

/// The way to the aggregator.
pub(crate) struct AggregatorHandle {
    control: Sender<Control>,
}

impl AggregatorHandle {
    pub(crate) fn send(&self, control: Control) {
        // The aggregator ends with the process, not before.
        let _ = self.control.send(control);
    }
}

pub(crate) fn spawn() -> AggregatorHandle {
    let (control, receiver) = unbounded();
    let spawned = std::thread::Builder::new()
        .name("balter-aggregator".to_owned())
        .spawn(move || Aggregator::new(receiver).work());
    if let Err(error) = spawned {
        tracing::error!("the aggregator's thread could not be created: {error}");
    }
    AggregatorHandle { control }
}

struct Aggregator {
    clock: Clock,
    control: Receiver<Control>,
    reports: Receiver<Report>,
    reporter: Sender<Report>,
    runs: Vec<Run>,
    next_id: u64,
    last_turn_ns: u64,
    /// When the aggregator last came back from being kept away.
    back_ns: u64,
}

impl Aggregator {
    fn new(control: Receiver<Control>) -> Self {
        let (reporter, reports) = bounded(REPORTS);
        let clock = Clock::get();
        let last_turn_ns = clock.now();
        let runs = Vec::new();
        Self { clock, control, reports, reporter, runs, next_id: 1, last_turn_ns, back_ns: 0 }
    }

    fn work(mut self) {
        loop {
            let wait = self.next_deadline();
            select! {
                recv(self.control) -> control => match control {
                    Ok(control) => self.obey(control),
                    Err(_) => return,
                },
                recv(self.reports) -> report => if let Ok(report) = report {
                    self.merge(report);
                },
                default(wait) => {}
            }
            let now = self.clock.now();
            if now.saturating_sub(self.last_turn_ns) > ABSENT_NS {
                self.back_ns = now;
            }
            self.last_turn_ns = now;
            for run in &mut self.runs {
                run.watch(now, self.back_ns);
            }
            let mut index = 0;
            while index < self.runs.len() {
                if self.runs[index].is_over() {
                    let run = self.runs.swap_remove(index);
                    run.finish();
                } else {
                    index += 1;
                }
            }
        }
    }

    fn next_deadline(&self) -> Duration {
        match self.runs.is_empty() {
            true => Duration::from_secs(60),
            // Dropped futures are noticed and overdue windows given up at this pace.
            false => Duration::from_millis(20),
        }
    }

    fn obey(&mut self, control: Control) {
        match control {
            Control::Start(start) => self.start(*start),
            Control::ShardLost { core } => {
                // What it had sent before its end counts, and comes first.
                while let Ok(report) = self.reports.try_recv() {
                    self.merge(report);
                }
                for run in &mut self.runs {
                    run.lose(core);
                }
            }
            Control::Interrupt => {
                let now = self.clock.now();
                for run in self.runs.iter_mut().filter(|run| run.listening.is_some()) {
                    let course = run.course.max(Course::Drain);
                    run.raise(if run.interrupted { Course::Stop } else { course }, now);
                    run.interrupted = true;
                }
            }
            #[cfg(feature = "rt")]
            Control::Told => {
                let now = self.clock.now();
                self.runs.iter_mut().for_each(|run| run.take_lease(now));
            }
        }
    }

    fn start(&mut self, start: Start) {
        let id = self.next_id;
        self.next_id += 1;
        place_aggregator();
        self.runs.push(Run::start(id, start, self.clock.now(), self.reporter.clone()));
    }

    fn merge(&mut self, report: Report) {
        if let Some(run) = self.runs.iter_mut().find(|run| run.id == report.run) {
            run.merge(report);
        }
    }
}

/// Keeps the aggregator off the shards' cores, where there is another.
fn place_aggregator() {
    let taken = pool::shard_cores();
    let free = cores::allowed().into_iter().rfind(|core| !taken.contains(core));
    if let Some(id) = free {
        core_affinity::set_for_current(core_affinity::CoreId { id });
    }
}

/// One shard's part of a run, as the aggregator holds it.
struct Member {
    shard: ShardHandle,
    slot: Arc<BudgetSlot>,
    returned: Sender<Box<ShardWindow>>,
    /// Instances at the end of its last window but those of the drain, when they leave.
    instances: u32,
    watch: Watch,
    /// Whether the scenario has been accused of keeping it.
    accused: bool,
    over: bool,
}

/// One run.
struct Run {
    id: u64,
    name: &'static str,
    steering: Steering,
    #[cfg(feature = "rt")]
    led: Option<Led>,
    aggregator_delay: Duration,
    outside_tps: Option<u32>,
    attention: Attention,
    start_ns: u64,
    end_ns: u64,
    grace_ns: u64,
    members: Vec<Member>,
    /// When transactions are due, over all shards.
    timetable: Timetable,
    /// Until when the shards may use what they were granted.
    until_ns: u64,
    /// Instances that there may be at all.
    most: u32,
    /// Where the shards' windows become those of the run.
    grid: WindowGrid,
    last_tick_ns: u64,
    course: Course,
    stopped_ns: Option<u64>,
    interrupted: bool,
    listening: Option<Listening>,
    observed: Option<Observed>,
    published: Published,
    /// As the run began.
    processors: Readings,
    done: Option<oneshot::Sender<Result<RunStatistics, RunError>>>,
    interest: Weak<()>,
}

impl Run {
    fn start(id: u64, start: Start, now: u64, reports: Sender<Report>) -> Self {
        let Start { request, prepared, done, interest } = start;
        let Request { name, config, .. } = request;
        let Prepared { shards, factories } = prepared;
        let start_ns = now + HEAD_START_NS;
        let end_ns = config
            .duration
            .map_or(u64::MAX, |duration| start_ns.saturating_add(nanoseconds(duration)));
        #[cfg(feature = "rt")]
        let (start_ns, end_ns) = config
            .leased
            .as_ref()
            .map_or((start_ns, end_ns), |leased| (start_ns.max(leased.start_ns), leased.end_ns));
        let steering = Steering::new(&config, shards.iter().map(|shard| shard.core));
        let most = steering.max_concurrency();
        let timetable = Timetable::new(start_ns, steering.budget().tps);
        let concurrency = steering.budget().concurrency;
        let shares = shares(config.load, &timetable, concurrency, most, shards.len());
        let initials = share_among(u64::from(steering.initial()), &shares);
        // Under a lease nothing may be used before it is granted.
        #[cfg(feature = "rt")]
        let until_ns = if config.leased.is_some() { 0 } else { u64::MAX };
        #[cfg(not(feature = "rt"))]
        let until_ns = u64::MAX;
        let processors = Readings::now(shards.iter().map(|shard| shard.core));
        let published = Published::new(name, shards.iter().map(|shard| shard.core));
        let window_ns = nanoseconds(config.window).max(1_000_000);
        let timeout_ns = nanoseconds(config.timeout);
        // Longer than the timeout nothing stays in flight, but that it has passed is noticed late by a
        // shard that has lost its core.
        let noticed_ns = timeout_ns.saturating_add(500_000_000);
        let grace_ns = nanoseconds(config.grace).min(noticed_ns);
        let mut members = Vec::with_capacity(shards.len());
        let mut grid = WindowGrid::new(start_ns, window_ns, shards.len());
        for (part, (shard, factory)) in shards.into_iter().zip(factories).enumerate() {
            let slot = Arc::new(BudgetSlot::new(shares[part], until_ns));
            // One more than are ever out, so that giving one back never waits.
            let (returned, windows) = bounded(WINDOWS_IN_FLIGHT + 1);
            let sent = shard.send(Command::Run(RunSpec {
                run: id,
                part: part as u32,
                parts: shares.len() as u32,
                factory,
                slot: Arc::clone(&slot),
                open: config.load.is_open(),
                fixed: matches!(config.load, Load::Instances(_)),
                arrival: config.arrival,
                initial: initials[part],
                start_ns,
                end_ns,
                window_ns,
                timeout_ns,
                grace_ns,
                reports: reports.clone(),
                returned: windows,
            }));
            members.push(Member {
                shard,
                slot,
                returned,
                instances: 0,
                watch: Watch::default(),
                accused: false,
                over: !sent,
            });
            if !sent {
                grid.lose(part);
            }
        }
        let listening = config.interruptible.then(Listening::new);
        #[cfg_attr(not(feature = "rt"), expect(unused_mut))]
        let mut run = Self {
            id,
            name,
            steering,
            #[cfg(feature = "rt")]
            led: config
                .leased
                .map(|leased| Led::new(leased.lease, config.load, start_ns, shares.len())),
            aggregator_delay: config.aggregator_delay,
            outside_tps: config.outside_tps,
            attention: Attention::new(now),
            start_ns,
            end_ns,
            grace_ns,
            members,
            timetable,
            until_ns,
            most,
            grid,
            last_tick_ns: start_ns,
            course: Course::Run,
            stopped_ns: None,
            interrupted: false,
            listening,
            observed: config.progress.map(Observed::new),
            published,
            processors,
            done: Some(done),
            interest,
        };
        run.grant_outside(&shares);
        #[cfg(feature = "rt")]
        run.take_lease(now);
        run
    }

    /// Says how often each shard may send a request outside of transactions.
    fn grant_outside(&self, shares: &[Share]) {
        let is_open = self.steering.load.is_open();
        let rate = outside::rate(self.outside_tps, is_open, self.steering.budget());
        for (share, interval_ns) in self.members.iter().zip(outside::intervals_ns(rate, shares)) {
            share.slot.grant_outside(interval_ns);
        }
    }

    /// Takes over what it was told, where somebody else leads this run.
    #[cfg(feature = "rt")]
    fn take_lease(&mut self, now: u64) {
        let Some(led) = &self.led else { return };
        let told = led.lease.told();
        self.steering.follow(told.budget);
        (self.most, self.until_ns) = (told.most, told.until_ns);
        self.grant(now);
        if told.course > self.course {
            self.raise(told.course, now);
        }
    }

    fn merge(&mut self, report: Report) {
        if self.members[report.part as usize].over {
            // Of a shard that was given up and has come back: its part is closed.
            return;
        }
        if !self.aggregator_delay.is_zero() {
            std::thread::sleep(self.aggregator_delay);
        }
        let part = report.part as usize;
        let mut window = report.window;
        let interval = self.observed.as_mut().map(|observed| &mut observed.response);
        self.steering.add(part, &window, interval);
        self.published.window(part, &window);
        #[cfg(feature = "rt")]
        if let Some(led) = &mut self.led {
            led.merge(part, &window);
        }
        self.grid.push(part, &for_controllers(&window));
        let share = &mut self.members[part];
        if window.start_ns < self.end_ns && window.instances > 0 {
            share.instances = window.instances;
        }
        if window.last {
            share.over = true;
            self.grid.end(part);
            // Its instances have given up before the end, and so will those of the others.
            if window.end_ns < self.end_ns && self.course == Course::Run {
                self.raise(Course::Drain, window.end_ns);
            }
        } else {
            window.reset();
            let _ = share.returned.try_send(window);
        }
        self.advance();
    }

    /// Goes on with the next window of the run, once the shards have told of it.
    fn advance(&mut self) {
        if let Some(window) = self.grid.advance() {
            self.tick(&window);
        }
    }

    /// All shards that are waited for have told of a window: decide, grant, show.
    fn tick(&mut self, window: &Window) {
        #[cfg(feature = "rt")]
        if let Some(led) = &mut self.led {
            led.report(self.members.iter().all(|share| share.over));
        }
        let end_ns = window.start_ns + window.length_ns;
        self.last_tick_ns = self.last_tick_ns.max(end_ns);
        self.steering.note(window);
        if let Some(observed) = &mut self.observed {
            observed.add(window);
            observed.show(
                self.name,
                self.steering.budget().tps,
                end_ns.saturating_sub(self.start_ns),
                self.steering.totals.counts(),
            );
        }
        if self.steering.is_done() && self.course == Course::Run {
            self.raise(Course::Drain, end_ns);
        }
        if self.course > Course::Run || window.start_ns >= self.end_ns {
            self.publish(window, ConcurrencyState::Stable);
            return;
        }
        #[cfg(feature = "rt")]
        if self.led.is_some() {
            self.publish(window, ConcurrencyState::Stable);
            return;
        }
        let state = self.steering.decide(window);
        self.publish(window, state);
        self.grant(Clock::get().now());
    }

    /// Grants all shards their shares.
    fn grant(&mut self, now: u64) {
        let budget = self.steering.budget();
        if budget.tps != self.timetable.tps() {
            self.timetable.change(now.saturating_add(CHANGE_AHEAD_NS), budget.tps);
        }
        let Self { timetable, most, .. } = self;
        let load = self.steering.load;
        let shares = shares(load, timetable, budget.concurrency, *most, self.members.len());
        self.grant_outside(&shares);
        for (member, share) in self.members.iter().zip(shares) {
            member.slot.grant(share, self.until_ns);
        }
    }

    fn publish(&mut self, window: &Window, state: ConcurrencyState) {
        let (found, kinds) = self.steering.search().unzip();
        let (latency, errors) = kinds.unwrap_or((false, false));
        let goal_tps = self.steering.budget().tps;
        self.published.tick(&State {
            concurrency: window.instances,
            goal_tps,
            latency_goal_tps: latency.then_some(goal_tps),
            error_goal_tps: errors.then_some(goal_tps),
            concurrency_state: match state {
                ConcurrencyState::Stable => 0,
                ConcurrencyState::Working => 1,
                ConcurrencyState::Limited => -1,
            },
            error_state: match found.filter(|_| errors) {
                None | Some(RateState::Holding) => 0,
                Some(RateState::Narrowing | RateState::Refining) => 1,
                Some(_) => 2,
            },
            backlog: window.backlog,
            in_flight: window.in_flight,
        });
    }

    /// What has to be noticed without a window.
    fn watch(&mut self, now: u64, back_ns: u64) {
        if self.interest.strong_count() == 0 && self.course < Course::Stop {
            // Nobody waits for the statistics any more.
            self.raise(Course::Stop, now);
        }
        self.watch_polls(now);
        let should_have_ended = self.stopped_ns.unwrap_or(self.end_ns).max(self.start_ns);
        // Once stopped, nothing in flight is waited for.
        let grace_ns = if self.course == Course::Stop { 0 } else { self.grace_ns };
        let deadline = should_have_ended.saturating_add(grace_ns).max(back_ns);
        let deadline = deadline.saturating_add(PATIENCE_NS);
        if now > deadline {
            for part in 0..self.members.len() {
                if !self.members[part].over {
                    let core = self.members[part].shard.core;
                    self.steering.totals.note(format!(
                        "the shard on core {core} was not heard of for {} s after it should have \
                         ended: code of the scenario blocks its thread, or never yields",
                        PATIENCE_NS / 1_000_000_000
                    ));
                }
                self.lose_part(part);
            }
        }
    }

    /// Names code that keeps a shard, once. Should it return, the shard goes on.
    fn watch_polls(&mut self, now: u64) {
        self.attention.look(now);
        for share in self.members.iter_mut().filter(|share| !share.over) {
            let Some(holder) = share.watch.look(&share.shard.pulse, &self.attention) else {
                continue;
            };
            if std::mem::replace(&mut share.accused, true) {
                continue;
            }
            let (name, core) = (self.name, share.shard.core);
            if holder != self.id {
                // Whose it is, that run says, or has said before it ended.
                self.steering.totals.note(format!(
                    "core {core} was held up by the code of another scenario, which had not \
                     returned from a poll for 2 s"
                ));
                continue;
            }
            let accusation = format!(
                "scenario `{name}` on core {core} has not returned from a poll for 2 s; is an \
                 `.await` missing, or does it block?"
            );
            tracing::error!("{accusation}");
            // Most programs install no subscriber, and this may be all that they ever say.
            eprintln!("{accusation}");
            self.steering.totals.note(accusation);
        }
    }

    fn raise(&mut self, course: Course, at_ns: u64) {
        self.course = self.course.max(course);
        // A run that was to end anyway was not stopped.
        if at_ns < self.end_ns {
            self.stopped_ns.get_or_insert(at_ns);
        }
        for share in &self.members {
            share.slot.raise(course);
        }
    }

    fn lose(&mut self, core: usize) {
        for part in 0..self.members.len() {
            if self.members[part].shard.core == core {
                if !self.members[part].over {
                    self.steering.totals.note(format!(
                        "the shard on core {core} has ended: standard error has its thread's message"
                    ));
                }
                self.lose_part(part);
            }
        }
    }

    fn lose_part(&mut self, part: usize) {
        let share = &mut self.members[part];
        if share.over {
            return;
        }
        share.over = true;
        // Should it come back to life, it must not go on.
        share.slot.raise(Course::Stop);
        if share.watch.holds(&share.shard.pulse) {
            let core = share.shard.core;
            self.steering.totals.note(format!(
                "the shard on core {core} was given up: it was still kept by the scenario's code"
            ));
        }
        self.steering.totals.lose(part);
        self.grid.lose(part);
        #[cfg(feature = "rt")]
        if let Some(led) = &mut self.led {
            led.lose(part);
        }
        // It may have been what the others waited for.
        self.advance();
    }

    fn is_over(&self) -> bool {
        self.members.iter().all(|share| share.over)
    }

    fn finish(mut self) {
        panic_hook::forget(self.id);
        #[cfg(feature = "rt")]
        if let Some(led) = self.led.as_mut().filter(|led| !led.has_ended) {
            led.report(true);
        }
        self.published.end();
        self.note_troubles();
        let end_ns = self.stopped_ns.unwrap_or(self.end_ns).min(self.end_ns).max(self.start_ns);
        // A run without an end whose shards are all lost ended with its last window.
        let end_ns = if end_ns == u64::MAX { self.last_tick_ns } else { end_ns };
        let processors = Readings::now(self.members.iter().map(|share| share.shard.core));
        let mut statistics = self.steering.statistics(Ending {
            name: self.name,
            are_nodes: false,
            elapsed_ns: end_ns - self.start_ns,
            instances: self.members.iter().map(|share| share.instances).sum(),
            stopped: self.stopped_ns.is_some(),
            stolen: processors.stolen_since(&self.processors),
            throttled: processors.throttled_since(&self.processors),
            shards_lost: 0,
        });
        if !statistics.counts.add_up() {
            // Said rather than asserted: this thread leads all runs.
            tracing::error!(scenario = self.name, counts = ?statistics.counts, "counts do not add up");
            statistics.notes.push("the counts do not add up: a fault of this crate".to_owned());
        }
        if statistics.tps_limited {
            tracing::warn!(
                scenario = self.name,
                cause = statistics.verdict.as_ref().map(tracing::field::display),
                "Unable to achieve TPS on current server."
            );
        }
        if let Some(done) = self.done.take() {
            // It wakes whoever waits, by code of an executor that may be the user's.
            userland::call(|| drop(done.send(Ok(statistics))));
        }
    }

    /// What was logged of this run is told in its statistics too: most programs install no
    /// subscriber.
    fn note_troubles(&mut self) {
        let totals = &mut self.steering.totals;
        if self.observed.as_ref().is_some_and(|observed| observed.failing) {
            totals.note(CALLBACK_PANICKED);
        }
        if self.published.has_failed() {
            totals.note(RECORDER_PANICKED);
        }
        if self.listening.as_ref().is_some_and(Listening::is_deaf) {
            totals.note(DEAF);
        }
    }
}
