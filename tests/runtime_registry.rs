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

struct Group;

impl Group {
    #[scenario(unregistered)]
    async fn in_an_impl() {}
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
    for name in ["plain", "shopper", "with_a_handle", "with_a_pattern", "in_a_function"] {
        assert!(names.contains(&name), "{name} of {names:?}");
    }
    for name in ["generic", "hidden", "in_an_impl"] {
        assert!(!names.contains(&name), "{name}");
    }
    let modules = SCENARIOS.iter().filter(|scenario| scenario.name == "twice");
    let mut modules: Vec<_> = modules.map(|scenario| scenario.module).collect();
    modules.sort_unstable();
    assert_eq!(modules, ["runtime_registry", "runtime_registry::other"]);
    // They are functions all the same.
    let _ = (generic(1), hidden(), Group::in_an_impl(), other::twice(), twice(), in_a_function(1));
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
    for args in [json!(null), json!([]), json!({})] {
        assert!(make("plain", args.clone()).is_ok(), "{args}");
    }
    assert!((registered("plain").expect("known").make)(None).is_ok());
}

#[test]
fn arguments_that_do_not_fit_are_named() {
    let shop = json!({ "name": "a" });
    assert_eq!(refusal("shopper", json!([shop])), "the argument `count` is missing");
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
    assert!(refusal("with_a_handle", json!([null, 1])).contains("cannot be made of JSON"));
    assert!(refusal("with_a_reference", json!([["a"]])).contains("cannot be made of JSON"));
}
