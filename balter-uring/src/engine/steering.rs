//! What leads a run: it takes in the windows of the run's parts and says what all of them together
//! may use next. The parts are the shards of a process, or the nodes of a cluster.

use std::time::Duration;

use balter_controllers::{
    ConcurrencyConfig, ConcurrencyController, ConcurrencyGoal, ConcurrencyState, RateState, Window,
};
use hdrhistogram::Histogram;

use super::blocks::Blocks;
use super::budget::Budget;
use super::search::Search;
use super::totals::{Summary, Totals};
use super::window::ShardWindow;
use crate::config::{Load, RunConfig};
use crate::statistics::RunStatistics;

/// Response time for which instances may be started before the first window has come, as a share
/// of a second: at this rate times 10 ms.
const ASSUMED_PER_SECOND: u32 = 100;

/// See the module's documentation.
pub(crate) struct Steering {
    pub(crate) load: Load,
    /// What all parts together may use now.
    budget: Budget,
    /// Instances to begin with.
    initial: u32,
    /// The rate that the user asked for; `None` without one, or with limits alone.
    asked_tps: Option<u32>,
    search: Option<Search>,
    /// More instances were granted with the last window.
    starting: bool,
    max_concurrency: u32,
    concurrency: ConcurrencyController,
    pub(crate) totals: Totals,
    blocks: Option<Blocks>,
}

/// How a run ended, as those know who watched it.
pub(crate) struct Ending {
    pub(crate) name: &'static str,
    /// The parts are nodes of a cluster, not shards.
    pub(crate) are_nodes: bool,
    pub(crate) elapsed_ns: u64,
    pub(crate) instances: u32,
    pub(crate) stopped: bool,
    /// Share of each part's core that the hypervisor took.
    pub(crate) stolen: Vec<f64>,
    pub(crate) throttled: Duration,
    /// Shards that the nodes have lost; of its own shards a run knows that itself.
    pub(crate) shards_lost: u32,
}

impl Steering {
    /// Of a run whose parts are on these cores (or have these numbers, if they are no shards).
    pub(crate) fn new(config: &RunConfig, cores: impl Iterator<Item = usize>) -> Self {
        let most_tps = if let Load::Rate(tps) = config.load { tps } else { 0 };
        let search = (!config.limits.is_empty() && most_tps > 0)
            .then(|| Search::new(config, most_tps.min(config.ceiling_tps)));
        let goal_tps = search.as_ref().map_or(most_tps, |search| search.decision().tps);
        let initial = config.initial.min(config.max_concurrency);
        let concurrency = ConcurrencyController::new(concurrency_config(config, goal_tps, initial));
        let needed = search.as_ref().map_or(0, |search| search.instances(&Window::default()));
        let limit = concurrency.limit().max(needed.min(config.max_concurrency));
        Self {
            load: config.load,
            budget: Budget { tps: goal_tps, concurrency: limit },
            initial,
            asked_tps: Some(most_tps).filter(|&tps| tps > 0 && tps < u32::MAX),
            search,
            starting: true,
            max_concurrency: config.max_concurrency,
            concurrency,
            totals: Totals::new(cores),
            blocks: config.cut.map(Blocks::new),
        }
    }

    /// What all parts together may use.
    pub(crate) fn budget(&self) -> Budget {
        self.budget
    }

    /// Instances that the run begins with.
    pub(crate) fn initial(&self) -> u32 {
        self.initial
    }

    /// The most instances that it may ever have.
    pub(crate) fn max_concurrency(&self) -> u32 {
        self.max_concurrency
    }

    /// Takes in a window of a part. `interval` gathers the response times for an observer.
    pub(crate) fn add(
        &mut self,
        part: usize,
        window: &ShardWindow,
        interval: Option<&mut Histogram<u64>>,
    ) {
        self.totals.add(part, window, interval);
        if let Some(blocks) = &mut self.blocks {
            blocks.add(window);
        }
        if let Some(search) = &mut self.search {
            search.window(part, window);
        }
    }

    /// Takes note of how all parts together stand, whoever decides.
    pub(crate) fn note(&mut self, whole: &Window) {
        self.totals.note_window(whole, self.max_instances());
    }

    /// Instances that there may be; zero where the user has set their number.
    fn max_instances(&self) -> u32 {
        match self.load {
            Load::Instances(_) => 0,
            _ => self.max_concurrency,
        }
    }

    /// All parts have told of the same stretch of time, which `window` is the sum of: decides what
    /// they may use next. What was seen while a part was late is no ground to judge the target by:
    /// then there is nothing but the rate asked for to be met.
    pub(crate) fn decide(&mut self, window: &Window) -> ConcurrencyState {
        if window.absent > 0 && (self.search.is_some() || self.load == Load::Saturate) {
            self.pass_over();
            return ConcurrencyState::Stable;
        }
        if let Some(search) = &mut self.search {
            self.budget.tps = search.tick(window, self.starting).tps;
            self.concurrency.set_tps(self.budget.tps);
        }
        let decision = self.concurrency.update(window);
        self.starting = decision.state == ConcurrencyState::Working;
        let needed = self.search.as_ref().map_or(0, |search| search.instances(window));
        self.budget.concurrency = decision.limit.max(needed.min(self.max_concurrency));
        decision.state
    }

    /// The windows since the last decision are no ground for another: they were not all of the rate
    /// that was asked for.
    pub(crate) fn pass_over(&mut self) {
        if let Some(search) = &mut self.search {
            search.pass_over();
        }
    }

    /// Somebody else decides.
    #[cfg(feature = "rt")]
    pub(crate) fn follow(&mut self, budget: Budget) {
        self.budget = budget;
    }

    /// The run was to end when its rate has been found, and it has been.
    pub(crate) fn is_done(&self) -> bool {
        self.search.as_ref().is_some_and(Search::is_done)
    }

    /// What the search for the rate is doing, and whether it has a limit on latencies, and one on
    /// errors.
    pub(crate) fn search(&self) -> Option<(RateState, (bool, bool))> {
        self.search.as_ref().map(|search| (search.decision().state, search.kinds()))
    }

    pub(crate) fn statistics(self, ending: Ending) -> RunStatistics {
        let Ending {
            name,
            are_nodes,
            elapsed_ns,
            instances,
            stopped,
            stolen,
            throttled,
            shards_lost,
        } = ending;
        let max_instances = self.max_instances();
        // One that has found what it was to find has come to its own end.
        let stopped = stopped && !self.is_done();
        let statistics = self.totals.statistics(Summary {
            stolen,
            throttled,
            shards_lost,
            name,
            are_nodes,
            open: self.load.is_open(),
            goal_tps: self.budget.tps,
            asked_tps: self.asked_tps,
            search: self.search.map(Search::end),
            elapsed_ns,
            instances,
            max_instances,
            saturation: self.concurrency.saturation(),
            stopped,
        });
        RunStatistics { sampled: self.blocks.map(|blocks| Box::new(blocks.end())), ..statistics }
    }
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
