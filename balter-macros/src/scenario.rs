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
//! Under the feature `rt` the linker adds the scenario to those that a cluster's requests can name:
//!
//! ```text
//! #[allow(dead_code)]
//! fn name(a: A, __arg1: (B, C)) -> Scenario {
//!     fn __build(a: A, __arg1: (B, C)) -> Scenario { as above }
//!     __register_scenario! { __build "name" ("a" A, json) ("" (B, C), json) }
//!     __build(a, __arg1)
//! }
//! ```
//!
//! What is registered is a static, and it stands inside the function, the one place where it is
//! allowed in modules, functions and `impl` blocks alike. From there it cannot reach an associated
//! function, whose path begins with `Self`, but it can reach `__build`. An argument marked `opaque`
//! cannot come as JSON.
//!
//! The arguments travel as one tuple and the closure captures nothing, so it is a plain function
//! pointer, the same for all instances. The patterns are bound inside the future, as in a real
//! `async fn`: an argument that the body never mentions still lives as long as the instance.

use proc_macro2::{Ident, Span, TokenStream, TokenTree};
use quote::{format_ident, quote, quote_spanned};
use syn::ext::IdentExt as _;
use syn::visit::{self, Visit};
use syn::{
    Attribute, Block, Expr, FnArg, GenericParam, Item, Lifetime, Pat, ReturnType, Signature,
    TraitBound, Type,
};

use crate::item::{Body, Errors, FnItem, is_unit};

const NOT_OWNED: &str = "scenario arguments are cloned for every instance, so they must be owned: \
                         use `String` in place of `&str`, `Arc<T>` in place of `&T`, or a \
                         `&'static` reference";

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

