//! Under which name the user's crate knows `balter-uring`.

use proc_macro_crate::{FoundCrate, crate_name};
use proc_macro2::{Ident, Span, TokenStream};
use quote::quote;

/// The absolute path of the facade as the crate being compiled must write it.
pub(crate) fn path() -> TokenStream {
    path_of(crate_name("balter-uring").ok())
}

/// `None` stands for a crate whose manifest does not list the facade, or has no manifest that can
/// be read (a build without Cargo); the facade's own name is then the best guess.
fn path_of(found: Option<FoundCrate>) -> TokenStream {
    let name = match found {
        Some(FoundCrate::Name(name)) => name,
        // `::balter_uring` rather than `crate`, because the facade's examples, integration tests
        // and doctests are found as `Itself` too. The library has `extern crate self` for this.
        Some(FoundCrate::Itself) | None => "balter_uring".to_owned(),
    };
    let name = Ident::new(&name, Span::call_site());
    quote!(::#name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_renamed_dependency_is_used_under_its_new_name() {
        let path = path_of(Some(FoundCrate::Name("balter".to_owned())));
        assert_eq!(path.to_string(), quote!(::balter).to_string());
    }

    #[test]
    fn the_crate_itself_and_an_unlisted_one_go_by_the_crates_own_name() {
        for found in [Some(FoundCrate::Itself), None] {
            assert_eq!(path_of(found).to_string(), quote!(::balter_uring).to_string());
        }
    }
}
