//! What `POST /run` takes.

mod lenient;
mod targets;

use serde::{Deserialize, Serialize};

use super::{Permissions, RunLimits};

/// The longest time that anything is given, beside the limit for runs.
const LONGEST_SECONDS: f64 = 86_400.0;

/// A run that is asked for. Times are in seconds. Every number may be a string, as `"0.02"`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunRequest {
    /// Function name of the scenario, with the path of its module if there are two of that name.
    pub name: String,
    /// Seconds; the longest that is allowed if not given.
    #[serde(default, with = "lenient::optional", skip_serializing_if = "Option::is_none")]
    pub duration: Option<f64>,
    /// Transactions a second, over all nodes.
    #[serde(default, with = "lenient::optional", skip_serializing_if = "Option::is_none")]
    pub max_tps: Option<u32>,
    /// The highest share of transactions that may fail, above 0 and below 1.
    #[serde(default, with = "lenient::optional", skip_serializing_if = "Option::is_none")]
    pub error_rate: Option<f64>,
    /// The longest response time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency: Option<LatencyLimit>,
    /// Where to start from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hints: Option<Hints>,
    /// Arguments of the scenario: an array in their order, or an object by their names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub args: Option<serde_json::Value>,
    /// The most scenario instances, over all nodes.
    #[serde(default, with = "lenient::optional", skip_serializing_if = "Option::is_none")]
    pub max_concurrency: Option<u32>,
    /// Seconds that one transaction may take.
    #[serde(default, with = "lenient::optional", skip_serializing_if = "Option::is_none")]
    pub timeout: Option<f64>,
    /// How transactions are spaced; evenly if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arrival: Option<Spacing>,
    /// End the run when the highest rate within its limits has been found.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub find_capacity: bool,
    /// Closed loop: exactly so many scenario instances, over all nodes.
    #[serde(default, with = "lenient::optional", skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<u32>,
    /// Closed loop: as many instances as still raise the throughput.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub saturate: bool,
}

/// How transactions are spaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Spacing {
    /// Evenly.
    Constant,
    /// At random, as those of many users who know nothing of each other.
    Poisson,
}

/// A limit on the response time.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LatencyLimit {
    /// Seconds.
    #[serde(with = "lenient::required")]
    pub latency: f64,
    /// The share of transactions that has to be as fast, above 0 and below 1.
    #[serde(with = "lenient::required")]
    pub quantile: f64,
}

/// Where a run starts from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hints {
    /// Scenario instances, over all nodes.
    #[serde(default, with = "lenient::optional", skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<u32>,
    /// Transactions a second of a run whose rate is searched for.
    #[serde(default, with = "lenient::optional", skip_serializing_if = "Option::is_none")]
    pub tps: Option<u32>,
}

/// Why a request is not carried out.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// It is no JSON, or not of the form of a [`RunRequest`].
    #[error("the body is not what /openapi.json describes: {0}")]
    Malformed(String),
    /// Nothing was asked for that could be run.
    #[error(
        "give at least one of `max_tps`, `error_rate` and `latency`, or for a closed loop \
         `concurrency` or `saturate`"
    )]
    NothingAsked,
    /// Two fields that exclude each other.
    #[error(
        "`{closed}` makes a closed loop, in which `{field}` means nothing: leave out one of them"
    )]
    ClosedLoop {
        /// What makes it one.
        closed: &'static str,
        /// What has no meaning there.
        field: &'static str,
    },
    /// The node was not started for closed loops.
    #[error(
        "closed loops are as fast as the target answers, whatever the nodes' --max-tps; they have to \
         be started with --allow-closed-loops"
    )]
    ClosedLoopsNotAllowed,
    /// `find_capacity` needs something to find.
    #[error("`find_capacity` needs `error_rate` or `latency`")]
    NoLimits,
    /// A value makes no sense.
    #[error("`{field}` is {value}; it has to be {range}")]
    OutOfRange {
        /// Where in the request.
        field: &'static str,
        /// What was given.
        value: String,
        /// What is allowed.
        range: String,
    },
    /// Arguments hold an address.
    #[error(
        "`{field}` holds the address {value:?}; the nodes have to be started with --allow-targets \
         for requests to say what is loaded"
    )]
    Target {
        /// Where in the request.
        field: String,
        /// What was given.
        value: String,
    },
}

impl RunRequest {
    /// Reads the body of a request.
    ///
    /// # Errors
    /// [`RequestError::Malformed`].
    pub fn parse(body: &[u8]) -> Result<Self, RequestError> {
        serde_json::from_slice(body).map_err(|error| RequestError::Malformed(error.to_string()))
    }

