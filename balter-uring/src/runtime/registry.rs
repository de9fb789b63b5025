//! The scenarios of this program, by their names.

use crate::Scenario;

/// A scenario that requests can name. `#[scenario]` registers one for each.
#[derive(Debug)]
pub struct Registered {
    /// Name of the function.
    pub name: &'static str,
    /// Path of its module.
    pub module: &'static str,
    /// Makes the scenario of its arguments, `None` for none.
    pub make: fn(Option<&serde_json::Value>) -> Result<Scenario, String>,
}

/// All of this program, gathered by the linker.
#[linkme::distributed_slice]
pub static SCENARIOS: [Registered];

/// The scenarios of this program.
#[derive(Clone, Copy, Default)]
pub(crate) struct Registry;

impl Registry {
    pub(crate) fn get(self, name: &str) -> Option<&'static Registered> {
        self.all().find(|scenario| scenario.name == name)
    }

    pub(crate) fn names(self) -> Vec<String> {
        self.all().map(|scenario| scenario.name.to_owned()).collect()
    }

    pub(crate) fn all(self) -> impl Iterator<Item = &'static Registered> {
        SCENARIOS.iter()
    }
}
