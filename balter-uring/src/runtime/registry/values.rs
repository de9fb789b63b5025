//! The arguments of a scenario, from the JSON of a request.

use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::{Error as _, Visitor, value};
use serde_json::Value;

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
        let given = match given {
            None | Some(Value::Null) => Given::InOrder(&[]),
            Some(Value::Array(values)) => Given::InOrder(values),
            Some(Value::Object(values)) => Given::ByName(values),
            Some(_) => {
                let expected = expected(names);
                return Err(format!("`args` is neither an array nor an object; {expected}"));
            }
        };
        match &given {
            // Optional ones at the end may be left out.
            Given::InOrder(values) if values.len() > names.len() => {
                return Err(format!("{} arguments were given; {}", values.len(), expected(names)));
            }
            Given::ByName(values) => {
                let unknown =
                    values.keys().find(|key| key.is_empty() || !names.contains(&key.as_str()));
                if let Some(unknown) = unknown {
                    return Err(format!("there is no argument `{unknown}`; {}", expected(names)));
                }
            }
            Given::InOrder(_) => {}
        }
        Ok(Self { names, given, next: 0 })
    }

    fn expected(&self) -> String {
        expected(self.names)
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
            "the scenario takes arguments that cannot be given as JSON: {shown} is of the type \
             {kind}, which has no `serde::Deserialize` or holds references. Give it another type, \
             or write a scenario without it that calls this one's transactions"
        ))
    }
}

fn expected(names: &[&str]) -> String {
    let list = names.iter().map(|&name| if name.is_empty() { "_" } else { name });
    match names {
        [] => "the scenario takes none".to_owned(),
        _ => format!("the scenario takes ({})", list.collect::<Vec<_>>().join(", ")),
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

/// `Deserialize<'static>`, not `DeserializeOwned`: lifetimes do not count when the compiler chooses
/// between this and [`NotFromJson`], so types that hold references come here too, and have to
/// compile. At run time they find nothing to refer to: the value is a copy that lends nothing.
impl<T: Deserialize<'static>> FromJson<T> for Argument<T> {
    fn take(&self, arguments: &mut Arguments<'_>) -> Result<T, String> {
        let (shown, value) = arguments.next();
        match value {
            Some(value) => T::deserialize(value.clone())
                .map_err(|error| format!("the argument {shown} does not fit: {error}")),
            None => T::deserialize(LeftOut)
                .map_err(|_| format!("the argument {shown} is missing; {}", arguments.expected())),
        }
    }
}

/// What stands for an argument that was left out: only an `Option` can be made of it.
struct LeftOut;

impl<'de> serde::Deserializer<'de> for LeftOut {
    type Error = value::Error;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Self::Error> {
        Err(Self::Error::custom("missing"))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
        visitor.visit_none()
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit
        unit_struct newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_option_can_be_left_out() {
        fn take<T: Deserialize<'static>>() -> Result<T, String> {
            let mut empty = Arguments::new(&["it"], None).expect("they fit");
            FromJson::take(&Argument::<T>::NEW, &mut empty)
        }
        assert_eq!(take::<Option<u8>>(), Ok(None));
        let missing = "the argument `it` is missing; the scenario takes (it)";
        assert_eq!(take::<u8>(), Err(missing.to_owned()));
        // These could be made of `null`.
        assert_eq!(take::<Value>(), Err(missing.to_owned()));
        assert_eq!(take::<()>(), Err(missing.to_owned()));
    }
}