    /// Checks that everything makes sense and is within the limits.
    ///
    /// # Errors
    /// The first thing that does or is not.
    pub fn check(&self, limits: &RunLimits, allowed: Permissions) -> Result<(), RequestError> {
        match self.closed_loop() {
            Some(closed) => self.check_closed_loop(closed, allowed)?,
            None => self.check_open_loop()?,
        }
        let longest = limits.max_duration.as_secs_f64();
        seconds("duration", self.duration, longest)?;
        seconds("timeout", self.timeout, LONGEST_SECONDS)?;
        seconds("latency.latency", self.latency.map(|limit| limit.latency), LONGEST_SECONDS)?;
        share("error_rate", self.error_rate)?;
        share("latency.quantile", self.latency.map(|limit| limit.quantile))?;
        count("max_tps", self.max_tps, limits.max_tps)?;
        count("max_concurrency", self.max_concurrency, limits.max_concurrency)?;
        count("concurrency", self.concurrency, limits.max_concurrency)?;
        let hints = self.hints.unwrap_or_default();
        count("hints.concurrency", hints.concurrency, limits.max_concurrency)?;
        count("hints.tps", hints.tps, limits.max_tps)?;
        match &self.args {
            Some(args) if !allowed.targets => targets::refuse(args, "args"),
            _ => Ok(()),
        }
    }

    /// The field that makes it a closed loop, if it is one.
    fn closed_loop(&self) -> Option<&'static str> {
        match self {
            Self { concurrency: Some(_), .. } => Some("concurrency"),
            Self { saturate: true, .. } => Some("saturate"),
            _ => None,
        }
    }

    fn check_open_loop(&self) -> Result<(), RequestError> {
        let has_limits = self.error_rate.is_some() || self.latency.is_some();
        match (has_limits, self.max_tps) {
            (false, None) => Err(RequestError::NothingAsked),
            (false, _) if self.find_capacity => Err(RequestError::NoLimits),
            _ => Ok(()),
        }
    }

    fn check_closed_loop(
        &self,
        closed: &'static str,
        allowed: Permissions,
    ) -> Result<(), RequestError> {
        let hints = self.hints.unwrap_or_default();
        let is_fixed = self.concurrency.is_some();
        let meaningless = [
            ("max_tps", self.max_tps.is_some()),
            ("error_rate", self.error_rate.is_some()),
            ("latency", self.latency.is_some()),
            ("find_capacity", self.find_capacity),
            ("arrival", self.arrival.is_some()),
            ("hints.tps", hints.tps.is_some()),
            ("saturate", is_fixed && self.saturate),
            ("max_concurrency", is_fixed && self.max_concurrency.is_some()),
            ("hints.concurrency", is_fixed && hints.concurrency.is_some()),
        ];
        match meaningless.into_iter().find(|&(_, is_given)| is_given) {
            Some((field, _)) => Err(RequestError::ClosedLoop { closed, field }),
            None if !allowed.closed_loops => Err(RequestError::ClosedLoopsNotAllowed),
            None => Ok(()),
        }
    }
}

fn seconds(field: &'static str, value: Option<f64>, most: f64) -> Result<(), RequestError> {
    match value {
        // A microsecond: what is shorter is nothing that can be run or measured.
        Some(value) if !(1e-6..=most).contains(&value) => Err(RequestError::OutOfRange {
            field,
            value: value.to_string(),
            range: format!("0.000001 to {most} seconds"),
        }),
        _ => Ok(()),
    }
}

fn share(field: &'static str, value: Option<f64>) -> Result<(), RequestError> {
    match value {
        Some(value) if !(value > 0.0 && value < 1.0) => Err(RequestError::OutOfRange {
            field,
            value: value.to_string(),
            range: "above 0 and below 1".to_owned(),
        }),
        _ => Ok(()),
    }
}

