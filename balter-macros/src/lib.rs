//! The attribute macros of `balter-uring`, re-exported there and documented there in full.
//!
//! Depend on `balter-uring`, not on this crate: what the macros expand to names items of
//! `balter_uring::__private`, which are matched to one version of this crate.

mod item;
mod krate;
mod scenario;
mod transaction;

use proc_macro::TokenStream;

/// Makes an `async fn` into a scenario: calling it gives a `Scenario` to configure and await.
///
/// The function may take any arguments that are `Clone + Send + 'static`; every instance of the
/// scenario gets its own clones. It returns nothing.
///
/// ```ignore
/// use balter_uring::prelude::*;
/// use std::time::Duration;
///
/// #[scenario]
/// async fn browse(host: String) {
///     let _ = front_page(&host).await;
/// }
///
/// let stats = browse("localhost:8080".into()).tps(500).duration(Duration::from_secs(30)).await;
/// ```
///
/// Under the feature `rt`, requests to a `BalterRuntime` can name the scenario, unless it has type
/// parameters, mentions `Self`, or is marked `#[scenario(unregistered)]`. The mark is needed for one
/// that mentions the type parameters of the `impl` block around it, which this macro does not see.
#[proc_macro_attribute]
pub fn scenario(args: TokenStream, item: TokenStream) -> TokenStream {
    scenario::expand(&krate::path(), cfg!(feature = "rt"), args.into(), item.into()).into()
}

/// Makes an `async fn` into a transaction: each call is paced, timed and counted.
///
/// Any `async fn` will do, methods included, with any arguments and any return type. `Err` and
/// `None` count as failures, every other value as a success.
///
/// ```ignore
/// use balter_uring::prelude::*;
///
/// #[transaction]
/// async fn front_page(host: &str) -> std::io::Result<()> {
///     fetch(host, "/").await?;
///     Ok(())
/// }
/// ```
#[proc_macro_attribute]
pub fn transaction(args: TokenStream, item: TokenStream) -> TokenStream {
    transaction::expand(&krate::path(), args.into(), item.into()).into()
}
