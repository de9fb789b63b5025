//! The aggregator: one ordinary thread that merges windows, runs the controllers and grants
//! budgets.

use std::sync::{Arc, Weak};
use std::time::Duration;

use balter_controllers::{
    ConcurrencyConfig, ConcurrencyController, ConcurrencyGoal, ConcurrencyState, RateState, Window,
};
use crossbeam_channel::{Receiver, Sender, bounded, select, unbounded};
use futures_channel::oneshot;

use super::Request;
use super::budget::{BudgetSlot, Course, budgets, share_among};
use super::clock::Clock;
use super::observed::Observed;
use super::pool::{self, Prepared};
use super::processor::Readings;
use super::run::{Report, RunSpec, WINDOWS_IN_FLIGHT};
use super::search::Search;
use super::shard::{Command, ShardHandle};
use super::signals::Listening;
use super::totals::{Summary, Totals, for_controllers};
use super::window::ShardWindow;
use crate::config::{Load, RunConfig};
use crate::observe::{Published, State};
use crate::statistics::RunStatistics;
use crate::{RunError, cores};

/// From the word to the shards until the first transaction is due: time for all of them to take
/// the run up and start their instances.
const HEAD_START_NS: u64 = 5_000_000;

/// Windows on their way from all shards together; full, it makes windows longer.
const REPORTS: usize = 1024;

/// A shard that has not reported so long after it should have ended is taken for lost: user code
/// blocks its thread.
const PATIENCE_NS: u64 = 5_000_000_000;

/// An aggregator that was away for so long (a callback of the user's kept it, or a suspended
/// machine) has heard of nobody meanwhile, and blames nobody for it.
const ABSENT_NS: u64 = 1_000_000_000;

/// Response time for which instances may be started before the first window has come, as a share
/// of a second: at this rate times 10 ms.
const ASSUMED_PER_SECOND: u32 = 100;

