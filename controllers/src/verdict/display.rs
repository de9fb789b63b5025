//! A verdict as a person reads it: what was seen, and what to do about it.

use std::fmt;

use super::Verdict;
use crate::{Limit, Saturation};

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Verdict::Failing { failures, completed, failing_ns, ref class } => {
                let class = class.as_deref().unwrap_or("failures of any kind");
                write!(
                    f,
                    "the target fails: {failures} of {completed} transactions did, nearly all in the \
                     last {:.1} s; most of them: {class}; see what it answers to one request",
                    failing_ns as f64 / 1e9
                )
            }
            Verdict::Failures { failures, completed, ref class } => {
                let class = class.as_deref().unwrap_or("failures of any kind");
                write!(
                    f,
                    "the target failed {failures} of {completed} transactions; most of them: {class}; \
                     see what it answers at a lower rate"
                )
            }
            Verdict::Silent { started } => write!(
                f,
                "the target is silent: none of {started} transactions ended; see whether it answers \
                 one request, and in which time"
            ),
            Verdict::NotFound { end } => write!(f, "{end}"),
            Verdict::NothingAsked => write!(f, "nothing was asked of the run, so nothing was done"),
            Verdict::NothingStarted { returned, outside, outside_failed } => {
                write!(f, "no transaction started: ")?;
                match (returned, outside) {
                    (0, 0) => write!(
                        f,
                        "the scenario neither returned nor sent a request; see what it waits for \
                         before its first `#[transaction]`, and that it has one"
                    ),
                    (0, _) if outside_failed == 0 => write!(
                        f,
                        "the scenario was still busy with the {outside} request(s) that it sent \
                         before its first; let the run go on for longer, or allow more of them \
                         with `outside_tps`"
                    ),
                    _ => write!(
                        f,
                        "the scenario returned {returned} time(s) without one, and {outside_failed} \
                         of the {outside} request(s) that it sent outside of transactions failed; \
                         mend what stands before its first, as a log-in"
                    ),
                }
            }
            Verdict::GoalReached { goal_tps, achieved_tps } => {
                write!(f, "goal reached: {achieved_tps:.1} of {goal_tps} transactions/s")
            }
            Verdict::Completed { achieved_tps } => {
                write!(f, "completed at {achieved_tps:.1} transactions/s")
            }
            Verdict::ShardsLost { shards_lost } => write!(
                f,
                "{shards_lost} shard(s) of the generator were lost and their load is missing: they \
                 died, or the scenario's code kept them (is an `.await` missing, or does it \
                 block?); see the notes, then repeat the run"
            ),
            Verdict::NodesLost { nodes_lost, achieved_tps } => write!(
                f,
                "{nodes_lost} node(s) of the cluster were lost, so that {achieved_tps:.1} \
                 transactions/s were held: see what became of them, then repeat the run"
            ),
            Verdict::Descriptors { failures } => write!(
                f,
                "the generator ran out of file descriptors ({failures} failures): \
                 raise the limit (`ulimit -n`) or lower the concurrency"
            ),
            Verdict::Ports { failures } => write!(
                f,
                "the generator ran out of local ports ({failures} failures): reuse connections, \
                 widen net.ipv4.ip_local_port_range, or use more addresses"
            ),
            Verdict::Memory { failures } => write!(
                f,
                "the generator ran out of memory ({failures} failures): \
                 lower the concurrency or the size of bodies, or use a larger machine"
            ),
            Verdict::Panics { panics } => write!(
                f,
                "the scenario panicked {panics} time(s): mend it, its first message is shown with \
                 the panics (`panic_message`)"
            ),
            Verdict::ConcurrencyLimit { max_instances, goal_tps, achieved_tps, cycle_ns } => {
                write!(
                    f,
                    "all {max_instances} instances allowed were in use at {achieved_tps:.1} of \
                 {goal_tps} transactions/s: allow more instances{}",
                    Needed { goal_tps, cycle_ns }
                )
            }
            Verdict::Instances { instances, goal_tps, achieved_tps, cycle_ns } => write!(
                f,
                "at {achieved_tps:.1} of {goal_tps} transactions/s these waited for instances, which \
                 paused or had yet to begin, {instances} at most: let the run be longer, or hint at \
                 the concurrency{}",
                Needed { goal_tps, cycle_ns }
            ),
            Verdict::Processor { stolen, throttled, achieved_tps } => write!(
                f,
                "the generator was late at {achieved_tps:.1} transactions/s because its processors \
                 were taken from it: {:.0} % by the hypervisor, {:.0} % by its control group's \
                 quota: use a machine of its own, or raise the quota",
                stolen * 100.0,
                throttled * 100.0
            ),
            Verdict::Network { failures } => write!(
                f,
                "the network did not lead to the target ({failures} failures): check routes, \
                 firewalls and addresses"
            ),
            Verdict::Generator { busy, late_p99_ns, achieved_tps } => write!(
                f,
                "the generator was too slow at {achieved_tps:.1} transactions/s: its busiest \
                 shard worked {:.0} % of the time and started transactions {} late (p99): \
                 give it more cores or do less in the scenario",
                busy * 100.0,
                Millis(late_p99_ns)
            ),
            Verdict::Target { goal_tps, achieved_tps, response_p99_ns, saturation } => {
                write!(
                    f,
                    "the target took {achieved_tps:.1} of {goal_tps} transactions/s, \
                     response time {} (p99)",
                    Millis(response_p99_ns)
                )?;
                match saturation {
                    Some(Saturation { throughput, concurrency }) => write!(
                        f,
                        "; it saturates at {throughput:.1} transactions/s with {concurrency} \
                         instances: ask for less or enlarge the target"
                    ),
                    None => write!(f, ": look for stalls and errors of the target"),
                }
            }
            Verdict::Limit { limit, broken, found_tps, held_tps, .. } => {
                write!(f, "at {found_tps} transactions/s ({held_tps:.1} held) ")?;
                match limit {
                    Limit::ErrorRate(share) => write!(
                        f,
                        "the target's errors are at their limit: {:.2} % of {:.2} % allowed",
                        broken * 100.0,
                        share * 100.0
                    ),
                    Limit::Latency { bound_ns, quantile } => write!(
                        f,
                        "the target's latency is at its limit: {:.2} % take longer than {}, \
                         {:.2} % may",
                        broken * 100.0,
                        Millis(bound_ns),
                        (1.0 - quantile) * 100.0
                    ),
                }
            }
            Verdict::Unsettled { reached_tps } => write!(
                f,
                "the search for the rate was at {reached_tps} transactions/s and not at its end: \
                 let it run longer, 15 s and more, or hint at the rate to start with"
            ),
            Verdict::Stopped { elapsed_ns, achieved_tps } => write!(
                f,
                "stopped after {:.1} s at {achieved_tps:.1} transactions/s, too early to judge: \
                 let it run longer",
                elapsed_ns as f64 / 1e9
            ),
        }
    }
}

/// How many instances a rate takes by Little's law, if the length of a cycle is known.
struct Needed {
    goal_tps: u32,
    cycle_ns: u64,
}

impl fmt::Display for Needed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.cycle_ns == 0 {
            return Ok(());
        }
        let needed = f64::from(self.goal_tps) * self.cycle_ns as f64 / 1e9;
        let cycle = Millis(self.cycle_ns);
        write!(f, " (one is back after {cycle}, so that the rate takes {:.0})", needed.ceil())
    }
}

/// Nanoseconds, shown as milliseconds.
struct Millis(u64);

impl fmt::Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.2} ms", self.0 as f64 / 1e6)
    }
}
