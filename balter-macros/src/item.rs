//! What both attributes share: taking a function apart, and collecting errors about it.

use proc_macro2::{Delimiter, Group, Span, TokenStream};
use quote::{ToTokens, TokenStreamExt as _};
use syn::parse::{ParseStream, Parser as _};
use syn::{AttrStyle, Attribute, Error, Signature, Token, Type, Visibility, braced, token};

/// A function, taken apart as far as the macros need it.
pub(crate) struct FnItem {
    /// All attributes, in outer form.
    pub(crate) attrs: Vec<Attribute>,
    pub(crate) vis: Visibility,
    pub(crate) sig: Signature,
    pub(crate) body: Body,
}

/// A function's body with its braces.
///
/// The tokens stay unparsed: they go out exactly as they came in, spans included, and syntax that
/// this version of syn has not learned yet passes through.
pub(crate) struct Body {
    brace: token::Brace,
    tokens: TokenStream,
}

impl FnItem {
    /// Parses the item under `#[attribute]`.
    ///
    /// # Errors
    ///
    /// When the item is not a function, or is one without a body.
    pub(crate) fn parse(attribute: &str, item: TokenStream) -> syn::Result<Self> {
        (|input: ParseStream<'_>| Self::parse_stream(attribute, input)).parse2(item)
    }

    fn parse_stream(attribute: &str, input: ParseStream<'_>) -> syn::Result<Self> {
        let mut attrs = input.call(Attribute::parse_outer)?;
        let bare_item: TokenStream = input.fork().parse()?;
        let vis = input.parse()?;
        let Ok(sig) = input.parse::<Signature>() else {
            let message = format!("`#[{attribute}]` can only be put on an `async fn`");
            return Err(Error::new_spanned(bare_item, message));
        };
        if input.peek(Token![;]) {
            let message = format!(
                "`#[{attribute}]` needs a function with a body: put it where the function is \
                 implemented"
            );
            return Err(Error::new_spanned(bare_item, message));
        }

        let content;
        let brace = braced!(content in input);
        // The body moves into a block of its own, where inner attributes would not be accepted;
        // on the function they cover the same code.
        attrs.extend(
            content
                .call(Attribute::parse_inner)?
                .into_iter()
                .map(|attr| Attribute { style: AttrStyle::Outer, ..attr }),
        );
        let tokens = content.parse()?;
        Ok(Self { attrs, vis, sig, body: Body { brace, tokens } })
    }
}

impl ToTokens for Body {
    fn to_tokens(&self, out: &mut TokenStream) {
        let mut block = Group::new(Delimiter::Brace, self.tokens.clone());
        // Where the user's braces stand, but marked as ours: a body of one expression ends up as
        // a block that `unused_braces` finds superfluous when it is taken for hand-written.
        block.set_span(self.brace.span.join().resolved_at(Span::mixed_site()));
        out.append(block);
    }
}

/// `true` for `()` itself, not for another name of it.
pub(crate) fn is_unit(ty: &Type) -> bool {
    match ty {
        Type::Tuple(tuple) => tuple.elems.is_empty(),
        // What a `macro_rules!` puts around a type it was given.
        Type::Group(group) => is_unit(&group.elem),
        _ => false,
    }
}

/// Every complaint about one item, so that the user sees them all at once.
#[derive(Default)]
pub(crate) struct Errors(Option<Error>);

impl Errors {
    /// Adds `message`, to be shown under `tokens`.
    pub(crate) fn push(&mut self, tokens: impl ToTokens, message: impl std::fmt::Display) {
        let error = Error::new_spanned(tokens, message);
        match &mut self.0 {
            Some(first) => first.combine(error),
            None => self.0 = Some(error),
        }
    }

    /// The `compile_error!` invocations to emit; `None` when there was nothing to complain about.
    pub(crate) fn into_compile_errors(self) -> Option<TokenStream> {
        self.0.map(Error::into_compile_error)
    }
}

#[cfg(test)]
pub(crate) mod testing {
    //! Looking at expansions.

    use proc_macro2::TokenStream;
    use syn::visit::Visit;

    /// The expansion as syntax.
    ///
    /// # Panics
    ///
    /// When it is not a sequence of items.
    pub(crate) fn file(expansion: TokenStream) -> syn::File {
        syn::parse2(expansion).expect("an attribute expands to items")
    }

    /// The messages of all `compile_error!`s in the expansion, in order.
    pub(crate) fn messages(expansion: TokenStream) -> Vec<String> {
        #[derive(Default)]
        struct Messages(Vec<String>);
        impl Visit<'_> for Messages {
            fn visit_macro(&mut self, mac: &syn::Macro) {
                if mac.path.segments.last().is_some_and(|last| last.ident == "compile_error") {
                    self.0.push(mac.parse_body::<syn::LitStr>().expect("a literal").value());
                }
            }
        }
        let mut messages = Messages::default();
        messages.visit_file(&file(expansion));
        messages.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quote::quote;

    fn parse(item: TokenStream) -> Result<FnItem, String> {
        FnItem::parse("scenario", item).map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_not_a_function_is_refused_by_name() {
        for item in [
            quote!(
                struct S;
            ),
            quote!(
                const C: u32 = 1;
            ),
            quote!(
                pub mod m {}
            ),
        ] {
            assert_eq!(
                parse(item).err().as_deref(),
                Some("`#[scenario]` can only be put on an `async fn`")
            );
        }
    }

    #[test]
    fn a_function_without_a_body_is_told_where_the_attribute_belongs() {
        let message = parse(quote!(
            async fn required(&self);
        ))
        .err()
        .expect("an error");
        assert!(message.contains("where the function is implemented"), "{message}");
    }

    #[test]
    fn inner_attributes_become_outer_ones_and_leave_the_body() {
        let item = parse(quote! {
            #[first]
            async fn f() {
                #![second]
                g();
            }
        })
        .expect("a function");
        let attrs: Vec<_> = item.attrs.iter().map(|a| a.to_token_stream().to_string()).collect();
        assert_eq!(attrs, [quote!(#[first]).to_string(), quote!(#[second]).to_string()]);
        assert_eq!(
            item.body.to_token_stream().to_string(),
            quote!({
                g();
            })
            .to_string()
        );
    }

    #[test]
    fn a_body_that_syn_cannot_parse_passes_through() {
        let item = parse(quote!(async fn f() { some future syntax => 1 })).expect("a function");
        assert_eq!(
            item.body.to_token_stream().to_string(),
            quote!({ some future syntax => 1 }).to_string()
        );
    }
}
