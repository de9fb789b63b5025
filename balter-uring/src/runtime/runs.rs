//! The runs that a node knows of.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use tokio::sync::{Notify, watch};

use super::view::RunView;

/// A run that this node leads or takes part in.
#[derive(Clone)]
pub(crate) struct RunEntry {
    /// As it stands; sent anew at least once a second while it goes on. The sender is dropped when
    /// it is over.
    pub(crate) view: watch::Receiver<Arc<RunView>>,
    /// The whole statistics, once it is over.
    pub(crate) statistics: Arc<Mutex<Option<Arc<crate::RunStatistics>>>>,
    /// Notified to end it in good order.
    pub(crate) stop: Arc<Notify>,
}

/// See the module's documentation. Clones are of one table.
#[derive(Clone, Default)]
pub(crate) struct Runs(Arc<Mutex<BTreeMap<String, RunEntry>>>);

impl Runs {
    pub(crate) fn get(&self, id: &str) -> Option<RunEntry> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).get(id).cloned()
    }

    pub(crate) fn all(&self) -> Vec<Arc<RunView>> {
        let runs = self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        runs.values().map(|run| Arc::clone(&run.view.borrow())).collect()
    }

    pub(crate) fn insert(&self, id: String, entry: RunEntry) {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).insert(id, entry);
    }
}
