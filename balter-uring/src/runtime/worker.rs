//! This node's part of a run that some node of the cluster leads.

mod offset;
mod sink;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime};

use balter_controllers::{Allowance, Arrival, LeaseGrant, LeaseHolder};
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout};
use tonic::{Status, Streaming};

use super::node::Node;
use super::request::{RunRequest, Spacing};
use super::runs::RunEntry;
use super::view::{RunRole, RunState, RunView, unix_seconds};
use super::wire::{Command, Grant, PROTOCOL, Prepare, Report, Summary};
use crate::engine::budget::{Budget, Course};
use crate::engine::clock::{Clock, nanoseconds};
use crate::engine::lease::{Lease, Leased, Told};
use crate::scenario::Scenario;
use crate::{RunError, RunStatistics};
use offset::Offset;
use sink::Sink;

/// A coordinator that says nothing for so long is gone, as far as this connection goes.
const SILENCE: Duration = Duration::from_secs(10);

/// A part that has had no lease for so long is given up: its coordinator will not come back.
const ABANDONED_NS: u64 = 60_000_000_000;

/// One that has not begun was given up sooner: its run was stopped before, or its coordinator died.
const FORGOTTEN_NS: u64 = 10_000_000_000;

/// No coordinator can have a node go on for longer without a word.
const LONGEST_LEASE_NS: u64 = 10_000_000_000;

/// A part that is over is kept so long for a coordinator that lost its connection.
const KEPT: Duration = Duration::from_secs(60);

/// The longest time between two reports: a lease lasts for four of them.
const BEATS_A_LEASE: u64 = 4;

/// The parts of runs that this node carries, by the runs' ids.
#[derive(Clone, Default)]
pub(crate) struct Workers(Arc<Mutex<HashMap<String, Arc<Part>>>>);

/// One of them.
pub(crate) struct Part {
    id: String,
    lease: Arc<Lease>,
    sink: Arc<Sink>,
    clock: Clock,
    beat: Duration,
    state: Mutex<State>,
    view: watch::Sender<Arc<RunView>>,
    statistics: Arc<Mutex<Option<Arc<RunStatistics>>>>,
    stop: Arc<Notify>,
}

struct State {
    scenario: Option<Scenario>,
    holder: LeaseHolder,
    /// Instances that there may be at all, by the grant that is held.
    most: u32,
    offset: Offset,
    /// Connections to the coordinator so far; the last one counts.
    connections: u64,
    shards: Option<u32>,
    failure: Option<String>,
    summary: Option<Summary>,
    wants_stop: bool,
    leaving: bool,
    course: Course,
}

impl Workers {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Arc<Part>>> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Parts under way, for the end of the process: all are to drain.
    pub(crate) fn leave(&self) {
        for part in self.lock().values() {
            part.state().leaving = true;
            part.drain();
            part.sink.changed.notify_one();
        }
    }

    /// Parts that are not over.
    pub(crate) fn under_way(&self) -> usize {
        self.lock().values().filter(|part| !part.is_over()).count()
    }

    /// The part of a run, new or, after a lost connection, again.
    fn prepare(&self, node: &Node, prepare: &Prepare) -> Result<Arc<Part>, String> {
        let Prepare { protocol, version, .. } = prepare;
        if (*protocol, version.as_str()) != (PROTOCOL, &*node.version) {
            return Err(format!(
                "this node is of version {} (protocol {PROTOCOL}) and the coordinator of version \
                 {version} (protocol {protocol}): run the same program on all nodes",
                node.version
            ));
        }
        let mut parts = self.lock();
        if let Some(part) = parts.get(&prepare.run) {
            return Ok(Arc::clone(part));
        }
        if node.is_leaving() {
            return Err("this node is shutting down".to_owned());
        }
        let under_way = parts.values().filter(|part| !part.is_over()).count();
        if under_way >= node.config.limits.max_runs {
            return Err(format!("{under_way} runs are under way, and no more are allowed here"));
        }
        let request: RunRequest = serde_json::from_str(&prepare.request)
            .map_err(|error| format!("the request cannot be read: {error}"))?;
        request
            .check(&node.config.limits, node.config.allowed)
            .map_err(|error| error.to_string())?;
        let scenario = node.scenario(&request).map_err(|error| error.to_string())?;
        let part = Part::new(node, prepare, request, scenario);
        parts.insert(prepare.run.clone(), Arc::clone(&part));
        drop(parts);
        part.warm_up();
        let (stopped, watched) = (Arc::clone(&part), node.clone());
        tokio::spawn(async move { stopped.watch(&watched).await });
        Ok(part)
    }
}

