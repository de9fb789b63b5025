//! The scenarios of this program, by their names, and their arguments as JSON.

use std::marker::PhantomData;

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::Scenario;

/// A scenario that requests can name. `#[scenario]` registers one for each that has no type
/// parameters.
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

/// The arguments of a request, taken one by one in the order of the function's.
#[derive(Debug)]
pub struct Arguments<'a> {
    names: &'static [&'static str],
    given: Given<'a>,
    next: usize,
}

#[derive(Debug)]
enum Given<'a> {
    InOrder(&'a [Value]),
    ByName(&'a serde_json::Map<String, Value>),
}

impl<'a> Arguments<'a> {
    /// Of a function with arguments of these names.
    ///
    /// # Errors
    /// If they are of another number, or have other names.
    pub fn new(names: &'static [&'static str], given: Option<&'a Value>) -> Result<Self, String> {
        let list = || names.iter().map(|name| if name.is_empty() { "_" } else { name });
        let expected = || match names {
            [] => "the scenario takes none".to_owned(),
            _ => format!("the scenario takes ({})", list().collect::<Vec<_>>().join(", ")),
        };
        let given = match given {
            None | Some(Value::Null) => Given::InOrder(&[]),
            Some(Value::Array(values)) => Given::InOrder(values),
            Some(Value::Object(values)) => Given::ByName(values),
            Some(_) => {
                let expected = expected();
                return Err(format!("`args` is neither an array nor an object; {expected}"));
            }
        };
        match &given {
            // Optional ones at the end may be left out.
            Given::InOrder(values) if values.len() > names.len() => {
                return Err(format!("{} arguments were given; {}", values.len(), expected()));
            }
            Given::ByName(values) => {
                let unknown =
                    values.keys().find(|key| key.is_empty() || !names.contains(&key.as_str()));
                if let Some(unknown) = unknown {
                    return Err(format!("there is no argument `{unknown}`; {}", expected()));
                }
            }
            Given::InOrder(_) => {}
        }
        Ok(Self { names, given, next: 0 })
    }

    fn next(&mut self) -> (String, Option<&'a Value>) {
        let (index, name) = (self.next, self.names[self.next]);
        self.next += 1;
        let shown = match name {
            "" => format!("number {}", index + 1),
            name => format!("`{name}`"),
        };
        let value = match &self.given {
            Given::InOrder(values) => values.get(index),
            Given::ByName(values) => values.get(name).filter(|_| !name.is_empty()),
        };
        (shown, value)
    }

    /// An argument that cannot come as JSON.
    ///
    /// # Errors
    /// Always.
    pub fn opaque<T>(&mut self) -> Result<T, String> {
        let (shown, _) = self.next();
        let kind = std::any::type_name::<T>();
        Err(format!(
            "the argument {shown} is of the type {kind}, which cannot be made of JSON: give the \
             scenario another, or write one without it that calls this one's transactions"
        ))
    }
}

/// An argument of a type. What can be deserialized has [`FromJson`], everything has [`NotFromJson`];
/// a call through a reference finds the first of those that apply.
#[derive(Debug)]
pub struct Argument<T>(PhantomData<fn() -> T>);

impl<T> Argument<T> {
    /// There is nothing to it.
    pub const NEW: Self = Self(PhantomData);
}

/// For types that can be deserialized.
pub trait FromJson<T> {
    /// Takes the next argument.
    ///
    /// # Errors
    /// If there is none, or it is not of the type.
    fn take(&self, arguments: &mut Arguments<'_>) -> Result<T, String>;
}

impl<T: DeserializeOwned> FromJson<T> for Argument<T> {
    fn take(&self, arguments: &mut Arguments<'_>) -> Result<T, String> {
        let (shown, value) = arguments.next();
        match value {
            Some(value) => T::deserialize(value)
                .map_err(|error| format!("the argument {shown} does not fit: {error}")),
            // An `Option` that was left out.
            None => {
                T::deserialize(Value::Null).map_err(|_| format!("the argument {shown} is missing"))
            }
        }
    }
}

/// For all other types.
pub trait NotFromJson<T> {
    /// Takes the next argument.
    ///
    /// # Errors
    /// Always.
    fn take(&self, arguments: &mut Arguments<'_>) -> Result<T, String>;
}

impl<T> NotFromJson<T> for &Argument<T> {
    fn take(&self, arguments: &mut Arguments<'_>) -> Result<T, String> {
        arguments.opaque()
    }
}

/// Why a name stands for no scenario.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoScenario {
    #[error("there is no scenario `{name}`; there are: {}", known.join(", "))]
    Unknown { name: String, known: Vec<String> },
    #[error("there are several scenarios `{name}`; say which: {}", paths.join(", "))]
    Ambiguous { name: String, paths: Vec<String> },
}

/// The scenarios of this program.
#[derive(Clone, Copy, Default)]
pub(crate) struct Registry;

impl Registry {
    /// By the name of the function, or by its path.
    pub(crate) fn get(self, name: &str) -> Result<&'static Registered, NoScenario> {
        let named: Vec<_> = self.all().filter(|scenario| scenario.name == name).collect();
        match named[..] {
            [scenario] => Ok(scenario),
            [] => self
                .all()
                .find(|scenario| scenario.path() == name)
                .ok_or_else(|| NoScenario::Unknown { name: name.to_owned(), known: self.names() }),
            _ => Err(NoScenario::Ambiguous {
                name: name.to_owned(),
                paths: named.iter().map(|scenario| scenario.path()).collect(),
            }),
        }
    }

    /// The shortest that each can be asked for by, in order.
    pub(crate) fn names(self) -> Vec<String> {
        let mut names: Vec<_> = self.all().map(|scenario| self.name_of(scenario)).collect();
        names.sort_unstable();
        names
    }

    /// The shortest that a scenario can be asked for by: what nodes tell each other.
    pub(crate) fn name_of(self, scenario: &Registered) -> String {
        match self.all().filter(|other| other.name == scenario.name).count() {
            1 => scenario.name.to_owned(),
            _ => scenario.path(),
        }
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
