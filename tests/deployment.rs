//! The seccomp profile for containers: a run works under it, and not without what it adds.

#[path = "support/lib.rs"]
mod support;

use std::collections::BTreeMap;
use std::io::Cursor;

use balter_uring::prelude::*;
use balter_uring::target::Target;
use balter_uring::{PreflightError, RunError, http};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompFilter, TargetArch, apply_filter, compile_from_json,
};
use serde_json::{Value, json};
use support::{in_a_child, role, wait};

const CLONE3: i64 = 435;

fn architecture() -> TargetArch {
    std::env::consts::ARCH.try_into().expect("a known processor")
}

fn profile() -> Value {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/cluster/seccomp-io-uring.json");
    let text = std::fs::read_to_string(path).expect("it is there");
    serde_json::from_str(&text).expect("JSON")
}

fn filter(rules: Vec<Value>) -> BpfProgram {
    let all = json!({ "all": {
        "mismatch_action": { "errno": 1 }, "match_action": "allow", "filter": rules
    } });
    let text = all.to_string().into_bytes();
    let mut filters = compile_from_json(Cursor::new(text), architecture()).expect("it compiles");
    filters.remove("all").expect("it was named")
}

/// Puts this thread and those that it starts under the profile, as a container engine would; without
/// io_uring if asked.
fn confine(allows_io_uring: bool) {
    let profile = profile();
    assert_eq!(profile["defaultAction"], "SCMP_ACT_ERRNO");
    let mut rules = Vec::new();
    for entry in profile["syscalls"].as_array().expect("a list") {
        let names = entry["names"].as_array().expect("a list").iter();
        let names = names.map(|name| name.as_str().expect("a name"));
        for name in names.filter(|name| allows_io_uring || !name.starts_with("io_uring")) {
            if entry["action"] != "SCMP_ACT_ALLOW" {
                assert_eq!((name, &entry["errnoRet"]), ("clone3", &json!(38)));
                continue;
            }
            rules.push(match entry["args"].get(0) {
                None => json!({ "syscall": name }),
                Some(argument) => {
                    assert_eq!(argument["op"], "SCMP_CMP_MASKED_EQ");
                    json!({ "syscall": name, "args": [{
                        "index": argument["index"], "type": "qword",
                        "op": { "masked_eq": argument["value"] }, "val": argument["valueTwo"],
                    }] })
                }
            });
        }
    }
    // What is to be answered otherwise has a filter of its own, which comes after this one.
    rules.push(json!({ "syscall": "clone3" }));
    // Setting that one up.
    apply_filter(&filter(rules)).expect("a filter may be set");
    let not_there: BpfProgram = SeccompFilter::new(
        BTreeMap::from([(CLONE3, Vec::new())]),
        SeccompAction::Allow,
        SeccompAction::Errno(38),
        architecture(),
    )
    .and_then(TryInto::try_into)
    .expect("a valid filter");
    apply_filter(&not_there).expect("a filter may be set");
}

#[scenario]
async fn visitor(url: String) {
    let client = http::Client::new();
    loop {
        let _ = visit(&client, &url).await;
    }
}

#[transaction]
async fn visit(client: &http::Client, url: &str) -> Result<(), http::Error> {
    client.get(url).send().await?.error_for_status()?.bytes().await?;
    Ok(())
}

#[test]
fn child() {
    match role().as_deref() {
        Some("confined") => {
            confine(true);
            let target = Target::start().expect("it starts");
            let run = visitor(target.url()).tps(200).duration(Duration::from_secs(1));
            let statistics = wait(run.run()).expect("it starts");
            assert!(statistics.counts.succeeded > 150, "{statistics}");
        }
        Some("without io_uring") => {
            confine(false);
            let run = visitor(String::new()).tps(1).duration(Duration::from_secs(1));
            let error = wait(run.run()).expect_err("it is forbidden");
            assert!(
                matches!(error, RunError::Preflight(PreflightError::Blocked { .. })),
                "{error}"
            );
        }
        _ => {}
    }
}

#[test]
fn a_run_works_under_the_profile() {
    in_a_child("confined").assert_success();
}

#[test]
fn without_io_uring_it_says_so() {
    in_a_child("without io_uring").assert_success();
}
