//! Scenarios are registered under their names, with arguments that come as JSON.
#![forbid(unsafe_code)]

use balter_uring::__private::{Registered, SCENARIOS};
use balter_uring::prelude::*;
use serde_json::{Value, json};

#[scenario]
async fn plain() {
    work().await;
}

#[transaction]
async fn work() {}

#[derive(Clone, Debug, serde::Deserialize)]
struct Shop {
    #[allow(dead_code)]
    name: String,
}

#[scenario]
async fn shopper(shop: Shop, count: u32, note: Option<String>) {
    let _ = (shop, count, note);
    work().await;
}

#[derive(Clone)]
struct Handle;

#[scenario]
async fn with_a_handle(handle: Handle, count: u8) {
    let _ = (handle, count);
}

#[scenario]
async fn with_a_reference(words: Vec<&'static str>) {
    let _ = words;
}

#[scenario]
async fn with_a_pattern((a, b): (u8, u8)) {
    let _ = (a, b);
}

#[scenario]
async fn generic<T: Clone + Send + 'static>(value: T) {
    let _ = value;
}

#[scenario(unregistered)]
async fn hidden() {}

type Text = &'static str;

#[derive(Clone, serde::Deserialize)]
struct Borrowing<'a> {
    #[allow(dead_code)]
    word: &'a str,
}

/// References that the macro does not see.
#[scenario]
async fn with_hidden_references(text: Text, borrowing: Borrowing<'static>) {
    let _ = (text, borrowing);
}

#[derive(Clone)]
struct Group<T>(T);

impl<T: Clone + Send + 'static> Group<T> {
    #[scenario]
    async fn in_an_impl(count: u32) {
        let _ = count;
        work().await;
    }

    #[scenario]
    async fn of_self(this: Self) {
        let _ = this.0;
    }

    #[scenario]
    async fn calls_self() {
        Self::work().await;
    }

    #[scenario(unregistered)]
    async fn of_the_parameter(value: T) {
        let _ = value;
    }

    #[transaction]
    async fn work() {}
}

trait Load {
    fn in_a_trait() -> Scenario;
}

impl Load for Group<u8> {
    #[scenario]
    async fn in_a_trait() {}
}

/// Only requests ever call for it: it is not dead code.
mod unused {
    #![deny(dead_code)]

    use balter_uring::prelude::*;

    #[scenario]
    async fn called_by_none() {
        helper().await;
    }

    #[transaction]
    async fn helper() {}
}

mod other {
    use balter_uring::prelude::*;

    #[scenario]
    pub(crate) async fn twice() {}
}

#[scenario]
async fn twice() {}

fn registered(name: &str) -> Option<&'static Registered> {
    SCENARIOS.iter().find(|scenario| scenario.name == name)
}

fn make(name: &str, args: Value) -> Result<Scenario, String> {
    (registered(name).expect("registered").make)(Some(&args))
}

fn refusal(name: &str, args: Value) -> String {
    make(name, args).expect_err("refused")
}

#[test]
fn scenarios_are_known_by_their_functions() {
    #[scenario]
    async fn in_a_function(count: u64) {
        let _ = count;
    }
    let names: Vec<_> = SCENARIOS.iter().map(|scenario| scenario.name).collect();
    for name in [
        "plain",
        "shopper",
        "with_a_handle",
        "with_a_pattern",
        "with_hidden_references",
        "in_a_function",
        "in_an_impl",
        "in_a_trait",
        "called_by_none",
    ] {
        assert!(names.contains(&name), "{name} of {names:?}");
    }
    for name in ["generic", "hidden", "of_self", "calls_self", "of_the_parameter"] {
        assert!(!names.contains(&name), "{name}");
    }
    let modules = SCENARIOS.iter().filter(|scenario| scenario.name == "twice");
    let mut modules: Vec<_> = modules.map(|scenario| scenario.module).collect();
    modules.sort_unstable();
    assert_eq!(modules, ["runtime_registry", "runtime_registry::other"]);
    // They are functions all the same.
    let _ = (generic(1), hidden(), other::twice(), twice(), in_a_function(1));
    let _ = (Group::<u8>::in_an_impl(1), Group::of_self(Group(1)), Group::<u8>::calls_self());
    let _ = (Group::of_the_parameter(1), Group::in_a_trait());
}

#[test]
fn arguments_come_in_order_or_by_name() {
    assert_eq!(registered("shopper").expect("known").parameters, ["shop", "count", "note"]);
    for args in [
        json!([{ "name": "a" }, 3, "b"]),
        json!([{ "name": "a" }, 3]),
        json!({ "count": 3, "shop": { "name": "a" }, "note": null }),
        json!({ "count": 3, "shop": { "name": "a" } }),
    ] {
        assert!(make("shopper", args.clone()).is_ok(), "{args}");
    }
    assert!(make("with_a_pattern", json!([[1, 2]])).is_ok());
    assert!(make("in_an_impl", json!({ "count": 3 })).is_ok());
    for args in [json!(null), json!([]), json!({})] {
        assert!(make("plain", args.clone()).is_ok(), "{args}");
    }
    assert!((registered("plain").expect("known").make)(None).is_ok());
}

#[test]
fn arguments_that_do_not_fit_are_named() {
    let shop = json!({ "name": "a" });
    assert_eq!(
        refusal("shopper", json!([shop])),
        "the argument `count` is missing; the scenario takes (shop, count, note)"
    );
    assert!(
        refusal("shopper", json!({ "shop": shop, "count": -1 }))
            .starts_with("the argument `count` does not fit: invalid value: integer `-1`")
    );
    assert_eq!(
        refusal("shopper", json!({ "shop": shop, "number": 1 })),
        "there is no argument `number`; the scenario takes (shop, count, note)"
    );
    assert_eq!(
        refusal("shopper", json!([1, 2, 3, 4])),
        "4 arguments were given; the scenario takes (shop, count, note)"
    );
    assert!(refusal("shopper", json!("a")).contains("neither an array nor an object"));
    assert!(refusal("plain", json!([1])).contains("takes none"));
    assert!(refusal("with_a_pattern", json!({ "": [1, 2] })).contains("no argument"));
    assert_eq!(
        refusal("with_hidden_references", json!(["a", { "word": "b" }])),
        "the argument `text` does not fit: invalid type: string \"a\", expected a borrowed string"
    );
}

#[test]
fn arguments_that_no_json_makes_are_refused() {
    for (name, args, argument) in [
        ("with_a_handle", json!([null, 1]), "`handle` is of the type runtime_registry::Handle"),
        ("with_a_handle", json!({ "count": 1 }), "`handle` is of the type"),
        ("with_a_reference", json!([["a"]]), "`words` is of the type alloc::vec::Vec<&str>"),
    ] {
        let message = refusal(name, args);
        let expected = "the scenario takes arguments that cannot be given as JSON: ";
        let rest = message.strip_prefix(expected).expect("says so");
        assert!(rest.starts_with(argument), "{message}");
    }
}
