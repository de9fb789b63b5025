//! The statistics say why transactions failed: which text, which status, against whom, how often.

#[path = "support/lib.rs"]
mod support;

use std::net::SocketAddr;

use balter_uring::http::{Client, Error};
use balter_uring::prelude::*;
use balter_uring::target::Target;
use balter_uring::{ErrorStatistics, FailureClass};
use support::{assert_adds_up, wait};

/// The errors of a run, of which the counts are those of all failures.
fn errors(run: Scenario) -> Vec<ErrorStatistics> {
    let statistics = wait(run.duration(Duration::from_millis(500)));
    assert_adds_up(&statistics);
    let listed: u64 = statistics.errors.iter().map(|error| error.count).sum();
    assert_eq!(listed + statistics.other_errors, statistics.counts.failed, "{statistics}");
    assert!(statistics.counts.failed > 0 && statistics.errors.len() <= 20, "{statistics}");
    for error in statistics.errors.iter().take(8) {
        // As it is shown, it may be broken anywhere.
        let words = |text: &str| text.split_whitespace().collect::<String>();
        let shown = words(&statistics.to_string());
        assert!(shown.contains(&words(&error.text)), "{error:?}: {statistics}");
    }
    statistics.errors
}

/// The same, where there is but one.
fn error(run: Scenario) -> ErrorStatistics {
    let mut errors = errors(run);
    assert_eq!(errors.len(), 1, "{errors:#?}");
    errors.remove(0)
}

mod checked {
    use super::*;

    #[transaction]
    pub(crate) async fn fetched(client: &Client, url: &str) -> Result<u64, Error> {
        client.get(url).send().await?.error_for_status()?.discard().await
    }
}

#[scenario]
async fn asks(url: String) {
    let client = Client::new();
    loop {
        let _ = checked::fetched(&client, &url).await;
        balter_uring::time::sleep(Duration::from_millis(5)).await;
    }
}

#[test]
fn a_status_is_told_with_its_text_and_its_address() {
    let target = Target::builder().error_rate(1.0).start().expect("a target");
    let error = error(asks(target.url()).concurrency(2));
    assert_eq!((error.class, error.status), (FailureClass::Status, Some(500)));
    assert_eq!(error.address, Some(target.address()));
    assert_eq!(error.transaction, "fetched");
    assert!(error.module.ends_with("checked"), "{error:?}");
    assert_eq!(error.text, "the answer has the status 500 Internal Server Error");
}

#[test]
fn a_url_without_a_scheme_is_named() {
    let error = error(asks("127.0.0.1:1/x".to_owned()).concurrency(2));
    assert_eq!((error.class, error.status), (FailureClass::Application, None));
    assert!(error.text.contains("`127.0.0.1:1/x`") && error.text.contains("http://"), "{error:?}");
    assert_eq!(error.address, None);
}

#[test]
fn tls_on_a_plain_port_is_named() {
    let target = Target::start().expect("a target");
    let error = error(asks(target.url().replace("http", "https")).concurrency(2));
    assert_eq!(error.class, FailureClass::Tls);
    assert_eq!(error.address, Some(target.address()));
    assert!(error.text.contains("TLS"), "{error:?}");
}

#[test]
fn a_refused_connection_is_told_with_its_address() {
    let address = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        listener.local_addr().expect("an address")
    };
    let error = error(asks(format!("http://{address}/")).concurrency(2));
    assert_eq!((error.class, error.address), (FailureClass::Refused, Some(address)));
    assert!(error.text.contains("refused"), "{error:?}");
}

#[test]
fn a_deadline_is_told_with_its_address() {
    let target = Target::builder().delay(Duration::from_secs(9)).start().expect("a target");
    let run = asks(target.url()).concurrency(2).timeout(Duration::from_millis(50));
    let error = error(run);
    assert_eq!((error.class, error.address), (FailureClass::Timeout, Some(target.address())));
    assert!(error.text.contains("deadline"), "{error:?}");
}

#[test]
fn code_that_keeps_its_deadline_to_itself_is_told_too() {
    #[transaction]
    async fn sleeps() -> Result<(), String> {
        std::future::pending().await
    }
    #[scenario]
    async fn sleeper() {
        let _ = sleeps().await;
    }
    let run = sleeper().concurrency(2).timeout(Duration::from_millis(50));
    let error = error(run);
    assert_eq!(
        (error.class, &*error.text),
        (FailureClass::Timeout, "the transaction's deadline passed")
    );
}