/// The same, for a scenario that requests can name.
fn registered(krate: &TokenStream, function: FnItem) -> TokenStream {
    let FnItem { attrs, vis, mut sig, body } = function;
    let name = sig.ident.unraw().to_string();
    let described = described(&sig);
    let arguments = take_arguments(&mut sig);
    let built = built(krate, &sig, &name, &arguments, &body);
    let parameters = &arguments.parameters;
    let types = sig.inputs.iter().filter_map(|input| match input {
        FnArg::Typed(input) => Some(&input.ty),
        FnArg::Receiver(_) => None,
    });
    let scenario = quote!(#krate::Scenario);
    let body = quote_spanned! {Span::mixed_site()=>
        fn __build(#(#parameters: #types),*) -> #scenario {
            #built
        }
        #krate::__register_scenario! { __build #name #described }
        __build(#(#parameters),*)
    };
    sig.asyncness = None;
    sig.output = scenario_type(krate);
    quote_spanned! {Span::mixed_site()=>
        #(#attrs)*
        // Requests may be all that ever calls for it.
        #[allow(dead_code)]
        #vis #sig {
            #body
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

/// Whether the scenario is the same wherever it is called from, so that a request can mean it: it
/// has no type parameters and does not mention `Self`.
fn has_single_form(function: &FnItem) -> bool {
    let FnItem { sig, body, .. } = function;
    if !sig.generics.params.is_empty() || mentions_self(quote!(#sig)) {
        return false;
    }
    // Most bodies have no `Self` at all and need not be parsed.
    let body = quote!(#body);
    !mentions_self(body.clone())
        || syn::parse2::<Block>(body).is_ok_and(|body| {
            let mut finder = SelfFinder(false);
            finder.visit_block(&body);
            !finder.0
        })
}

fn mentions_self(tokens: TokenStream) -> bool {
    tokens.into_iter().any(|token| match token {
        TokenTree::Ident(ident) => ident == "Self",
        TokenTree::Group(group) => mentions_self(group.stream()),
        TokenTree::Punct(_) | TokenTree::Literal(_) => false,
    })
}

/// Finds the `Self` of the `impl` block around a body. Items inside the body have one of their own.
struct SelfFinder(bool);

impl<'ast> Visit<'ast> for SelfFinder {
    fn visit_ident(&mut self, ident: &'ast Ident) {
        self.0 |= ident == "Self";
    }

    fn visit_macro(&mut self, mac: &'ast syn::Macro) {
        self.0 |= mentions_self(mac.tokens.clone());
    }

    fn visit_item(&mut self, item: &'ast Item) {
        match item {
            Item::Macro(item) => self.visit_macro(&item.mac),
            // Syntax that this version of syn has not learned yet.
            Item::Verbatim(tokens) => self.0 |= mentions_self(tokens.clone()),
            _ => {}
        }
    }

    fn visit_expr(&mut self, expr: &'ast Expr) {
        match expr {
            Expr::Verbatim(tokens) => self.0 |= mentions_self(tokens.clone()),
            _ => visit::visit_expr(self, expr),
        }
    }
}

/// The arguments as `__register_scenario!` takes them: name, type, and whether it can come as JSON.
fn described(sig: &Signature) -> TokenStream {
    let arguments = sig.inputs.iter().filter_map(|input| match input {
        FnArg::Typed(input) => {
            let (ty, name) = (&input.ty, argument_name(&input.pat));
            let mut finder = ReferenceFinder(false);
            finder.visit_type(ty);
            // A `&'static str` can be deserialized, but only of JSON that lives forever. What this
            // does not see, behind a type's name, is refused with serde's message.
            let kind = if finder.0 { quote!(opaque) } else { quote!(json) };
            Some(quote!((#name #ty, #kind)))
        }
        FnArg::Receiver(_) => None,
    });
    quote!(#(#arguments)*)
}

/// What a request calls the argument; empty for one without a name.
fn argument_name(pattern: &Pat) -> String {
    match pattern {
        Pat::Ident(pattern) => pattern.ident.unraw().to_string(),
        _ => String::new(),
    }
}

struct ReferenceFinder(bool);

impl<'ast> Visit<'ast> for ReferenceFinder {
    fn visit_type_reference(&mut self, _: &'ast syn::TypeReference) {
        self.0 = true;
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
        #[allow(unused)]
        #vis #sig {
            ::core::unreachable!()
        }
    }
}

fn check(args: &TokenStream, sig: &Signature) -> Errors {
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
    use super::*;
    use crate::item::testing::{file, messages};

    fn expand_plain(item: TokenStream) -> TokenStream {
        expand(&quote!(::facade), false, TokenStream::new(), item)
    }

    fn assert_expands(item: TokenStream, expected: TokenStream) {
        assert_eq!(expand_plain(item).to_string(), expected.to_string());
    }

    fn assert_refused(item: TokenStream, expected: &[&str]) {
        let messages = messages(expand_plain(item));
        assert_eq!(messages.len(), expected.len(), "{messages:#?}");
        for (message, expected) in messages.iter().zip(expected) {
            assert!(message.contains(expected), "{message:?} lacks {expected:?}");
        }
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

    fn expand_registered(item: TokenStream) -> String {
        expand(&quote!(::facade), true, TokenStream::new(), item).to_string()
    }

    #[test]
    fn a_scenario_is_registered_by_what_builds_it() {
        let expected = quote! {
            #[must_use]
            #[allow(dead_code)]
            pub fn r#match(mut_less: String, __arg1: (u8, u8)) -> ::facade::Scenario {
                fn __build(mut_less: String, __arg1: (u8, u8)) -> ::facade::Scenario {
                    use ::facade::__private::scenario as __scenario;
                    __scenario(
                        "match",
                        (mut_less, __arg1,),
                        |__args| async move {
                            let __args = __args;
                            let (mut mut_less, (b, c),) = __args;
                            if false {
                                return;
                            }
                            { go(mut_less, b, c) }
                        }
                    )
                }
                ::facade::__register_scenario! {
                    __build "match" ("mut_less" String, json) ("" (u8, u8), json)
                }
                __build(mut_less, __arg1)
            }
        };
        let expansion = expand_registered(quote! {
            #[must_use]
            pub async fn r#match(mut mut_less: String, (b, c): (u8, u8)) {
                go(mut_less, b, c)
            }
        });
        assert_eq!(expansion, expected.to_string());
    }

    #[test]
    fn arguments_with_references_cannot_come_as_json() {
        let expansion = expand_registered(quote!(
            async fn f(r#type: Vec<&'static str>, b: Cow<'static, str>) {}
        ));
        let expected = quote! {
            __build "f" ("type" Vec<&'static str>, opaque) ("b" Cow<'static, str>, json)
        };
        assert!(expansion.contains(&expected.to_string()), "{expansion}");
    }

    #[test]
    fn what_has_no_single_form_is_not_registered() {
        for item in [
            quote!(
                async fn f<T: Clone>(a: T) {}
            ),
            quote!(
                async fn f<const N: usize>() {}
            ),
            quote!(
                async fn f(a: Arc<Self>) {}
            ),
            quote!(
                async fn f()
                where
                    Self: Sized,
                {
                }
            ),
            quote!(
                async fn f() {
                    Self::g().await
                }
            ),
            quote!(
                async fn f() {
                    println!("{}", Self::NAME)
                }
            ),
            quote!(
                async fn f() {
                    macro_rules! g {
                        () => {
                            Self::g()
                        };
                    }
                    g!()
                }
            ),
        ] {
            let plain = expand_plain(item.clone()).to_string();
            assert_eq!(expand_registered(item), plain);
        }
        let item = quote!(
            async fn f() {}
        );
        let hidden = expand(&quote!(::facade), true, quote!(unregistered), item.clone());
        assert_eq!(hidden.to_string(), expand_plain(item).to_string());
    }

    #[test]
    fn the_self_of_an_item_inside_the_body_is_another() {
        let expansion = expand_registered(quote! {
            async fn f() {
                impl Default for S {
                    fn default() -> Self {
                        Self
                    }
                }
            }
        });
        assert!(expansion.contains("__register_scenario"), "{expansion}");
    }

    #[test]
    fn a_refused_function_is_not_registered() {
        let expansion = expand_registered(quote!(
            fn f() {}
        ));
        assert!(!expansion.contains("__register_scenario"), "{expansion}");
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
