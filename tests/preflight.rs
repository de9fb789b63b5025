//! What the machine does not allow is an error that says the remedy: no panic, no exit.
//!
//! Each case has a process of its own, since limits, filters and affinity are the process's.

#[path = "support/lib.rs"]
mod support;

use std::collections::BTreeMap;

use balter_uring::prelude::*;
use balter_uring::target::Target;
use balter_uring::{PreflightError, RunError};
use rustix::process::{Resource, Rlimit, setrlimit};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use support::{Child, Ended, assert_adds_up, in_a_child, role, tell, told, wait, worker};

/// The error's message and its remedy, as the child told them.
#[track_caller]
fn assert_remedy(ended: &Ended, parts: &[&str]) {
    ended.assert_success();
    let message = ended.value("message");
    for part in parts {
        assert!(message.contains(part), "`{part}` is not in: {message}");
    }
}

#[test]
fn io_uring_that_is_forbidden() {
    for role in ["EPERM", "ENOSYS", "EACCES"] {
        let ended = in_a_child(role);
        assert_remedy(&ended, &["seccomp", "kernel.io_uring_disabled", "io_uring_setup"]);
    }
}

#[test]
fn too_little_locked_memory() {
    let ended = in_a_child("memlock");
    assert_remedy(&ended, &["65536 bytes", "524288", "ulimit -l 512`", "LimitMEMLOCK=524288"]);
}

#[test]
fn too_few_descriptors() {
    let ended = in_a_child("descriptors");
    assert_remedy(&ended, &["may open 40 ", "48 are needed", "ulimit -Hn 48", "LimitNOFILE=48"]);
}

#[test]
fn enough_descriptors_for_one_shard_but_not_for_the_next() {
    let ended = in_a_child("descriptors for one");
    assert_remedy(&ended, &["may open 50 ", "64 are needed", "2 shards"]);
}

#[test]
fn a_soft_limit_of_descriptors_is_raised() {
    in_a_child("soft limit").assert_success();
}

#[test]
fn a_core_that_is_not_there() {
    assert_remedy(&in_a_child("core 999"), &["core 999", "taskset -p"]);
    let by_variable = |cores: &str| {
        let cores = cores.to_owned();
        Child::start("variable", move |command| {
            command.env("BALTER_CORES", cores);
        })
        .end()
    };
    assert_remedy(&by_variable("999"), &["core 999", "taskset -p"]);
    assert_remedy(&by_variable("nonsense"), &["`nonsense`", "BALTER_CORES", "1,3-5"]);
    assert_remedy(&by_variable("3-1"), &["`3-1`", "BALTER_CORES"]);
}

#[test]
fn a_variable_that_is_no_text() {
    use std::os::unix::ffi::OsStrExt;
    let text = std::ffi::OsStr::from_bytes(b"0\xff");
    let child = Child::start("variable", |command| {
        command.env("BALTER_CORES", text);
    });
    let ended = child.end();
    assert_remedy(&ended, &["BALTER_CORES"]);
}

#[test]
fn a_core_that_the_process_may_not_use() {
    let ended = in_a_child("affinity");
    assert_remedy(&ended, &["core 1 ", "(0)", "taskset -p"]);
}

#[test]
fn a_target_says_it_as_well() {
    let ended = in_a_child("target");
    assert_remedy(&ended, &["ulimit -l 512`"]);
}

/// Has `io_uring_setup` answer with this error, for this thread and those it starts.
fn forbid_io_uring(errno: i32) {
    use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch, apply_filter};
    const IO_URING_SETUP: i64 = 425;
    let architecture: TargetArch = std::env::consts::ARCH.try_into().expect("a known processor");
    let filter: BpfProgram = SeccompFilter::new(
        BTreeMap::from([(IO_URING_SETUP, Vec::new())]),
        SeccompAction::Allow,
        SeccompAction::Errno(errno as u32),
        architecture,
    )
    .and_then(TryInto::try_into)
    .expect("a valid filter");
    apply_filter(&filter).expect("a filter may be set");
}

fn limit(resource: Resource, current: u64, maximum: u64) {
    setrlimit(resource, Rlimit { current: Some(current), maximum: Some(maximum) })
        .expect("a limit may be lowered");
}

