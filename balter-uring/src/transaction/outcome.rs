//! Whether the output of a transaction is a failure, and of what kind, decided for types the macro cannot see.
//!
//! `#[transaction]` knows the return type as tokens only: `io::Result<()>` may be any type, and a
//! plain `T` has to work. So the expansion asks the compiler, which resolves this call by what it
//! knows of the type:
//!
//! ```text
//! use ::balter_uring::__private::outcome::*;
//! (&&&&&Probe(output)).__balter_judged()
//! ```
//!
//! The receiver is a `&&&&&Probe<T>`. Method lookup first tries methods that take exactly that, which
//! [`WithError`] has, for a [`Result`] whose error implements [`Error`]; then it takes one reference
//! away at a time: [`WithDisplay`], [`WithDebug`], [`Fallible`] for every [`Result`] and [`Option`],
//! and in the end [`Infallible`], for every type. This is known as autoref-based specialisation and
//! needs no unstable feature. Aliases have been seen through by then. Inside a generic function a
//! type parameter counts as what it is there, a type of which only its bounds are known: its values
//! succeed even if the caller chose a `Result`. `Result<T, E>` with parameters inside is a `Result`.
//!
//! The method has a name that nobody else uses, since a method of that name in a user's blanket
//! implementation would make the call ambiguous.

use std::error::Error;
use std::fmt::{Debug, Display};

/// The output of a transaction, wrapped so that only this module's traits apply to it.
#[derive(Debug)]
pub struct Probe<'a, T>(pub &'a T);

/// What is known of a failed transaction's error. Nothing is written until somebody wants the text.
#[derive(Clone, Copy, Debug)]
pub enum Described<'a> {
    /// An error, with those that caused it.
    Error(&'a (dyn Error + 'a)),
    /// A value that can be shown. The reference is no `dyn Debug`.
    Display(Shown<'a>),
    /// A value that only a programmer can read.
    Debug(&'a (dyn Debug + 'a)),
    /// There is a fixed text for it; empty if nothing is known.
    Plain(&'static str),
}

/// A value with [`Display`] alone.
#[derive(Clone, Copy)]
pub struct Shown<'a>(pub &'a (dyn Display + 'a));

impl Debug for Shown<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// `None` for a success.
pub type Judged<'a> = Option<Described<'a>>;

/// Results whose error implements [`Error`].
pub trait WithError<'a> {
    /// The error of a probed value that is a failure.
    fn __balter_judged(&self) -> Judged<'a>;
}

impl<'a, T, E: Error> WithError<'a> for &&&&Probe<'a, Result<T, E>> {
    #[inline]
    fn __balter_judged(&self) -> Judged<'a> {
        self.0.as_ref().err().map(|error| Described::Error(error))
    }
}

/// Results whose error can be displayed.
pub trait WithDisplay<'a> {
    /// The error of a probed value that is a failure.
    fn __balter_judged(&self) -> Judged<'a>;
}

impl<'a, T, E: Display> WithDisplay<'a> for &&&Probe<'a, Result<T, E>> {
    #[inline]
    fn __balter_judged(&self) -> Judged<'a> {
        self.0.as_ref().err().map(|error| Described::Display(Shown(error)))
    }
}

/// Results whose error implements [`Debug`] alone.
pub trait WithDebug<'a> {
    /// The error of a probed value that is a failure.
    fn __balter_judged(&self) -> Judged<'a>;
}

impl<'a, T, E: Debug> WithDebug<'a> for &&Probe<'a, Result<T, E>> {
    #[inline]
    fn __balter_judged(&self) -> Judged<'a> {
        self.0.as_ref().err().map(|error| Described::Debug(error))
    }
}

/// Types of which some values are failures, of which nothing more is known.
pub trait Fallible<'a> {
    /// `Some` when the probed value is a failure.
    fn __balter_judged(&self) -> Judged<'a>;
}

impl<'a, T, E> Fallible<'a> for &Probe<'a, Result<T, E>> {
    #[inline]
    fn __balter_judged(&self) -> Judged<'a> {
        self.0.is_err().then_some(Described::Plain(""))
    }
}

impl<'a, T> Fallible<'a> for &Probe<'a, Option<T>> {
    #[inline]
    fn __balter_judged(&self) -> Judged<'a> {
        self.0.is_none().then_some(Described::Plain("it returned `None`"))
    }
}

/// All types; asked only when none of the others applies.
pub trait Infallible<'a> {
    /// `None`.
    fn __balter_judged(&self) -> Judged<'a>;
}

impl<'a, T> Infallible<'a> for Probe<'a, T> {
    #[inline]
    fn __balter_judged(&self) -> Judged<'a> {
        None
    }
}

/// Stands for a value of `T` in a `return` that is never reached.
///
/// The expansion puts `if false { return returned::<Ret>(); }` before the user's body, which tells
/// the compiler the output type of an `async` block. A function rather than `loop {}`, because
/// code after that would be unreachable to the lint of this name.
///
/// # Panics
///
/// Always.
#[cold]
pub fn returned<T>() -> T {
    unreachable!("the macro calls this under `if false` alone")
}

#[cfg(test)]
mod tests {
    use super::*;

    macro_rules! failed {
        ($value:expr) => {
            (&&&&&Probe(&$value)).__balter_judged().is_some()
        };
    }

    #[test]
    fn err_and_none_are_failures() {
        assert!(failed!(Err::<u8, &str>("refused")));
        assert!(failed!(None::<u8>));
    }

    #[test]
    fn ok_and_some_are_successes_whatever_they_hold() {
        assert!(!failed!(Ok::<Option<u8>, ()>(None)));
        assert!(!failed!(Some(Err::<u8, u8>(1))));
    }

    #[test]
    fn other_types_always_succeed() {
        struct Opaque;
        assert!(!failed!(()));
        assert!(!failed!(false));
        assert!(!failed!(Opaque));
        assert!(!failed!(Box::new(Err::<u8, u8>(1))));
    }

    #[test]
    fn an_alias_is_its_type() {
        let output: std::io::Result<()> = Err(std::io::ErrorKind::TimedOut.into());
        assert!(failed!(output));
    }

    #[test]
    fn the_best_that_an_error_can_do_is_asked_of_it() {
        struct Mute;
        #[derive(Debug)]
        struct OfDebug;
        macro_rules! kind {
            ($error:expr) => {{
                let output = Err::<(), _>($error);
                match (&&&&&Probe(&output)).__balter_judged().expect("it is a failure") {
                    Described::Error(error) => format!("error {error}"),
                    Described::Display(Shown(shown)) => format!("display {shown}"),
                    Described::Debug(debug) => format!("debug {debug:?}"),
                    Described::Plain(text) => format!("plain {text}"),
                }
            }};
        }
        assert_eq!(kind!(std::fmt::Error), format!("error {}", std::fmt::Error));
        assert_eq!(kind!("refused"), "display refused");
        assert_eq!(kind!(Box::<dyn Error>::from("boxed")), "display boxed");
        assert_eq!(kind!(OfDebug), "debug OfDebug");
        assert_eq!(kind!(Mute), "plain ");
    }

    #[test]
    fn in_a_generic_function_only_the_written_shape_counts() {
        fn result<T, E>(output: Result<T, E>) -> bool {
            failed!(output)
        }
        fn opaque<T>(output: T) -> bool {
            failed!(output)
        }
        assert!(result(Err::<u8, _>(1)));
        assert!(!opaque(Err::<u8, _>(1)));
    }
}
