//! `#[scenario]`: an `async fn` becomes a plain one that returns a `Scenario`.
//!
//! ```text
//! async fn name(a: A, (b, _): (B, C)) { body }
//!
//! fn name(a: A, __arg1: (B, C)) -> Scenario {
//!     use __private::scenario as __scenario;
//!     __scenario("name", (a, __arg1), |__args| async move {
//!         let __args = __args;
//!         let (a, (b, _)) = __args;
//!         if false { return; }
//!         { body }
//!     })
//! }
//! ```
//!
//! The arguments travel as one tuple and the closure captures nothing, so it is a plain function
//! pointer, the same for all instances. The patterns are bound inside the future, as in a real
//! `async fn`: an argument that the body never mentions still lives as long as the instance.

mod check;
mod registration;

use check::check;
use proc_macro2::{Ident, Span, TokenStream};
use quote::{format_ident, quote, quote_spanned};
use registration::{has_single_form, registered};
use syn::ext::IdentExt as _;
use syn::{Attribute, FnArg, Pat, ReturnType, Signature, Type};

use crate::item::{Body, FnItem};

/// Expands `#[scenario(args)] item`, with `krate` the path of the facade. If it `registers`,
/// scenarios can be named by requests.
///
/// On errors a function of the right type still comes out, with nothing in it, so that callers
/// who configure and await the scenario are not complained about as well.
pub(crate) fn expand(
    krate: &TokenStream,
    registers: bool,
    args: TokenStream,
    item: TokenStream,
) -> TokenStream {
    let function = match FnItem::parse("scenario", item.clone()) {
        Ok(function) => function,
        Err(error) => {
            let error = error.into_compile_error();
            return quote!(#error #item);
        }
    };
    let is_unregistered = args.to_string() == "unregistered";
    let args = if is_unregistered { TokenStream::new() } else { args };
    match check(&args, &function.sig).into_compile_errors() {
        None if registers && !is_unregistered && has_single_form(&function) => {
            registered(krate, function)
        }
        None => builder(krate, function),
        Some(errors) => {
            let placeholder = placeholder(krate, function);
            quote!(#errors #placeholder)
        }
    }
}

/// The function that makes the scenario.
fn builder(krate: &TokenStream, function: FnItem) -> TokenStream {
    let FnItem { attrs, vis, mut sig, body } = function;
    let name = sig.ident.unraw().to_string();
    let arguments = take_arguments(&mut sig);
    let built = built(krate, &sig, &name, &arguments, &body);
    sig.asyncness = None;
    sig.output = scenario_type(krate);
    quote_spanned! {Span::mixed_site()=>
        #(#attrs)*
        #vis #sig {
            #built
        }
    }
}

/// What makes the scenario, as the statements of a function with the parameters of `arguments`.
fn built(
    krate: &TokenStream,
    sig: &Signature,
    name: &str,
    arguments: &Arguments,
    body: &Body,
) -> TokenStream {
    let Arguments { parameters, patterns, lints } = arguments;
    // When the tuple is not `Clone` or not `Send`, the compiler blames the callee: give it the
    // place of the parameter list.
    let call = Ident::new("__scenario", sig.paren_token.span.join());
    let (received, binding) = if patterns.is_empty() {
        (quote!(()), TokenStream::new())
    } else {
        let bound = quote_spanned! {Span::mixed_site()=>
            // Moves all of the tuple in. What the patterns leave unbound stays in it, and is
            // dropped after the body.
            let __args = __args;
            #(#lints)*
            let (#(#patterns,)*) = __args;
        };
        (quote_spanned!(Span::mixed_site()=> __args), bound)
    };
    quote_spanned! {Span::mixed_site()=>
        use #krate::__private::scenario as __scenario;
        #call(#name, (#(#parameters,)*), |#received| async move {
            #binding
            // Settles the type of the future's output before the body is looked at, so that
            // a mismatch is reported at the line that caused it.
            if false {
                return;
            }
            #body
        })
    }
}

/// A scenario's arguments, taken out of its signature.
#[derive(Default)]
struct Arguments {
    /// What the builder function calls them.
    parameters: Vec<Ident>,
    /// What the body calls them.
    patterns: Vec<Pat>,
    /// Lint levels set on any of them; they belong where the patterns are.
    lints: Vec<Attribute>,
}