/// Runs it both ways, and tells the error: as one from `run`, as part of the statistics from
/// awaiting it.
fn fails(make: impl Fn() -> Scenario) -> PreflightError {
    let error = match wait(make().run()) {
        Err(RunError::Preflight(error)) => error,
        Err(other) => panic!("not an error of preflight: {other}"),
        Ok(statistics) => panic!("not an error at all: {statistics}"),
    };
    tell(format_args!("message={error}"));
    let statistics = wait(make());
    assert_eq!(statistics.error, Some(RunError::Preflight(error.clone())));
    assert!(statistics.tps_limited);
    assert_eq!(statistics.scenario, "worker");
    assert_eq!(statistics.counts.planned, 0);
    assert!(told(&statistics).contains(&error.to_string()), "{statistics}");
    error
}

#[test]
fn child() {
    let Some(role) = role() else { return };
    let run = || worker(Duration::ZERO).tps(100).duration(Duration::from_secs(1));
    let only = |core: usize| {
        let mut cores = CpuSet::new();
        cores.set(core);
        cores
    };
    let works = |run: Scenario| {
        let statistics = wait(run);
        assert_adds_up(&statistics);
        support::assert_all_well(&statistics, 100);
        statistics
    };
    match &*role {
        "EPERM" | "ENOSYS" | "EACCES" => {
            let errno = BTreeMap::from([("EPERM", 1), ("ENOSYS", 38), ("EACCES", 13)])[&*role];
            forbid_io_uring(errno);
            assert!(matches!(fails(run), PreflightError::Blocked { .. }));
        }
        "memlock" => {
            limit(Resource::Memlock, 64 << 10, 64 << 10);
            let error = fails(run);
            assert_eq!(
                error,
                PreflightError::LockedMemory { limit: 64 << 10, needed: 512 << 10 },
                "as root too, since glommio looks at the limit alone"
            );
        }
        "descriptors" => {
            limit(Resource::Nofile, 30, 40);
            let error = fails(|| run().cores([0]));
            assert_eq!(error, PreflightError::Descriptors { limit: 40, needed: 48, shards: 1 });
        }
        "descriptors for one" => {
            limit(Resource::Nofile, 50, 50);
            works(run().cores([0]));
            let error = fails(|| run().cores([0, 1]));
            assert_eq!(error, PreflightError::Descriptors { limit: 50, needed: 64, shards: 2 });
            works(run().cores([0]));
        }
        "soft limit" => {
            limit(Resource::Nofile, 30, 4_000);
            works(run().cores([0]));
            let limit = rustix::process::getrlimit(Resource::Nofile);
            assert_eq!(limit.current, Some(4_000));
        }
        "core 999" => {
            let error = fails(|| run().cores([999]));
            assert!(matches!(error, PreflightError::CoreNotAllowed { core: 999, .. }));
            // Nothing is spoilt by it.
            works(run());
        }
        "variable" => {
            let error = fails(run);
            assert!(matches!(
                error,
                PreflightError::CoreNotAllowed { core: 999, .. } | PreflightError::CoreList { .. }
            ));
            // The builder has precedence.
            works(run().cores([0]));
        }
        "affinity" => {
            // As `taskset` does it: the main thread, and this one where it is another.
            for thread in [None, Some(rustix::process::getpid())] {
                sched_setaffinity(thread, &only(0)).expect("core 0 is there");
            }
            let error = fails(|| run().cores([0, 1]));
            assert_eq!(error, PreflightError::CoreNotAllowed { core: 1, allowed: "0".to_owned() });
            // Without a word about cores it keeps to those that are allowed.
            let statistics = works(run());
            let cores: Vec<_> = statistics.shards.iter().map(|shard| shard.core).collect();
            assert_eq!(cores, [0]);
            // This thread is where it was.
            let here = sched_getaffinity(None).expect("it can be asked for");
            assert!(here.is_set(0) && !here.is_set(1));
        }
        "target" => {
            limit(Resource::Memlock, 64 << 10, 64 << 10);
            match Target::start() {
                Err(RunError::Preflight(error)) => tell(format_args!("message={error}")),
                other => panic!("not an error of preflight: {other:?}"),
            }
        }
        role => panic!("no such role: {role}"),
    }
}
