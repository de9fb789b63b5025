//! The scenarios of this program, by their names.

mod values;

use serde_json::Value;
pub use values::{Argument, Arguments, FromJson, NotFromJson};

use crate::Scenario;

/// A scenario that requests can name. `#[scenario]` registers each that has no type parameters and
/// does not mention `Self`.
#[derive(Debug)]
pub struct Registered {
    /// Name of the function.
    pub name: &'static str,
    /// Path of its module.
    pub module: &'static str,
    /// Names of its arguments, empty where they have none.
    pub parameters: &'static [&'static str],
    /// Makes the scenario of its arguments, `None` for none.
    pub make: fn(Option<&Value>) -> Result<Scenario, String>,
}

/// All of this program, gathered by the linker.
#[linkme::distributed_slice]
pub static SCENARIOS: [Registered];

/// Adds a scenario to [`SCENARIOS`].
#[doc(hidden)]
#[macro_export]
macro_rules! __register_scenario {
    ($function:ident $name:literal $(($argument:literal $kind:ty, $how:ident))*) => {
        #[$crate::__private::linkme::distributed_slice($crate::__private::SCENARIOS)]
        #[linkme(crate = $crate::__private::linkme)]
        static __SCENARIO: $crate::__private::Registered = $crate::__private::Registered {
            name: $name,
            module: ::core::module_path!(),
            parameters: &[$($argument),*],
            make: |given| {
                // Which of them is used, if any, depends on the types.
                #[allow(unused_imports)]
                use $crate::__private::{FromJson as _, NotFromJson as _};
                let mut arguments =
                    $crate::__private::Arguments::new(&[$($argument),*], given)?;
                // There may be none to take.
                let _ = &mut arguments;
                ::core::result::Result::Ok($function($(
                    $crate::__register_scenario!(@take arguments, $kind, $how)
                ),*))
            },
        };
    };
    (@take $arguments:ident, $kind:ty, json) => {
        (&$crate::__private::Argument::<$kind>::NEW).take(&mut $arguments)?
    };
    (@take $arguments:ident, $kind:ty, opaque) => {
        $arguments.opaque::<$kind>()?
    };
}

/// Why a name stands for no scenario.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoScenario {
    #[error("{}", unknown(name, similar.as_deref(), known))]
    Unknown { name: String, similar: Option<String>, known: Vec<String> },
    #[error("there are several scenarios `{name}`; say which: {}", paths.join(", "))]
    Ambiguous { name: String, paths: Vec<String> },
    #[error(
        "{count} scenarios are `{path}`, and no name tells them apart: rename them, or mark all but \
         one `#[scenario(unregistered)]`"
    )]
    Same { path: String, count: usize },
}

fn unknown(name: &str, similar: Option<&str>, known: &[String]) -> String {
    let known = match known {
        [] => "this program has none, mark an `async fn` with `#[scenario]`".to_owned(),
        _ => format!("there are: {}", known.join(", ")),
    };
    let similar = similar.map_or(String::new(), |one| format!("; was `{one}` meant?"));
    format!("there is no scenario `{name}`; {known}{similar}")
}

/// The scenarios of this program.
#[derive(Clone, Copy, Default)]
pub(crate) struct Registry;

impl Registry {
    /// By the name of the function, or by its path.
    pub(crate) fn get(self, name: &str) -> Result<&'static Registered, NoScenario> {
        find(&SCENARIOS, name)
    }

    /// The shortest that each can be asked for by, in order.
    pub(crate) fn names(self) -> Vec<String> {
        names(&SCENARIOS)
    }

    /// The shortest that a scenario can be asked for by: what nodes tell each other.
    pub(crate) fn name_of(self, scenario: &Registered) -> String {
        shortest(&SCENARIOS, scenario)
    }

    pub(crate) fn all(self) -> impl Iterator<Item = &'static Registered> {
        SCENARIOS.iter()
    }
}

impl Registered {
    fn path(&self) -> String {
        format!("{}::{}", self.module, self.name)
    }
}

fn find<'a>(all: &'a [Registered], name: &str) -> Result<&'a Registered, NoScenario> {
    let mut matching: Vec<_> = all.iter().filter(|scenario| scenario.name == name).collect();
    if matching.is_empty() {
        matching = all.iter().filter(|scenario| scenario.path() == name).collect();
    }
    let mut paths: Vec<_> = matching.iter().map(|scenario| scenario.path()).collect();
    paths.sort_unstable();
    paths.dedup();
    match (&matching[..], &paths[..]) {
        ([], _) => {
            let known = names(all);
            Err(NoScenario::Unknown {
                name: name.to_owned(),
                similar: similar(name, &known),
                known,
            })
        }
        ([scenario], _) => Ok(scenario),
        // Functions in different blocks of one module.
        (_, [path]) => Err(NoScenario::Same { path: path.clone(), count: matching.len() }),
        _ => Err(NoScenario::Ambiguous { name: name.to_owned(), paths }),
    }
}

