//! `#[transaction]`: the body of an `async fn` becomes a future that is paced, timed and judged.
//!
//! ```text
//! async fn name(args) -> Ret { body }
//!
//! async fn name(args) -> Ret {
//!     __private::transaction(
//!         { static META: TransactionMeta = TransactionMeta::new("name", module_path!()); &META },
//!         async move { if false { use outcome::returned; return returned::<Ret>(); } { body } },
//!         |__output| { use outcome::*; (&&&&&Probe(__output)).__balter_judged() },
//!     )
//!     .await
//! }
//! ```
//!
//! Whether the output can fail is decided by method resolution on `Probe`, where type aliases have
//! been seen through and generic types are as known as they get; see the facade's `outcome`.
//!
//! The expansion carries no `#[allow]`: it triggers no lint, and a user may have forbidden the one
//! we would allow. `META` stands in a block of its own, so that a user's `META` is not shadowed.

use proc_macro2::{Span, TokenStream};
use quote::{quote, quote_spanned};
use syn::ext::IdentExt as _;
use syn::spanned::Spanned as _;
use syn::visit_mut::{self, VisitMut};
use syn::{ReturnType, Signature, Type};

use crate::item::{Errors, FnItem, is_unit};

/// Expands `#[transaction(args)] item`, with `krate` the path of the facade.
///
/// On errors the item comes out as it went in, so that its callers still find it.
pub(crate) fn expand(krate: &TokenStream, args: TokenStream, item: TokenStream) -> TokenStream {
    let function = match FnItem::parse("transaction", item.clone()) {
        Ok(function) => function,
        Err(error) => {
            let error = error.into_compile_error();
            return quote!(#error #item);
        }
    };
    match check(&args, &function.sig).into_compile_errors() {
        None => measured(krate, &function),
        Some(errors) => quote!(#errors #item),
    }
}

fn measured(krate: &TokenStream, function: &FnItem) -> TokenStream {
    let FnItem { attrs, vis, sig, body } = function;
    let private = quote!(#krate::__private);
    let name = sig.ident.unraw().to_string();
    let early_return = early_return(&private, &sig.output);
    let judge = judge(&private, &sig.output);
    quote_spanned! {Span::mixed_site()=>
        #(#attrs)*
        #vis #sig {
            #private::transaction(
                {
                    static META: #private::TransactionMeta =
                        #private::TransactionMeta::new(#name, ::core::module_path!());
                    &META
                },
                async move {
                    #early_return
                    #body
                },
                #judge,
            )
            .await
        }
    }
}

/// A `return` that never runs and tells the compiler the output of the `async` block.
///
/// A block's output is otherwise found from its first `return`, `?` or tail, which is too little
/// for `?` to know its error type, and blames the wrong line when two of them differ.
fn early_return(private: &TokenStream, output: &ReturnType) -> TokenStream {
    match output {
        ReturnType::Default => quote_spanned!(Span::mixed_site()=> if false { return; }),
        ReturnType::Type(_, ty) if is_unit(ty) => early_return(private, &ReturnType::Default),
        // Says nothing that the body does not, and cannot be written as a type argument.
        ReturnType::Type(_, ty) if matches!(**ty, Type::Never(_) | Type::ImplTrait(_)) => {
            TokenStream::new()
        }
        ReturnType::Type(_, ty) => {
            let mut ty = ty.clone();
            let span = ty.span();
            InferOpaque.visit_type_mut(&mut ty);
            // With the user's span: messages about the body point here as the origin of what
            // they expect.
            let value = quote_spanned!(span=> returned::<#ty>());
            quote_spanned! {Span::mixed_site()=>
                if false {
                    use #private::outcome::returned;
                    return #value;
                }
            }
        }
    }
}

/// The closure that decides whether an output counts as a failure, and what is known of it.
fn judge(private: &TokenStream, output: &ReturnType) -> TokenStream {
    match output {
        // Never called, and there would be no type to look a method up on.
        ReturnType::Type(_, ty) if matches!(**ty, Type::Never(_)) => {
            quote_spanned!(Span::mixed_site()=> |_| ::core::option::Option::None)
        }
        _ => quote_spanned! {Span::mixed_site()=>
            |__output| {
                use #private::outcome::*;
                (&&&&&Probe(__output)).__balter_judged()
            }
        },
    }
}

/// Replaces every `impl Trait`, which may stand in a signature alone, by `_`.
struct InferOpaque;

impl VisitMut for InferOpaque {
    fn visit_type_mut(&mut self, ty: &mut Type) {
        if let Type::ImplTrait(_) = ty {
            *ty = Type::Infer(syn::TypeInfer { underscore_token: Default::default() });
        } else {
            visit_mut::visit_type_mut(self, ty);
        }
    }
}

fn check(args: &TokenStream, sig: &Signature) -> Errors {
    let mut errors = Errors::default();
    if !args.is_empty() {
        errors.push(args, "`#[transaction]` takes no arguments: it is named after its function");
    }
    if sig.asyncness.is_none() {
        let (fn_token, ident) = (&sig.fn_token, &sig.ident);
        errors.push(quote!(#fn_token #ident), "a transaction must be an `async fn`");
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;
    use quote::ToTokens as _;

    use crate::item::testing::{file, messages};

    fn expand_plain(item: TokenStream) -> TokenStream {
        expand(&quote!(::facade), TokenStream::new(), item)
    }

    /// The statements inside the `async` block of `async fn f() -> output { body() }`.
    fn async_block(output: TokenStream) -> String {
        #[derive(Default)]
        struct Block(Option<String>);
        impl syn::visit::Visit<'_> for Block {
            fn visit_expr_async(&mut self, block: &syn::ExprAsync) {
                assert!(block.capture.is_some(), "arguments have to move in");
                let stmts = &block.block.stmts;
                self.0 = Some(quote!(#(#stmts)*).to_string());
            }
        }
        let mut block = Block::default();
        let expansion = file(expand_plain(quote!(async fn f() #output { body() })));
        syn::visit::Visit::visit_file(&mut block, &expansion);
        block.0.expect("an async block")
    }

    #[test]
    fn the_signature_stays_and_the_body_is_wrapped() {
        let expansion = expand_plain(quote! {
            /// Docs.
            pub async fn r#try<T: Tr>(&mut self, mut a: T) -> io::Result<T> where T: Copy {
                self.go(a)?;
                Ok(a)
            }
        });
        let expected = quote! {
            /// Docs.
            pub async fn r#try<T: Tr>(&mut self, mut a: T) -> io::Result<T> where T: Copy {
                ::facade::__private::transaction(
                    {
                        static META: ::facade::__private::TransactionMeta =
                            ::facade::__private::TransactionMeta::new("try", ::core::module_path!());
                        &META
                    },
                    async move {
                        if false {
                            use ::facade::__private::outcome::returned;
                            return returned::<io::Result<T>>();
                        }
                        {
                            self.go(a)?;
                            Ok(a)
                        }
                    },
                    |__output| {
                        use ::facade::__private::outcome::*;
                        (&&&&&Probe(__output)).__balter_judged()
                    },
                )
                .await
            }
        };
        // By way of syntax trees, since `>>` may be one token or two.
        let [expansion, expected] = [expansion, expected].map(|it| file(it).to_token_stream());
        assert_eq!(expansion.to_string(), expected.to_string());
    }

    #[test]
    fn the_unit_is_returned_plainly() {
        let expected = quote!(if false { return; } { body() }).to_string();
        assert_eq!(async_block(quote!()), expected);
        assert_eq!(async_block(quote!(-> ())), expected);
    }

    #[test]
    fn an_opaque_type_is_left_to_inference() {
        assert_eq!(async_block(quote!(-> impl Display)), quote!({ body() }).to_string());
        let nested = async_block(quote!(-> Result<impl Display, E>));
        assert!(nested.contains(&quote!(Result<_, E>).to_string()), "{nested}");
    }

    #[test]
    fn the_never_type_is_not_probed() {
        let expansion = expand_plain(quote!(
            async fn f() -> ! {
                loop {}
            }
        ))
        .to_string();
        assert!(!expansion.contains("Probe"), "{expansion}");
        assert!(!expansion.contains("returned"), "{expansion}");
    }

    #[test]
    fn a_plain_fn_is_refused_and_kept() {
        let expansion = expand_plain(quote!(
            fn f() -> u8 {
                0
            }
        ));
        assert_eq!(messages(expansion.clone()), ["a transaction must be an `async fn`"]);
        let kept = quote!(
            fn f() -> u8 {
                0
            }
        )
        .to_string();
        assert!(expansion.to_string().ends_with(&kept), "{expansion}");
    }

    #[test]
    fn all_complaints_come_at_once() {
        let messages = messages(expand(
            &quote!(::facade),
            quote!(name = "x"),
            quote!(
                fn f() {}
            ),
        ));
        assert_eq!(messages.len(), 2, "{messages:?}");
        assert!(messages[0].contains("takes no arguments"), "{messages:?}");
        assert!(messages[1].contains("`async fn`"), "{messages:?}");
    }

    #[test]
    fn what_is_not_a_function_is_refused() {
        let messages = messages(expand_plain(quote!(
            struct S;
        )));
        assert_eq!(messages, ["`#[transaction]` can only be put on an `async fn`"]);
    }
}
