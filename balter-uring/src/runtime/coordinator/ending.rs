//! The end of a run: when it is, and what it leaves.

use std::sync::Arc;
use std::time::Duration;

use super::Lead;
use crate::engine::steering::Ending;
use crate::runtime::view::RunState;
use crate::statistics::NodeStatistics;

/// After the end of a run its nodes have their grace, and then so long for what is on its way; nodes
/// that cannot be reached have only this.
const LAST_WORDS_NS: u64 = 3_000_000_000;

impl Lead {
    pub(super) fn is_over(&self, now: u64) -> bool {
        if self.start_ns == 0 {
            return false;
        }
        let should_have_ended = self.stopped_ns.unwrap_or(u64::MAX).min(self.end_ns);
        if now < should_have_ended {
            // All have ended before their time.
            return self.members.iter().all(|member| member.is_settled())
                && self.members.iter().any(|member| member.is_over);
        }
        let late_ns = now - should_have_ended;
        self.members.iter().all(|member| {
            let patience_ns = match member.commands {
                Some(_) => self.grace_ns.saturating_add(2 * LAST_WORDS_NS),
                None if member.is_known_dead && member.is_gone() => 0,
                None => LAST_WORDS_NS,
            };
            member.is_settled() || late_ns > patience_ns
        })
    }

    pub(super) fn finish(mut self) {
        let elapsed_ns = self
            .stopped_ns
            .unwrap_or(u64::MAX)
            .min(self.end_ns)
            .max(self.start_ns)
            .saturating_sub(self.start_ns);
        for member in &self.members {
            match member.part {
                Some(part) if !member.is_over => self.steering.totals.lose(part),
                _ => {}
            }
        }
        let instances = self.members.iter().map(|member| member.instances).sum();
        let nodes: Vec<_> = self
            .members
            .iter()
            .filter_map(|member| {
                let part = &self.steering.totals.parts[member.part?];
                Some(NodeStatistics {
                    name: member.name.clone(),
                    shards: member.shards,
                    counts: part.counts,
                    busy: part.busy(),
                    stolen: member.summary.map_or(0.0, |summary| summary.stolen),
                    lost: part.lost,
                })
            })
            .collect();
        let views = self.members.iter().map(|member| member.view(&self.steering, &self.book));
        let views: Vec<_> = views.collect();
        let has_started = self.start_ns > 0;
        let summaries = || self.members.iter().filter_map(|member| member.summary);
        let throttled_ns = summaries().map(|summary| summary.throttled_ns).max().unwrap_or(0);
        let mut stolen = vec![0.0; self.steering.totals.parts.len()];
        for member in &self.members {
            if let (Some(part), Some(summary)) = (member.part, member.summary) {
                stolen[part] = summary.stolen;
            }
        }
        let mut statistics = self.steering.statistics(Ending {
            name: self.name,
            are_nodes: true,
            elapsed_ns,
            instances,
            stopped: self.stopped_ns.is_some(),
            stolen,
            throttled: Duration::from_nanos(throttled_ns),
        });
        // Its parts were nodes.
        statistics.shards.clear();
        statistics.nodes = nodes;
        let failure = (!has_started).then(|| {
            let reasons = self.refused.iter().map(|(name, reason)| format!("{name}: {reason}"));
            let troubles = self.members.iter().filter_map(|member| {
                member.trouble.as_ref().map(|trouble| format!("{}: {trouble}", member.name))
            });
            let all: Vec<_> = reasons.chain(troubles).collect();
            match self.stopped_ns {
                Some(_) => "it was stopped before it began".to_owned(),
                None => format!("no node could start it ({})", all.join("; ")),
            }
        });
        self.view.send_modify(|view| {
            let view = Arc::make_mut(view);
            view.end(&statistics);
            view.nodes = views;
            view.refused = self.refused;
            if failure.is_some() {
                (view.state, view.verdict, view.error) = (RunState::Failed, None, failure);
            }
        });
        *self.statistics.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) =
            Some(Arc::new(statistics));
    }
}
