//! Whether the output of a transaction is a failure, decided for types the macro cannot see.
//!
//! `#[transaction]` knows the return type as tokens only: `io::Result<()>` may be any type, and a
//! plain `T` has to work. So the expansion asks the compiler, which resolves this call by what it
//! knows of the type:
//!
//! ```text
//! use ::balter_uring::__private::outcome::*;
//! (&Probe(output)).__balter_failed()
//! ```
//!
//! The receiver is a `&Probe<T>`. Method lookup first tries methods that take exactly that, which
//! [`Fallible`] has, for [`Result`] and [`Option`]; then those that take one more reference, which
//! [`Infallible`] has, for every type. This is known as autoref-based specialisation and needs no
//! unstable feature. Aliases have been seen through by then. Inside a generic function a type
//! parameter counts as what it is there, a type of which nothing is known: its values succeed
//! even if the caller chose a `Result`. `Result<T, E>` with parameters inside is a `Result`.
//!
//! The method has a name that nobody else uses, since a method of that name in a user's blanket
//! implementation would make the call ambiguous.

/// The output of a transaction, wrapped so that only this module's traits apply to it.
#[derive(Debug)]
pub struct Probe<'a, T>(pub &'a T);

/// Types of which some values are failures.
pub trait Fallible {
    /// `true` when the probed value is a failure.
    fn __balter_failed(&self) -> bool;
}

impl<T, E> Fallible for Probe<'_, Result<T, E>> {
    #[inline]
    fn __balter_failed(&self) -> bool {
        self.0.is_err()
    }
}

impl<T> Fallible for Probe<'_, Option<T>> {
    #[inline]
    fn __balter_failed(&self) -> bool {
        self.0.is_none()
    }
}

/// All types; asked only when [`Fallible`] does not apply, because it takes one reference more.
pub trait Infallible {
    /// `false`.
    fn __balter_failed(&self) -> bool;
}

impl<T> Infallible for &Probe<'_, T> {
    #[inline]
    fn __balter_failed(&self) -> bool {
        false
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
            (&Probe(&$value)).__balter_failed()
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
