//! Without the feature `metrics`: nobody is told.

use super::State;
use crate::engine::window::ShardWindow;

/// Stands for the metrics of a run.
pub(crate) struct Published;

impl Published {
    pub(crate) fn new(_scenario: &str, _cores: impl Iterator<Item = usize>) -> Self {
        Self
    }

    #[expect(clippy::unused_self, reason = "as it is where somebody is told")]
    pub(crate) fn window(&mut self, _part: usize, _window: &ShardWindow) {}

    #[expect(clippy::unused_self, reason = "as it is where somebody is told")]
    pub(crate) fn tick(&mut self, _state: &State) {}

    #[expect(clippy::unused_self, reason = "as it is where somebody is told")]
    pub(crate) fn end(&mut self) {}

    #[expect(clippy::unused_self, reason = "as it is where somebody is told")]
    pub(crate) fn has_failed(&self) -> bool {
        false
    }
}
