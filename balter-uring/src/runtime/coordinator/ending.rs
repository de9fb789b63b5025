//! The end of a run: when it is, and what it leaves.

use std::sync::Arc;
use std::time::Duration;

use super::Lead;
use super::member::Member;
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
                None if member.is_known_dead => 0,
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
        let instances = self.members.iter().map(Member::instances).sum();
        let summaries = self.parts.iter().map(|part| part.summary.clone().unwrap_or_default());
        let summaries: Vec<_> = summaries.collect();
        let totals = &self.steering.totals.parts;
        let nodes =
            self.parts.iter().zip(&summaries).zip(totals).map(|((part, summary), total)| {
                NodeStatistics {
                    name: part.name.clone(),
                    shards: part.shards,
                    counts: total.counts,
                    busy: total.busy(),
                    stolen: summary.stolen,
                    lost: total.lost,
                }
            });
        let nodes: Vec<_> = nodes.collect();
        let views = self.members.iter().map(|member| member.view(&self.steering, &self.book));
        let views: Vec<_> = views.collect();
        let has_started = self.start_ns > 0;
        let mut statistics = self.steering.statistics(Ending {
            name: self.name,
            are_nodes: true,
            elapsed_ns,
            instances,
            stopped: self.stopped_ns.is_some(),
            stolen: summaries.iter().map(|summary| summary.stolen).collect(),
            throttled: Duration::from_nanos(
                summaries.iter().map(|summary| summary.throttled_ns).max().unwrap_or(0),
            ),
            shards_lost: summaries.iter().map(|summary| summary.shards_lost).sum(),
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
