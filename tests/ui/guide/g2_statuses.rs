//! Transactions: a response is matched on, so that a bad status is a failure.
use balter::http::Client;
use balter::prelude::*;

const MY_URL: &str = "http://127.0.0.1:8080/";

enum Error {
    Http,
    FailedTransaction,
}

impl From<balter::http::Error> for Error {
    fn from(_: balter::http::Error) -> Self {
        Self::Http
    }
}

#[transaction]
async fn foo(client: &Client) -> Result<(), Error> {
    let res = client.post(MY_URL)
        .body("{}")
        .send()
        .await?;

    if res.status().is_success() {
        Ok(())
    } else {
        Err(Error::FailedTransaction)
    }
}

fn main() {
    drop(foo(&Client::new()));
}
