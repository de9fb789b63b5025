//! What a scenario may not be. All complaints come at once.

use proc_macro2::TokenStream;
use quote::quote;
use syn::visit::{self, Visit};
use syn::{FnArg, GenericParam, Lifetime, ReturnType, Signature, TraitBound};

use crate::item::{Errors, is_unit};

const NOT_OWNED: &str = "scenario arguments are cloned for every instance, so they must be owned: \
                         use `String` in place of `&str`, `Arc<T>` in place of `&T`, or a \
                         `&'static` reference";

pub(super) fn check(args: &TokenStream, sig: &Signature) -> Errors {
    let mut errors = Errors::default();
    if !args.is_empty() {
        errors.push(
            args,
            format_args!(
                "`#[scenario]` takes no arguments but `unregistered`: configure the run where it is \
                 started, as in `{}(…).tps(100)`",
                sig.ident
            ),
        );
    }
    check_qualifiers(sig, &mut errors);
    check_generics(sig, &mut errors);
    for input in &sig.inputs {
        check_input(input, &mut errors);
    }
    check_output(&sig.output, &mut errors);
    errors
}

fn check_qualifiers(sig: &Signature, errors: &mut Errors) {
    if sig.asyncness.is_none() {
        let (fn_token, ident) = (&sig.fn_token, &sig.ident);
        errors.push(quote!(#fn_token #ident), "a scenario must be an `async fn`");
    }
    if let Some(constness) = &sig.constness {
        errors.push(constness, "a scenario cannot be `const`");
    }
    if let Some(unsafety) = &sig.unsafety {
        errors.push(unsafety, "a scenario cannot be `unsafe`: it is called by safe code");
    }
    if let Some(abi) = &sig.abi {
        errors.push(abi, "a scenario cannot be `extern`: it has the Rust calling convention");
    }
}

fn check_generics(sig: &Signature, errors: &mut Errors) {
    for param in &sig.generics.params {
        if let GenericParam::Lifetime(param) = param {
            errors.push(
                param,
                "a scenario cannot have lifetime parameters: its instances outlive the call that \
                 creates them, so its arguments must be owned",
            );
        }
    }
}

fn check_input(input: &FnArg, errors: &mut Errors) {
    match input {
        FnArg::Receiver(receiver) => errors.push(
            receiver,
            "a scenario cannot be a method: take what it needs as an argument, such as an \
             `Arc<Self>`",
        ),
        FnArg::Typed(input) => {
            for attr in &input.attrs {
                if attr.path().is_ident("cfg") || attr.path().is_ident("cfg_attr") {
                    errors.push(
                        attr,
                        "a scenario's arguments cannot be conditional: write two scenarios, each \
                         under its own `#[cfg]`",
                    );
                }
            }
            ArgumentType { errors }.visit_type(&input.ty);
        }
    }
}

fn check_output(output: &ReturnType, errors: &mut Errors) {
    let ReturnType::Type(_, ty) = output else {
        return;
    };
    if !is_unit(ty) {
        errors.push(
            ty,
            "a scenario returns nothing: remove the return type, and return the `Result` from a \
             `#[transaction]`, where its failures are counted",
        );
    }
}

/// Finds what an argument's type may not contain.
///
/// Lifetimes that belong to a function type (`fn(&str)`, `Box<dyn Fn(&str)>`, `dyn for<'a> …`) say
/// nothing about what the argument borrows and are passed over.
struct ArgumentType<'a> {
    errors: &'a mut Errors,
}

impl<'ast> Visit<'ast> for ArgumentType<'_> {
    fn visit_type_reference(&mut self, reference: &'ast syn::TypeReference) {
        if reference.lifetime.as_ref().is_some_and(is_static) {
            visit::visit_type(self, &reference.elem);
        } else {
            self.errors.push(reference, NOT_OWNED);
        }
    }

    fn visit_lifetime(&mut self, lifetime: &'ast Lifetime) {
        if !is_static(lifetime) {
            self.errors.push(lifetime, NOT_OWNED);
        }
    }

    fn visit_type_impl_trait(&mut self, ty: &'ast syn::TypeImplTrait) {
        self.errors.push(
            ty,
            "a scenario's arguments need types with a name: declare a type parameter with these \
             bounds and `Clone + Send + 'static`, and use it here",
        );
    }

    fn visit_type_bare_fn(&mut self, _: &'ast syn::TypeBareFn) {}

    fn visit_parenthesized_generic_arguments(
        &mut self,
        _: &'ast syn::ParenthesizedGenericArguments,
    ) {
    }

    fn visit_trait_bound(&mut self, bound: &'ast TraitBound) {
        if bound.lifetimes.is_none() {
            visit::visit_trait_bound(self, bound);
        }
    }
}

fn is_static(lifetime: &Lifetime) -> bool {
    lifetime.ident == "static"
}

#[cfg(test)]
mod tests {
    use quote::quote;

    use super::super::expand;
    use super::super::tests::expand_plain;
    use super::*;
    use crate::item::testing::messages;

    fn assert_refused(item: TokenStream, expected: &[&str]) {
        let messages = messages(expand_plain(item));
        assert_eq!(messages.len(), expected.len(), "{messages:#?}");
        for (message, expected) in messages.iter().zip(expected) {
            assert!(message.contains(expected), "{message:?} lacks {expected:?}");
        }
    }

    #[test]
    fn attribute_arguments_are_refused() {
        let expansion = expand(
            &quote!(::facade),
            false,
            quote!(tps = 3),
            quote!(
                async fn f() {}
            ),
        );
        let messages = messages(expansion);
        assert_eq!(messages.len(), 1);
        assert!(messages[0].contains("takes no arguments but"), "{messages:?}");
    }

    #[test]
    fn only_an_async_fn_will_do() {
        assert_refused(
            quote!(
                fn f() {}
            ),
            &["a scenario must be an `async fn`"],
        );
        assert_refused(
            quote!(
                struct S;
            ),
            &["can only be put on an `async fn`"],
        );
    }

    #[test]
    fn qualifiers_are_refused_one_by_one() {
        assert_refused(
            quote!(
                const unsafe extern "C" fn f() {}
            ),
            &["must be an `async fn`", "`const`", "`unsafe`", "`extern`"],
        );
    }

    #[test]
    fn receivers_are_refused() {
        for receiver in [quote!(self), quote!(&self), quote!(&mut self), quote!(self: Arc<Self>)] {
            assert_refused(quote!(async fn f(#receiver) {}), &["cannot be a method"]);
        }
    }

    #[test]
    fn only_the_unit_may_be_returned() {
        for ty in [quote!(u8), quote!(Result<(), E>), quote!(!), quote!(((),))] {
            assert_refused(quote!(async fn f() -> #ty {}), &["a scenario returns nothing"]);
        }
        assert_refused(
            quote!(
                async fn f() -> () {}
            ),
            &[],
        );
    }

    #[test]
    fn borrowed_arguments_are_refused() {
        for ty in [
            quote!(&str),
            quote!(&mut u8),
            quote!(Option<&u8>),
            quote!(Cow<'_, str>),
            quote!(&'static [&str]),
            quote!(Box<dyn Any + '_>),
        ] {
            assert_refused(quote!(async fn f(a: #ty) {}), &["they must be owned"]);
        }
        assert_refused(
            quote!(
                async fn f<'a>(a: &'a str) {}
            ),
            &["lifetime parameters", "they must be owned"],
        );
    }

    #[test]
    fn lifetimes_that_borrow_nothing_are_accepted() {
        for ty in [
            quote!(&'static str),
            quote!(Cow<'static, [&'static str]>),
            quote!(fn(&str) -> &str),
            quote!(Arc<dyn Fn(&str) + Send + Sync>),
            quote!(Arc<dyn for<'a> Visit<'a> + 'static>),
        ] {
            assert_refused(quote!(async fn f(a: #ty) {}), &[]);
        }
    }

    #[test]
    fn unnamed_and_conditional_arguments_are_refused() {
        assert_refused(
            quote!(
                async fn f(a: impl Clone) {}
            ),
            &["need types with a name"],
        );
        assert_refused(
            quote!(
                async fn f(#[cfg(x)] a: u8) {}
            ),
            &["cannot be conditional"],
        );
    }

    #[test]
    fn all_complaints_come_at_once() {
        assert_refused(
            quote!(
                fn f(a: &str, b: impl Clone) -> u8 {
                    0
                }
            ),
            &["`async fn`", "owned", "types with a name", "returns nothing"],
        );
    }
}
