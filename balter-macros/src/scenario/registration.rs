//! What lets requests to a cluster name a scenario: under the feature `rt` the linker gathers them.
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

use proc_macro2::{Ident, Span, TokenStream, TokenTree};
use quote::{quote, quote_spanned};
use syn::ext::IdentExt as _;
use syn::visit::{self, Visit};
use syn::{Block, Expr, FnArg, Item, Pat, Signature};

use super::{built, scenario_type, take_arguments};
use crate::item::FnItem;

/// The function that makes a scenario which requests can name.
pub(super) fn registered(krate: &TokenStream, function: FnItem) -> TokenStream {
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

/// Whether the scenario is the same wherever it is called from, so that a request can mean it: it
/// has no type parameters and does not mention `Self`.
pub(super) fn has_single_form(function: &FnItem) -> bool {
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

#[cfg(test)]
mod tests {
    use super::super::expand;
    use super::super::tests::expand_plain;
    use super::*;

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
}