/// Replaces each pattern in `sig` by a plain name and returns what was there.
fn take_arguments(sig: &mut Signature) -> Arguments {
    let mut arguments = Arguments::default();
    for (index, input) in sig.inputs.iter_mut().enumerate() {
        let FnArg::Typed(input) = input else {
            continue; // `check` has refused it
        };
        let parameter = parameter(index, &input.pat);
        let (lints, others): (Vec<_>, Vec<_>) =
            std::mem::take(&mut input.attrs).into_iter().partition(is_lint_level);
        input.attrs = others;
        let pattern = std::mem::replace(&mut *input.pat, Pat::Verbatim(quote!(#parameter)));
        arguments.parameters.push(parameter);
        arguments.patterns.push(pattern);
        arguments.lints.extend(lints);
    }
    arguments
}

/// A name for the argument at `index`: for the documentation's sake the user's own, if there is one.
///
/// Its hygiene is that of the macro, so that the body sees its own binding alone and lints about
/// names do not see this one.
fn parameter(index: usize, pattern: &Pat) -> Ident {
    match pattern {
        Pat::Ident(pattern) if pattern.by_ref.is_none() && pattern.subpat.is_none() => {
            let mut parameter = pattern.ident.clone();
            parameter.set_span(pattern.ident.span().resolved_at(Span::mixed_site()));
            parameter
        }
        _ => format_ident!("__arg{index}", span = Span::mixed_site()),
    }
}

fn is_lint_level(attr: &Attribute) -> bool {
    ["allow", "expect", "warn", "deny", "forbid"].iter().any(|level| attr.path().is_ident(level))
}

fn scenario_type(krate: &TokenStream) -> ReturnType {
    ReturnType::Type(Default::default(), Box::new(Type::Verbatim(quote!(#krate::Scenario))))
}

/// The function with the type its callers expect and no body.
fn placeholder(krate: &TokenStream, function: FnItem) -> TokenStream {
    let FnItem { attrs, vis, mut sig, .. } = function;
    sig.constness = None;
    sig.asyncness = None;
    sig.unsafety = None;
    sig.abi = None;
    sig.output = scenario_type(krate);
    quote! {
        #(#attrs)*
        // It has no body that could use its arguments, and the errors above are complaint enough.
        #[allow(unused)]
        #vis #sig {
            ::core::unreachable!()
        }
    }
}

#[cfg(test)]
mod tests {
    use syn::Item;

    use super::*;
    use crate::item::testing::file;

    pub(super) fn expand_plain(item: TokenStream) -> TokenStream {
        expand(&quote!(::facade), false, TokenStream::new(), item)
    }

    fn assert_expands(item: TokenStream, expected: TokenStream) {
        assert_eq!(expand_plain(item).to_string(), expected.to_string());
    }

    #[test]
    fn without_arguments_the_unit_is_handed_on() {
        assert_expands(
            quote! {
                async fn idle() {
                    rest().await;
                }
            },
            quote! {
                fn idle() -> ::facade::Scenario {
                    use ::facade::__private::scenario as __scenario;
                    __scenario("idle", (), |()| async move {
                        if false {
                            return;
                        }
                        {
                            rest().await;
                        }
                    })
                }
            },
        );
    }

    #[test]
    fn arguments_travel_as_a_tuple_and_patterns_are_bound_inside() {
        assert_expands(
            quote! {
                /// Docs.
                #[must_use]
                pub(crate) async fn r#match<T>(mut a: T, (b, _): (u8, u8), _: u16) -> ()
                where
                    T: Clone
                {
                    a.go(b)
                }
            },
            quote! {
                /// Docs.
                #[must_use]
                pub(crate) fn r#match<T>(
                    a: T,
                    __arg1: (u8, u8),
                    __arg2: u16
                ) -> ::facade::Scenario
                where
                    T: Clone
                {
                    use ::facade::__private::scenario as __scenario;
                    __scenario(
                        "match",
                        (a, __arg1, __arg2,),
                        |__args| async move {
                            let __args = __args;
                            let (mut a, (b, _), _,) = __args;
                            if false {
                                return;
                            }
                            { a.go(b) }
                        }
                    )
                }
            },
        );
    }

    #[test]
    fn lint_levels_on_an_argument_follow_the_patterns() {
        let expansion = expand_plain(quote! {
            async fn f(#[allow(unused)] a: u8) {}
        })
        .to_string();
        let binding = quote!(#[allow(unused)] let (a,) = __args;).to_string();
        assert!(expansion.contains(&binding), "{expansion}");
        assert_eq!(expansion.matches("unused").count(), 1, "{expansion}");
    }

    #[test]
    fn a_refused_function_keeps_the_type_its_callers_expect() {
        let file = file(expand_plain(quote!(
            pub fn f(a: u8) -> u8 {
                a
            }
        )));
        let Some(Item::Fn(function)) = file.items.last() else {
            panic!("the last item is the function");
        };
        let sig = &function.sig;
        assert_eq!(quote!(#sig).to_string(), quote!(fn f(a: u8) -> ::facade::Scenario).to_string());
    }
}