fn count(field: &'static str, value: Option<u32>, most: u32) -> Result<(), RequestError> {
    match value {
        Some(value) if !(1..=most).contains(&value) => Err(RequestError::OutOfRange {
            field,
            value: value.to_string(),
            range: format!("1 to {most}, which the node was started with"),
        }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn parse(value: &Value) -> Result<RunRequest, RequestError> {
        RunRequest::parse(value.to_string().as_bytes())
    }

    fn check(value: &Value) -> Result<(), RequestError> {
        parse(value)?.check(&RunLimits::default(), Permissions::default())
    }

    #[test]
    fn the_guides_request_is_understood() {
        let request = json!({
            "name": "my_scenario", "duration": 30, "max_tps": 10000, "error_rate": 0.05,
            "latency": { "latency": "0.02", "quantile": 0.95 }
        });
        let request = parse(&request).expect("it is the guide's");
        request.check(&RunLimits::default(), Permissions::default()).expect("it makes sense");
        assert_eq!((request.duration, request.max_tps), (Some(30.0), Some(10_000)));
        assert_eq!(request.latency, Some(LatencyLimit { latency: 0.02, quantile: 0.95 }));
        let again = serde_json::to_vec(&request).expect("JSON");
        assert_eq!(RunRequest::parse(&again), Ok(request));
    }

    #[test]
    fn numbers_may_be_strings() {
        let request = json!({
            "name": "a", "duration": "1.5", "max_tps": "100", "error_rate": "0.1",
            "hints": { "concurrency": "7", "tps": 8.0 }, "max_concurrency": null
        });
        let request = parse(&request).expect("numbers");
        assert_eq!((request.duration, request.max_tps), (Some(1.5), Some(100)));
        assert_eq!(request.hints, Some(Hints { concurrency: Some(7), tps: Some(8) }));
    }

    #[test]
    fn a_closed_loop_has_no_rate_and_needs_permission() {
        let allowed = Permissions { closed_loops: true, ..Permissions::default() };
        let check = |request: &Value| {
            let request = parse(request).expect("it is well-formed");
            request.check(&RunLimits::default(), allowed)
        };
        let fixed = json!({ "name": "a", "concurrency": "50", "timeout": 1, "duration": 5 });
        let saturated = json!({ "name": "a", "saturate": true, "max_concurrency": 64 });
        for request in [&fixed, &saturated] {
            assert_eq!(check(request), Ok(()));
            assert_eq!(self::check(request), Err(RequestError::ClosedLoopsNotAllowed));
        }
        for (closed, extra, field) in [
            ("concurrency", json!({ "max_tps": 5 }), "max_tps"),
            ("concurrency", json!({ "saturate": true }), "saturate"),
            ("concurrency", json!({ "max_concurrency": 50 }), "max_concurrency"),
            ("concurrency", json!({ "hints": { "concurrency": 5 } }), "hints.concurrency"),
            ("saturate", json!({ "error_rate": 0.1 }), "error_rate"),
            ("saturate", json!({ "latency": { "latency": 1, "quantile": 0.9 } }), "latency"),
            ("saturate", json!({ "arrival": "poisson" }), "arrival"),
            ("saturate", json!({ "find_capacity": true }), "find_capacity"),
            ("saturate", json!({ "hints": { "tps": 5 } }), "hints.tps"),
        ] {
            let mut request = if closed == "saturate" { saturated.clone() } else { fixed.clone() };
            let fields = request.as_object_mut().expect("an object");
            fields.extend(extra.as_object().expect("an object").clone());
            assert_eq!(check(&request), Err(RequestError::ClosedLoop { closed, field }));
        }
        let many = json!({ "name": "a", "concurrency": 1_000_001 });
        assert!(matches!(check(&many), Err(RequestError::OutOfRange { .. })));
    }

    #[test]
    fn nonsense_is_refused() {
        let malformed = [
            json!({}),
            json!([]),
            json!("run"),
            json!({ "name": "a", "max_tps": -1 }),
            json!({ "name": "a", "max_tps": 1.5 }),
            json!({ "name": "a", "max_tps": "many" }),
            json!({ "name": "a", "max_tps": 5_000_000_000_u64 }),
            json!({ "name": "a", "max_tps": true }),
            json!({ "name": "a", "max_tps": 1, "target": "x" }),
            json!({ "name": "a", "latency": { "latency": 1 } }),
            json!({ "name": "a", "latency": 0.02 }),
            json!({ "name": "a", "duration": "NaN", "max_tps": 1 }),
            json!({ "name": "a", "max_tps": 1, "arrival": "bursts" }),
        ];
        for request in malformed {
            let error = check(&request).expect_err("malformed");
            assert!(matches!(error, RequestError::Malformed(_)), "{request}: {error}");
        }
        let out_of_range = [
            json!({ "name": "a", "max_tps": 0 }),
            json!({ "name": "a", "max_tps": 10_000_001 }),
            json!({ "name": "a", "max_tps": 1, "duration": 0 }),
            json!({ "name": "a", "max_tps": 1, "duration": -1 }),
            json!({ "name": "a", "max_tps": 1, "duration": 1e308 }),
            json!({ "name": "a", "max_tps": 1, "timeout": 1e-300 }),
            json!({ "name": "a", "error_rate": 1 }),
            json!({ "name": "a", "error_rate": 0 }),
            json!({ "name": "a", "latency": { "latency": 0.1, "quantile": 1 } }),
            json!({ "name": "a", "latency": { "latency": 0, "quantile": 0.9 } }),
            json!({ "name": "a", "max_tps": 1, "max_concurrency": 1_000_001 }),
            json!({ "name": "a", "max_tps": 1, "hints": { "tps": 0 } }),
        ];
        for request in out_of_range {
            let error = check(&request).expect_err("out of range");
            assert!(matches!(error, RequestError::OutOfRange { .. }), "{request}: {error}");
        }
        assert_eq!(check(&json!({ "name": "a" })), Err(RequestError::NothingAsked));
        let request = json!({ "name": "a", "max_tps": 1, "find_capacity": true });
        assert_eq!(check(&request), Err(RequestError::NoLimits));
    }

    #[test]
    fn a_request_cannot_say_what_is_loaded() {
        let request = json!({ "name": "a", "max_tps": 1, "args": { "to": ["x", "http://b.c/"] } });
        let error = check(&request).expect_err("an address");
        assert!(error.to_string().contains("`args.to[1]`"), "{error}");
        let request = parse(&request).expect("well-formed");
        let allowed = Permissions { targets: true, ..Permissions::default() };
        assert_eq!(request.check(&RunLimits::default(), allowed), Ok(()));
    }
}