/// What the aggregator is told.
pub(crate) enum Control {
    Start(Box<Start>),
    ShardLost { core: usize },
    Interrupt,
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
struct Share {
    shard: ShardHandle,
    slot: Arc<BudgetSlot>,
    returned: Sender<Box<ShardWindow>>,
    /// Instances at the end of its last window but those of the drain, when they leave.
    instances: u32,
    /// Has reported for the current tick.
    reported: bool,
    over: bool,
}

/// One run.
struct Run {
    id: u64,
    name: &'static str,
    load: Load,
    /// The rate that is asked for now.
    goal_tps: u32,
    /// The rate that the user asked for; `None` without one, or with limits alone.
    asked_tps: Option<u32>,
    search: Option<Search>,
    /// More instances were granted with the last window.
    starting: bool,
    max_concurrency: u32,
    aggregator_delay: Duration,
    start_ns: u64,
    end_ns: u64,
    window_ns: u64,
    grace_ns: u64,
    shares: Vec<Share>,
    concurrency: ConcurrencyController,
    totals: Totals,
    /// The windows of the current tick, merged.
    tick: Window,
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
        let most_tps = if let Load::Rate(tps) = config.load { tps } else { 0 };
        let search =
            (!config.limits.is_empty() && most_tps > 0).then(|| Search::new(&config, most_tps));
        let goal_tps = search.as_ref().map_or(most_tps, |search| search.decision().tps);
        let initial = config.initial.min(config.max_concurrency);
        let concurrency =
            ConcurrencyController::new(concurrency_config(&config, goal_tps, initial));
        let working = shards.len().min(config.max_concurrency as usize);
        let needed = search.as_ref().map_or(0, |search| search.instances(&Window::default()));
        let limit = concurrency.limit().max(needed.min(config.max_concurrency));
        let budgets = budgets(config.load, goal_tps, limit, shards.len(), working);
        let initials = match config.load {
            Load::Rate(_) => share_among(u64::from(initial), &budgets),
            _ => budgets.iter().map(|budget| budget.concurrency).collect(),
        };
        let parts = shards.len() as u32;
        let totals = Totals::new(shards.iter().map(|shard| shard.core));
        let processors = Readings::now(shards.iter().map(|shard| shard.core));
        let published = Published::new(name, shards.iter().map(|shard| shard.core));
        let window_ns = nanoseconds(config.window).max(1_000_000);
        let timeout_ns = nanoseconds(config.timeout);
        // Longer than the timeout nothing stays in flight, but that it has passed is noticed late:
        // at the next sweep, by a shard that may have lost its core.
        let noticed_ns = timeout_ns.saturating_add(timeout_ns / 32).saturating_add(500_000_000);
        let grace_ns = nanoseconds(config.grace).min(noticed_ns);
        let mut shares = Vec::with_capacity(shards.len());
        for (part, (shard, factory)) in shards.into_iter().zip(factories).enumerate() {
            let slot = Arc::new(BudgetSlot::new(budgets[part]));
            // One more than are ever out, so that giving one back never waits.
            let (returned, windows) = bounded(WINDOWS_IN_FLIGHT + 1);
            let sent = shard.send(Command::Run(RunSpec {
                run: id,
                part: part as u32,
                parts,
                factory,
                slot: Arc::clone(&slot),
                open: matches!(config.load, Load::Rate(_)),
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
            shares.push(Share {
                shard,
                slot,
                returned,
                instances: 0,
                reported: false,
                over: !sent,
            });
        }
        let listening = config.interruptible.then(Listening::new);
        Self {
            id,
            name,
            load: config.load,
            goal_tps,
            asked_tps: Some(most_tps).filter(|&tps| tps > 0 && tps < u32::MAX),
            search,
            starting: true,
            max_concurrency: config.max_concurrency,
            aggregator_delay: config.aggregator_delay,
            start_ns,
            end_ns,
            window_ns,
            grace_ns,
            shares,
            concurrency,
            totals,
            tick: Window::default(),
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
        }
    }

    fn merge(&mut self, report: Report) {
        if self.shares[report.part as usize].over {
            // Of a shard that was given up and has come back: its part is closed.
            return;
        }
        if !self.aggregator_delay.is_zero() {
            std::thread::sleep(self.aggregator_delay);
        }
        let part = report.part as usize;
        let mut window = report.window;
        let interval = self.observed.as_mut().map(|observed| &mut observed.response);
        self.totals.add(part, &window, interval);
        self.published.window(part, &window);
        if let Some(search) = &mut self.search {
            search.window(&window);
        }
        self.tick.merge(&for_controllers(&window));
        let share = &mut self.shares[part];
        share.reported = true;
        if window.start_ns < self.end_ns && window.instances > 0 {
            share.instances = window.instances;
        }
        if window.last {
            share.over = true;
            // Its instances have given up before the end, and so will those of the others.
            if window.end_ns < self.end_ns && self.course == Course::Run {
                self.raise(Course::Drain, window.end_ns);
            }
        } else {
            window.reset();
            let _ = share.returned.try_send(window);
        }
        if self.shares.iter().all(|share| share.reported || share.over) {
            self.tick();
        }
    }

    /// All shards have told of the last window: decide, grant, show.
    fn tick(&mut self) {
        let window = std::mem::take(&mut self.tick);
        for share in &mut self.shares {
            share.reported = false;
        }
        let end_ns = window.start_ns + window.length_ns;
        self.last_tick_ns = self.last_tick_ns.max(end_ns);
        self.totals.note_instances(window.instances);
        if let Some(observed) = &mut self.observed {
            observed.add(&window);
            observed.show(self.name, self.goal_tps, end_ns.saturating_sub(self.start_ns));
        }
        if self.search.as_ref().is_some_and(Search::is_done) && self.course == Course::Run {
            self.raise(Course::Drain, end_ns);
        }
        if self.course > Course::Run || window.start_ns >= self.end_ns {
            self.publish(&window, ConcurrencyState::Stable);
            return;
        }
        if let Some(search) = &mut self.search {
            self.goal_tps = search.tick(&window, self.starting).tps;
            self.concurrency.set_tps(self.goal_tps);
        }
        let decision = self.concurrency.update(&window);
        self.publish(&window, decision.state);
        self.starting = decision.state == ConcurrencyState::Working;
        let needed = self.search.as_ref().map_or(0, |search| search.instances(&window));
        let limit = decision.limit.max(needed.min(self.max_concurrency));
        let shards = self.shares.len();
        let working = shards.min(self.max_concurrency as usize);
        let budgets = budgets(self.load, self.goal_tps, limit, shards, working);
        for (share, budget) in self.shares.iter().zip(budgets) {
            share.slot.grant(budget);
        }
    }

    fn publish(&mut self, window: &Window, state: ConcurrencyState) {
        let (latency, errors) = self.search.as_ref().map_or((false, false), Search::kinds);
        let found = self.search.as_ref().map(|search| search.decision().state);
        self.published.tick(&State {
            concurrency: window.instances,
            goal_tps: self.goal_tps,
            latency_goal_tps: latency.then_some(self.goal_tps),
            error_goal_tps: errors.then_some(self.goal_tps),
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
        // A shard that lags must not keep the others from being led.
        let overdue = now.saturating_sub(self.last_tick_ns) > 3 * self.window_ns;
        if overdue && self.shares.iter().any(|share| share.reported) {
            self.tick();
            self.last_tick_ns = now;
        }
        let should_have_ended = self.stopped_ns.unwrap_or(self.end_ns).max(self.start_ns);
        // Once stopped, nothing in flight is waited for.
        let grace_ns = if self.course == Course::Stop { 0 } else { self.grace_ns };
        let deadline = should_have_ended.saturating_add(grace_ns).max(back_ns);
        let deadline = deadline.saturating_add(PATIENCE_NS);
        if now > deadline {
            for part in 0..self.shares.len() {
                self.lose_part(part);
            }
        }
    }

    fn raise(&mut self, course: Course, at_ns: u64) {
        self.course = self.course.max(course);
        // A run that was to end anyway was not stopped.
        if at_ns < self.end_ns {
            self.stopped_ns.get_or_insert(at_ns);
        }
        for share in &self.shares {
            share.slot.raise(course);
        }
    }

    fn lose(&mut self, core: usize) {
        for part in 0..self.shares.len() {
            if self.shares[part].shard.core == core {
                self.lose_part(part);
            }
        }
    }

    fn lose_part(&mut self, part: usize) {
        let share = &mut self.shares[part];
        if share.over {
            return;
        }
        share.over = true;
        // Should it come back to life, it must not go on.
        share.slot.raise(Course::Stop);
        self.totals.lose(part);
    }

    fn is_over(&self) -> bool {
        self.shares.iter().all(|share| share.over)
    }

    fn finish(mut self) {
        if self.shares.iter().any(|share| share.reported) {
            self.tick();
        }
        self.published.end();
        let end_ns = self.stopped_ns.unwrap_or(self.end_ns).min(self.end_ns).max(self.start_ns);
        // A run without an end whose shards are all lost ended with its last window.
        let end_ns = if end_ns == u64::MAX { self.last_tick_ns } else { end_ns };
        let processors = Readings::now(self.shares.iter().map(|share| share.shard.core));
        let statistics = self.totals.statistics(Summary {
            stolen: processors.stolen_since(&self.processors),
            throttled: processors.throttled_since(&self.processors),
            name: self.name,
            open: matches!(self.load, Load::Rate(_)),
            goal_tps: self.goal_tps,
            asked_tps: self.asked_tps,
            search: self.search.map(Search::end),
            elapsed_ns: end_ns - self.start_ns,
            instances: self.shares.iter().map(|share| share.instances).sum(),
            max_instances: match self.load {
                Load::Instances(_) => 0,
                _ => self.max_concurrency,
            },
            saturation: self.concurrency.saturation(),
            stopped: self.stopped_ns.is_some(),
        });
        if !statistics.counts.add_up() {
            // Said rather than asserted: this thread leads all runs.
            tracing::error!(scenario = self.name, counts = ?statistics.counts, "counts do not add up");
        }
        if statistics.tps_limited {
            tracing::warn!(
                scenario = self.name,
                cause = statistics.verdict.as_ref().map(tracing::field::display),
                "Unable to achieve TPS on current server."
            );
        }
        if let Some(done) = self.done.take() {
            let _ = done.send(Ok(statistics));
        }
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn concurrency_config(config: &RunConfig, goal_tps: u32, initial: u32) -> ConcurrencyConfig {
    let (goal, initial) = match config.load {
        Load::Rate(_) => {
            let tps = goal_tps;
            let assumed = (tps / ASSUMED_PER_SECOND).clamp(initial, 1_000.max(initial));
            (ConcurrencyGoal::Open { tps }, assumed)
        }
        Load::Instances(instances) => (ConcurrencyGoal::Fixed(instances), instances),
        Load::Saturate | Load::Nothing => (ConcurrencyGoal::Saturate, initial),
    };
    ConcurrencyConfig { goal, initial, max: config.max_concurrency, min: 1 }
}
