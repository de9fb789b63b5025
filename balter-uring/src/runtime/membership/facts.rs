//! What a node tells of itself, as keys and values that gossip carries.

use serde::{Deserialize, Serialize};

/// The key that says that a node goes.
pub(super) const LEFT: &str = "left";

const FACTS: &str = "facts";
const SCENARIO: &str = "scenario:";

/// Bytes of a name: of a node, a scenario, a version.
pub(crate) const MAX_NAME: usize = 128;
/// Bytes that gossip takes for all scenarios, before it compresses them: 356 with names of 60
/// bytes. A node's facts have to fit into one datagram (64 KiB) together with those of some others,
/// or they would never arrive.
pub(crate) const MAX_SCENARIOS: usize = 32 * 1024;
/// Bytes for each beside its name: its key's prefix, lengths and version.
const EACH_SCENARIO: usize = 32;

/// What a node tells of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Facts {
    /// Version of this crate.
    pub(crate) version: String,
    /// Version of what the nodes say to each other.
    pub(crate) protocol: u32,
    pub(crate) scenarios: Vec<String>,
    /// Cores that it loads with.
    pub(crate) cores: u32,
}

/// Why facts are not told, or not believed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FactsError {
    #[error("{what} is empty, longer than {MAX_NAME} bytes, or has control characters: {value:?}")]
    Name { what: &'static str, value: String },
    #[error(
        "the {count} scenarios take {bytes} bytes of gossip, and it carries {MAX_SCENARIOS} at most: \
         give them shorter names, or divide them between programs"
    )]
    Scenarios { count: usize, bytes: usize },
    #[error("not to be read: {0}")]
    Unreadable(String),
    #[error("{told} scenarios were told of, and {found} were named")]
    Count { told: usize, found: usize },
}

/// The value of [`FACTS`]. Unknown fields are passed over: another version may have more, and it is
/// refused for its version then, which says what to do.
#[derive(Serialize, Deserialize)]
struct Told {
    version: String,
    protocol: u32,
    cores: u32,
    scenarios: usize,
}

impl Facts {
    /// In the order of their names, each once: two modules may have scenarios of one name, and what
    /// is told is names.
    pub(super) fn sort(&mut self) {
        self.scenarios.sort_unstable();
        self.scenarios.dedup();
    }

    /// Keys and values of sorted facts, in the order in which they are to be set. Gossip carries them in this order,
    /// and in parts if there are many, so who has the last has all.
    pub(super) fn to_keys(&self) -> Result<Vec<(String, String)>, FactsError> {
        self.check()?;
        let told = Told {
            version: self.version.clone(),
            protocol: self.protocol,
            cores: self.cores,
            scenarios: self.scenarios.len(),
        };
        let told = serde_json::to_string(&told)
            .map_err(|error| FactsError::Unreadable(error.to_string()))?;
        let scenarios =
            self.scenarios.iter().map(|name| (format!("{SCENARIO}{name}"), String::new()));
        Ok(scenarios.chain([(FACTS.to_owned(), told)]).collect())
    }

    /// `None` until all of them have arrived.
    pub(super) fn from_keys<'a>(
        keys: impl Iterator<Item = (&'a str, &'a str)>,
    ) -> Option<Result<Self, FactsError>> {
        let mut told = None;
        let mut scenarios = Vec::new();
        let mut bytes = 0;
        for (key, value) in keys {
            if key == FACTS {
                told = Some(value);
            } else if let Some(name) = key.strip_prefix(SCENARIO) {
                bytes += EACH_SCENARIO + name.len();
                scenarios.push(name);
            }
        }
        let told = told?;
        if bytes > MAX_SCENARIOS {
            return Some(Err(FactsError::Scenarios { count: scenarios.len(), bytes }));
        }
        Some(Self::from_told(told, scenarios))
    }

    fn from_told(told: &str, scenarios: Vec<&str>) -> Result<Self, FactsError> {
        let told: Told = serde_json::from_str(told)
            .map_err(|error| FactsError::Unreadable(error.to_string()))?;
        if told.scenarios != scenarios.len() {
            return Err(FactsError::Count { told: told.scenarios, found: scenarios.len() });
        }
        let facts = Self {
            version: told.version,
            protocol: told.protocol,
            scenarios: scenarios.into_iter().map(str::to_owned).collect(),
            cores: told.cores,
        };
        facts.check()?;
        Ok(facts)
    }

    fn check(&self) -> Result<(), FactsError> {
        check_name("the version", &self.version)?;
        for name in &self.scenarios {
            check_name("the name of a scenario", name)?;
        }
        let bytes = self.scenarios.iter().map(|name| EACH_SCENARIO + name.len()).sum();
        if bytes > MAX_SCENARIOS {
            return Err(FactsError::Scenarios { count: self.scenarios.len(), bytes });
        }
        Ok(())
    }
}

