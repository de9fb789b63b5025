//! Numbers that may also be strings, as the original guide's example has them.

use serde::de::{Error, Unexpected};
use serde::{Deserialize, Deserializer};

/// What a number is made of.
#[derive(Deserialize)]
#[serde(untagged)]
enum Given {
    Number(f64),
    Text(String),
}

/// Numbers that a request has.
pub(super) trait Number: Sized {
    const EXPECTED: &'static str;
    fn of(number: f64) -> Option<Self>;
}

impl Number for f64 {
    const EXPECTED: &'static str = "a number";
    fn of(number: f64) -> Option<Self> {
        number.is_finite().then_some(number)
    }
}

impl Number for u32 {
    const EXPECTED: &'static str = "a whole number from 0 to 4294967295";
    fn of(number: f64) -> Option<Self> {
        let is_whole = number.fract() == 0.0 && (0.0..=f64::from(u32::MAX)).contains(&number);
        is_whole.then_some(number as u32)
    }
}

fn number<N: Number, E: Error>(given: Given) -> Result<N, E> {
    let number = match &given {
        Given::Number(number) => N::of(*number),
        Given::Text(text) => text.trim().parse().ok().and_then(N::of),
    };
    number.ok_or_else(|| match &given {
        Given::Number(number) => E::invalid_value(Unexpected::Float(*number), &N::EXPECTED),
        Given::Text(text) => E::invalid_value(Unexpected::Str(text), &N::EXPECTED),
    })
}

/// For a field that has to be there.
pub(super) mod required {
    use serde::Serialize;

    use super::*;

    pub(in super::super) fn serialize<N: Serialize, S: serde::Serializer>(
        number: &N,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        number.serialize(serializer)
    }

    pub(in super::super) fn deserialize<'de, N: Number, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<N, D::Error> {
        number(Given::deserialize(deserializer)?)
    }
}

/// For a field that may be left out, or null.
pub(super) mod optional {
    use serde::Serialize;

    use super::*;

    pub(in super::super) fn serialize<N: Serialize, S: serde::Serializer>(
        number: &Option<N>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        number.serialize(serializer)
    }

    pub(in super::super) fn deserialize<'de, N: Number, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<N>, D::Error> {
        Option::<Given>::deserialize(deserializer)?.map(number).transpose()
    }
}