impl Part {
    fn new(node: &Node, prepare: &Prepare, request: RunRequest, scenario: Scenario) -> Arc<Self> {
        let sink = Arc::new(Sink::new());
        let reported = Arc::clone(&sink);
        let lease = Lease::new(move |window| reported.window(window));
        let window_ns = prepare.window_ns.clamp(50_000_000, 10_000_000_000);
        let lease_ns = prepare.lease_ns.clamp(500_000_000, LONGEST_LEASE_NS);
        let mut scenario = scenario;
        let config = scenario.config_mut();
        config.window = Duration::from_nanos(window_ns);
        if request.arrival == Some(Spacing::Poisson) {
            // Each node has a sequence of its own.
            let run = u64::from_str_radix(&prepare.run, 16).unwrap_or(0);
            config.arrival = Arrival::Poisson { seed: run ^ u64::from(prepare.part) };
        }
        let view = RunView {
            id: prepare.run.clone(),
            role: RunRole::Worker,
            coordinator: prepare.coordinator.clone(),
            request,
            ..RunView::default()
        };
        let view = watch::Sender::new(Arc::new(view));
        let part = Arc::new(Self {
            id: prepare.run.clone(),
            lease,
            sink,
            clock: Clock::get(),
            beat: Duration::from_nanos(window_ns.min(lease_ns / BEATS_A_LEASE)),
            state: Mutex::new(State {
                scenario: Some(scenario),
                holder: LeaseHolder::new(lease_ns),
                most: 0,
                offset: Offset::default(),
                connections: 0,
                shards: None,
                failure: None,
                summary: None,
                wants_stop: false,
                leaving: false,
                course: Course::Run,
            }),
            view,
            statistics: Arc::default(),
            stop: Arc::new(Notify::new()),
        });
        // The coordinator's own part is shown as the whole.
        if *prepare.coordinator != *node.name {
            node.runs.insert(
                part.id.clone(),
                RunEntry {
                    view: part.view.subscribe(),
                    statistics: Arc::clone(&part.statistics),
                    stop: Arc::clone(&part.stop),
                },
            );
        }
        part
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn is_over(&self) -> bool {
        self.state().summary.is_some()
    }

    /// Has the shards started, which takes a moment the first time.
    fn warm_up(self: &Arc<Self>) {
        let part = Arc::clone(self);
        tokio::task::spawn_blocking(move || {
            let Some(scenario) = part.state().scenario.as_ref().map(Scenario::to_warm_up) else {
                return;
            };
            let prepared = scenario.warm_up();
            let mut state = part.state();
            match prepared {
                Ok(shards) => state.shards = Some(shards as u32),
                Err(error) => state.failure = Some(error.to_string()),
            }
            drop(state);
            part.sink.changed.notify_one();
        });
    }

    fn drain(&self) {
        let mut state = self.state();
        state.course = state.course.max(Course::Drain);
        self.tell(&state);
        if state.scenario.take().is_some() {
            self.never_began(&mut state);
        }
    }

    fn never_began(&self, state: &mut State) {
        state.summary = Some(Summary::default());
        self.view.send_modify(|view| {
            let view = Arc::make_mut(view);
            let error = "it was stopped before it began, or its coordinator was lost".to_owned();
            (view.state, view.error) = (RunState::Failed, Some(error));
        });
    }

    fn tell(&self, state: &State) {
        let Allowance { tps, concurrency } = state.holder.granted();
        let (until_ns, course) = (state.holder.until_ns(), state.course);
        let budget = Budget { tps, concurrency };
        // Never fewer than may be under way.
        let most = state.most.max(concurrency);
        self.lease.tell(Told { budget, most, until_ns, course });
    }

    fn take(self: &Arc<Self>, grant: &Grant, node: &Node) {
        let now = self.clock.now();
        let limits = &node.config.limits;
        let mut state = self.state();
        state.offset.learn(grant, now);
        state.course = state.course.max(match grant.course {
            0 => Course::Run,
            1 => Course::Drain,
            _ => Course::Stop,
        });
        let allowance = Allowance {
            tps: grant.tps.min(limits.max_tps),
            concurrency: grant.concurrency.min(limits.max_concurrency),
        };
        let Grant { number, stamp_ns, .. } = *grant;
        // A stamp from the future is none of this node's.
        if stamp_ns <= now && state.holder.take(&LeaseGrant { number, stamp_ns, allowance }) {
            state.most = grant.most.min(limits.max_concurrency);
            self.tell(&state);
        }
        self.sink.granted(state.holder.number(), grant.confirmed);
        if grant.start_ns == 0 || state.scenario.is_none() || state.shards.is_none() {
            return;
        }
        self.sink.begins();
        let scenario = state.scenario.take().expect("seen above");
        if state.course > Course::Run {
            self.never_began(&mut state);
            return;
        }
        let start_ns = state.offset.here(grant.start_ns);
        let end_ns = state
            .offset
            .here(grant.end_ns)
            .min(now.saturating_add(nanoseconds(limits.max_duration)));
        drop(state);
        let leased = Leased { lease: Arc::clone(&self.lease), start_ns, end_ns };
        let part = Arc::clone(self);
        let started_at = unix_seconds(SystemTime::now()) + (start_ns as f64 - now as f64) / 1e9;
        part.view.send_modify(|view| {
            let view = Arc::make_mut(view);
            (view.state, view.started_at) = (RunState::Running, started_at);
        });
        tokio::spawn(async move {
            let result = scenario.leased(leased).run().await;
            part.finish(result);
        });
    }

    fn finish(&self, result: Result<RunStatistics, RunError>) {
        let mut summary = Summary::default();
        match result {
            Ok(statistics) => {
                let worst = statistics.shards.iter().map(|shard| shard.stolen);
                summary.stolen = worst.fold(0.0, f64::max);
                summary.throttled_ns = statistics.throttled.as_nanos() as u64;
                summary.shards_lost =
                    statistics.shards.iter().filter(|shard| shard.lost).count() as u32;
                summary.notes.clone_from(&statistics.notes);
                self.view.send_modify(|view| Arc::make_mut(view).end(&statistics));
                let mut place =
                    self.statistics.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
                *place = Some(Arc::new(statistics));
            }
            Err(error) => {
                self.state().failure = Some(error.to_string());
                self.view.send_modify(|view| {
                    let view = Arc::make_mut(view);
                    (view.state, view.error) = (RunState::Failed, Some(error.to_string()));
                });
            }
        }
        self.state().summary = Some(summary);
        self.sink.changed.notify_one();
    }

    /// Shows how the part is doing, ends one whose coordinator is gone for good, and forgets it when
    /// it has been over for a while.
    async fn watch(self: Arc<Self>, node: &Node) {
        let mut over_since = None;
        let mut completed = 0;
        let created_ns = self.clock.now();
        loop {
            let stop = tokio::select! {
                () = tokio::time::sleep(Duration::from_secs(1)) => false,
                () = self.stop.notified() => true,
            };
            let mut state = self.state();
            state.wants_stop |= stop;
            let now = self.clock.now();
            let last_ns = state.holder.until_ns().max(created_ns);
            let has_begun = state.scenario.is_none();
            let patience_ns = if has_begun { ABANDONED_NS } else { FORGOTTEN_NS };
            let abandoned = now.saturating_sub(last_ns) > patience_ns;
            let goal_tps = state.holder.allowance(now).tps;
            let is_over = state.summary.is_some();
            drop(state);
            if abandoned && !is_over {
                tracing::warn!(run = self.id, "no word of its coordinator: this part ends");
                self.drain();
            }
            if !is_over {
                let (counts, instances) = self.sink.counts();
                self.view.send_modify(|view| {
                    let view = Arc::make_mut(view);
                    (view.counts, view.instances, view.goal_tps) = (counts, instances, goal_tps);
                    view.tps = (counts.completed() - completed) as f64;
                    if view.state == RunState::Running {
                        view.elapsed = unix_seconds(SystemTime::now()) - view.started_at;
                    }
                });
                completed = counts.completed();
                continue;
            }
            if over_since.get_or_insert_with(Instant::now).elapsed() > KEPT {
                node.workers.lock().remove(&self.id);
                return;
            }
        }
    }

    fn connect(&self) -> u64 {
        self.sink.reconnected();
        let mut state = self.state();
        state.connections += 1;
        state.connections
    }

    fn report(&self, boot: u64) -> Report {
        let (windows, is_delivered) = self.sink.deliveries();
        let state = self.state();
        Report {
            refused: state.failure.clone().unwrap_or_default(),
            boot,
            shards: state.shards.unwrap_or(0),
            stamp_ns: self.clock.now(),
            holds: state.holder.number(),
            ready: state.shards.is_some(),
            windows,
            stop: state.wants_stop,
            summary: state.summary.clone().filter(|_| is_delivered),
            leaving: state.leaving,
        }
    }
}

/// Is led by a coordinator over one connection.
pub(crate) async fn serve(
    node: Node,
    mut commands: Streaming<Command>,
    reports: mpsc::Sender<Result<Report, Status>>,
) {
    let prepare = match timeout(SILENCE, commands.message()).await {
        Ok(Ok(Some(Command { prepare: Some(prepare), .. }))) => prepare,
        _ => {
            let status = Status::invalid_argument("the first command has to name the run");
            let _ = reports.send(Err(status)).await;
            return;
        }
    };
    let part = match node.workers.prepare(&node, &prepare) {
        Ok(part) => part,
        Err(refused) => {
            let report = Report { refused, boot: node.boot, ..Report::default() };
            let _ = reports.send(Ok(report)).await;
            return;
        }
    };
    let connection = part.connect();
    let mut next_beat = Instant::now();
    let mut last_command = Instant::now();
    loop {
        tokio::select! {
            command = commands.message() => {
                let Ok(Some(command)) = command else { return };
                last_command = Instant::now();
                if let Some(grant) = command.grant {
                    part.take(&grant, &node);
                }
                continue;
            }
            () = part.sink.changed.notified() => {}
            () = sleep_until(next_beat) => {}
        }
        if part.state().connections != connection || last_command.elapsed() > SILENCE {
            return;
        }
        next_beat = Instant::now() + part.beat;
        // A coordinator that does not read is as good as gone.
        let report = part.report(node.boot);
        if !matches!(timeout(SILENCE, reports.send(Ok(report))).await, Ok(Ok(()))) {
            return;
        }
    }
}