/// Names stand in logs, pages and metrics.
pub(super) fn check_name(what: &'static str, value: &str) -> Result<(), FactsError> {
    if value.is_empty() || value.len() > MAX_NAME || value.chars().any(char::is_control) {
        let value = value.chars().take(MAX_NAME).collect();
        return Err(FactsError::Name { what, value });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn facts(scenarios: &[&str]) -> Facts {
        Facts {
            version: "0.1.0".to_owned(),
            protocol: 1,
            scenarios: scenarios.iter().map(|name| (*name).to_owned()).collect(),
            cores: 4,
        }
    }

    fn read(keys: &[(&str, &str)]) -> Option<Result<Facts, FactsError>> {
        Facts::from_keys(keys.iter().copied())
    }

    #[test]
    fn facts_are_read_as_they_were_told() {
        for facts in [facts(&[]), facts(&["a", "b:c", "scenario:"])] {
            let keys = facts.to_keys().expect("within bounds");
            assert_eq!(keys.last().map(|(key, _)| key.as_str()), Some(FACTS));
            let keys = keys.iter().map(|(key, value)| (key.as_str(), value.as_str()));
            assert_eq!(Facts::from_keys(keys), Some(Ok(facts)));
        }
    }

    #[test]
    fn facts_are_unknown_until_the_last_key_has_arrived() {
        assert_eq!(read(&[]), None);
        assert_eq!(read(&[("scenario:a", ""), ("left", "1"), ("other", "")]), None);
    }

    #[test]
    fn nonsense_is_an_error() {
        let good = r#"{"version":"1","protocol":1,"cores":1,"scenarios":0,"new":[]}"#;
        assert!(read(&[(FACTS, good)]).is_some_and(|facts| facts.is_ok()), "of a later version");
        let long = format!(
            r#"{{"version":"{}","protocol":1,"cores":1,"scenarios":0}}"#,
            "1".repeat(MAX_NAME + 1)
        );
        for told in [
            "",
            "{}",
            "[[[[",
            r#"{"version":"1","protocol":-1,"cores":1,"scenarios":0}"#,
            r#"{"version":"1","protocol":1,"cores":1,"scenarios":1}"#,
            r#"{"version":"","protocol":1,"cores":1,"scenarios":0}"#,
            r#"{"version":"a\nb","protocol":1,"cores":1,"scenarios":0}"#,
            &long,
        ] {
            assert!(read(&[(FACTS, told)]).is_some_and(|facts| facts.is_err()), "{told}");
        }
    }

    #[test]
    fn what_gossip_cannot_carry_is_an_error_on_both_sides() {
        let names: Vec<_> = (0..MAX_SCENARIOS / 100 + 1).map(|n| format!("{n:0>68}")).collect();
        let mut many = facts(&[]);
        many.scenarios.clone_from(&names);
        assert!(matches!(many.to_keys(), Err(FactsError::Scenarios { .. })));
        let keys: Vec<_> = names.iter().map(|name| format!("{SCENARIO}{name}")).collect();
        let keys = keys.iter().map(|key| (key.as_str(), "")).chain([(FACTS, "{}")]);
        assert!(matches!(Facts::from_keys(keys), Some(Err(FactsError::Scenarios { .. }))));
        many.scenarios.pop();
        assert!(many.to_keys().is_ok());
    }

    proptest! {
        #[test]
        fn no_keys_panic(keys in prop::collection::vec((".{0,20}", ".{0,40}"), 0..10), told in ".{0,60}") {
            let keys = keys.iter().map(|(key, value)| (key.as_str(), value.as_str()));
            prop_assert!(Facts::from_keys(keys.chain([(FACTS, told.as_str())])).is_some());
        }
    }
}
