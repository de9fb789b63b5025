//! The runs that a node knows of.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::{Notify, watch};

use super::view::{RunRole, RunView};
use crate::RunStatistics;

/// Runs that are remembered. The oldest of those that are over are forgotten.
const REMEMBERED: usize = 100;

/// A run that this node leads or takes part in.
#[derive(Clone)]
pub(crate) struct RunEntry {
    /// As it stands; new several times a second while it goes on. Its sender is dropped when the run
    /// is over.
    pub(crate) view: watch::Receiver<Arc<RunView>>,
    /// The whole statistics, once it is over.
    pub(crate) statistics: Arc<Mutex<Option<Arc<RunStatistics>>>>,
    /// Notified to end it in good order.
    pub(crate) stop: Arc<Notify>,
}

impl RunEntry {
    pub(crate) fn statistics(&self) -> Option<Arc<RunStatistics>> {
        self.statistics.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).clone()
    }

    fn is_over(&self) -> bool {
        self.view.borrow().is_over()
    }
}

/// See the module's documentation. Clones are of one table.
#[derive(Clone, Default)]
pub(crate) struct Runs(Arc<Mutex<VecDeque<(String, RunEntry)>>>);

impl Runs {
    fn lock(&self) -> MutexGuard<'_, VecDeque<(String, RunEntry)>> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    pub(crate) fn get(&self, id: &str) -> Option<RunEntry> {
        self.lock().iter().find(|(known, _)| known == id).map(|(_, entry)| entry.clone())
    }

    /// All, the oldest first.
    pub(crate) fn all(&self) -> Vec<Arc<RunView>> {
        self.lock().iter().map(|(_, run)| Arc::clone(&run.view.borrow())).collect()
    }

    /// Runs that this node leads and that are not over.
    pub(crate) fn led_under_way(&self) -> usize {
        let runs = self.lock();
        let led = |entry: &RunEntry| entry.view.borrow().role == RunRole::Coordinator;
        runs.iter().filter(|(_, entry)| led(entry) && !entry.is_over()).count()
    }

    pub(crate) fn insert(&self, id: String, entry: RunEntry) {
        let mut runs = self.lock();
        if runs.len() >= REMEMBERED
            && let Some(oldest) = runs.iter().position(|(_, entry)| entry.is_over())
        {
            runs.remove(oldest);
        }
        runs.push_back((id, entry));
    }
}