fn shortest(all: &[Registered], scenario: &Registered) -> String {
    match all.iter().filter(|other| other.name == scenario.name).count() {
        1 => scenario.name.to_owned(),
        _ => scenario.path(),
    }
}

fn names(all: &[Registered]) -> Vec<String> {
    let mut names: Vec<_> = all.iter().map(|scenario| shortest(all, scenario)).collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// The one of `known` that was probably meant: that is fewest changes of a character away, for a
/// third of its characters at most. Of paths, the last part alone may be meant.
fn similar(name: &str, known: &[String]) -> Option<String> {
    let length = name.chars().count();
    let changes = |to: &str| {
        let to_length = to.chars().count();
        // Requests may have names of any length. Those are not compared.
        let may_be = length.abs_diff(to_length) <= to_length / 3;
        may_be.then(|| distance(name, to)).filter(|changes| *changes <= to_length / 3)
    };
    let nearest = known.iter().filter_map(|known| {
        let last = known.rsplit("::").next().unwrap_or(known);
        let fewest = [known, last].into_iter().filter_map(changes).min()?;
        Some((fewest, known))
    });
    nearest.min().map(|(_, known)| known.clone())
}

/// How many characters have to be added, removed, replaced, or swapped with the next, to make one of
/// the other, in upper or lower case.
fn distance(a: &str, b: &str) -> usize {
    let [a, b] = [a, b].map(|text| text.to_lowercase().chars().collect::<Vec<_>>());
    // Row `i` has the distances of the first `i` characters of `a` to the beginnings of `b`.
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    rows[0] = (0..=b.len()).collect();
    for i in 1..=a.len() {
        rows[i][0] = i;
        for j in 1..=b.len() {
            let replaced = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut fewest = replaced.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                fewest = fewest.min(rows[i - 2][j - 2] + 1);
            }
            rows[i][j] = fewest;
        }
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn scenario(module: &'static str, name: &'static str) -> Registered {
        Registered { name, module, parameters: &[], make: |_| Err(String::new()) }
    }

    const ALL: [Registered; 6] = [
        scenario("shop", "browse"),
        scenario("shop::cart", "checkout"),
        scenario("shop::admin", "login"),
        scenario("shop", "login"),
        scenario("shop::user", "run"),
        scenario("shop::user", "run"),
    ];

    fn message(all: &[Registered], name: &str) -> String {
        find(all, name).expect_err("no scenario").to_string()
    }

    #[test]
    fn a_name_or_a_path_finds_a_scenario() {
        for (name, path) in [
            ("browse", "shop::browse"),
            ("shop::browse", "shop::browse"),
            ("checkout", "shop::cart::checkout"),
            ("shop::login", "shop::login"),
            ("shop::admin::login", "shop::admin::login"),
        ] {
            assert_eq!(find(&ALL, name).expect("one").path(), path);
        }
        let listed = ["browse", "checkout", "shop::admin::login", "shop::login", "shop::user::run"];
        assert_eq!(names(&ALL), listed);
    }

    #[test]
    fn a_name_of_several_has_to_be_said_in_full() {
        assert_eq!(
            message(&ALL, "login"),
            "there are several scenarios `login`; say which: shop::admin::login, shop::login"
        );
    }

    #[test]
    fn scenarios_that_nothing_tells_apart_are_reported() {
        for name in ["run", "shop::user::run"] {
            let expected = "2 scenarios are `shop::user::run`, and no name tells them apart";
            assert!(message(&ALL, name).starts_with(expected));
        }
    }

    #[test]
    fn an_unknown_name_is_answered_with_the_known_ones_and_the_nearest() {
        let known = "there are: browse, checkout, shop::admin::login, shop::login, shop::user::run";
        for (name, similar) in [
            ("brows", Some("browse")),
            ("Check-Out", Some("checkout")),
            ("rbowse", Some("browse")),
            ("logn", Some("shop::admin::login")),
            ("shop::logni", Some("shop::login")),
            ("search", None),
            ("", None),
        ] {
            let similar = similar.map_or(String::new(), |one| format!("; was `{one}` meant?"));
            let expected = format!("there is no scenario `{name}`; {known}{similar}");
            assert_eq!(message(&ALL, name), expected);
        }
        assert_eq!(similar(&"browse".repeat(1 << 13), &names(&ALL)), None);
        assert!(
            message(&[], "a")
                .ends_with("this program has none, mark an `async fn` with `#[scenario]`")
        );
    }

    #[test]
    fn distances_count_the_fewest_changes() {
        for (a, b, expected) in [
            ("", "", 0),
            ("", "abc", 3),
            ("kitten", "sitting", 3),
            ("ÄB", "äb", 0),
            ("idel", "idle", 1),
        ] {
            assert_eq!((distance(a, b), distance(b, a)), (expected, expected), "{a} {b}");
        }
    }
}