mod of {
    use super::*;

    pub(crate) struct Mute;
    #[derive(Debug)]
    #[expect(dead_code, reason = "for its `Debug`")]
    pub(crate) struct Code(char);

    #[transaction]
    pub(crate) async fn text() -> Result<(), &'static str> {
        Err("the basket\nis empty")
    }
    #[transaction]
    pub(crate) async fn debug() -> Result<(), Code> {
        Err(Code('x'))
    }
    #[transaction]
    pub(crate) async fn mute() -> Result<(), Mute> {
        Err(Mute)
    }
    #[transaction]
    pub(crate) async fn none() -> Option<u8> {
        None
    }
    #[transaction]
    pub(crate) async fn panics() {
        panic!("the scenario's own")
    }
    #[transaction]
    pub(crate) async fn well() -> Result<(), Code> {
        Ok(())
    }
}

#[test]
fn every_type_of_error_says_what_it_can() {
    #[scenario]
    async fn all() {
        let _ = of::text().await;
        let _ = of::debug().await;
        let _ = of::mute().await;
        let _ = of::none().await;
        let _ = of::well().await;
        balter_uring::time::sleep(Duration::from_millis(1)).await;
        of::panics().await;
    }
    let mut errors: Vec<_> = errors(all().concurrency(1).cores([0]))
        .into_iter()
        .map(|error| (error.transaction, error.text, error.class))
        .collect();
    errors.sort();
    let expected = [
        ("debug", "Code('x')", FailureClass::Application),
        ("mute", "", FailureClass::Application),
        ("none", "it returned `None`", FailureClass::Application),
        ("panics", "it panicked", FailureClass::Panic),
        ("text", "the basket\\nis empty", FailureClass::Application),
    ];
    let expected = expected.map(|(name, text, class)| (name.to_owned(), text.to_owned(), class));
    assert_eq!(errors, expected);
}

#[test]
fn texts_that_are_always_new_are_bounded_and_counted_all_the_same() {
    #[transaction]
    async fn fails(number: u64) -> Result<(), String> {
        let letters: String =
            number.to_string().bytes().map(|b| char::from(b'p' + b % 10)).collect();
        Err(format!("{letters} was not found"))
    }
    #[scenario]
    async fn failing() {
        let mut number = 0;
        loop {
            number += 1;
            let _ = fails(number).await;
        }
    }
    let errors = errors(failing().tps(2_000).cores([0]));
    assert_eq!(errors.len(), 20, "{errors:#?}");
}

#[test]
fn numbers_do_not_make_a_text_new() {
    #[transaction]
    async fn fails(number: u64) -> Result<(), String> {
        Err(format!(
            "order {number} from {} was lost",
            SocketAddr::from(([127, 0, 0, 1], number as u16))
        ))
    }
    #[scenario]
    async fn failing() {
        let mut number = 10_000;
        loop {
            number += 1;
            let _ = fails(number).await;
        }
    }
    let error = error(failing().tps(500).cores([0]));
    assert!(
        error.count > 10 && error.text.starts_with("order 10001 from 127.0.0.1:10001"),
        "{error:?}"
    );
}

#[test]
fn what_never_ended_is_in_the_quantiles_as_a_lower_bound() {
    // It answers two in three: the others wait until the run gives them up.
    let target = Target::builder().queueing_capacity(40).start().expect("a target");
    let run = asks(target.url()).tps(400).max_concurrency(8).grace(Duration::from_millis(50));
    let statistics = wait(run.duration(Duration::from_secs(1)));
    assert_adds_up(&statistics);
    let counts = statistics.counts;
    assert_eq!(statistics.given_up.len(), counts.missed + counts.cancelled, "{statistics}");
    assert!(counts.missed > 50 && counts.succeeded > 0, "{statistics}");
    let (p50, max) = (statistics.response_quantile(0.5), statistics.response_quantile(1.0));
    assert!(p50.is_lower_bound && max.is_lower_bound, "{statistics}");
    assert!(max.at_least >= statistics.given_up.max().mul_f64(0.99), "{max:?}: {statistics}");
    // Those that were due in the first half had waited for half of the run when it ended.
    assert!(p50.at_least >= Duration::from_millis(200), "{p50:?}: {statistics}");
    assert!(statistics.to_string().contains('≥'), "{statistics}");
}
