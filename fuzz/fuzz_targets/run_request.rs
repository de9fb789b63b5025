//! Bodies of `POST /run`: no panic, and what is accepted is within the limits and says the same when
//! it is written and read again.
//!
//! `cargo +nightly fuzz run run_request corpus/run_request seeds/run_request` searches;
//! `cargo run --bin run_request -- seeds/run_request/*` runs what is there, on any toolchain.

#![no_main]

use libfuzzer_sys::fuzz_target;
use runtime::request::RunRequest;
use runtime::{Permissions, RunLimits};

// The sources themselves, so that neither glommio nor a server is needed.
#[allow(dead_code, missing_docs, unused_imports)]
#[path = "../../balter-uring/src/runtime"]
mod runtime {
    pub mod limits;
    pub mod request;
    pub use limits::{Permissions, RunLimits};
}

fuzz_target!(|body: &[u8]| {
    let Ok(request) = RunRequest::parse(body) else { return };
    let limits = RunLimits::default();
    for is_allowed in [false, true] {
        let mut allowed = Permissions::default();
        (allowed.targets, allowed.closed_loops) = (is_allowed, is_allowed);
        if request.check(&limits, allowed).is_err() {
            continue;
        }
        let is_closed = request.saturate || request.concurrency.is_some();
        assert!(!is_closed || (is_allowed && request.max_tps.is_none()));
        assert!(request.concurrency.is_none_or(|count| count <= limits.max_concurrency));
        let longest = limits.max_duration.as_secs_f64();
        assert!(request.duration.is_none_or(|seconds| seconds > 0.0 && seconds <= longest));
        assert!(request.max_tps.is_none_or(|tps| tps > 0 && tps <= limits.max_tps));
        assert!(request.error_rate.is_none_or(|share| share > 0.0 && share < 1.0));
        let written = serde_json::to_vec(&request).expect("it can be written");
        assert_eq!(RunRequest::parse(&written).as_ref(), Ok(&request));
    }
});
