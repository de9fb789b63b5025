//! Building Blocks, Transactions: async functions with any number of arguments.
use balter::http::{Client, Error};
use balter::prelude::*;

struct Val;

#[transaction]
async fn foo(client: &Client) -> Result<(), Error> {
    client.get("http://127.0.0.1:8080/").send().await?.discard().await?;
    Ok(())
}

#[transaction]
async fn bar(client: &Client, val: &Val) -> Result<u32, Error> {
    let _ = val;
    let response = client.get("http://127.0.0.1:8080/").send().await?;
    Ok(u32::from(response.status().as_u16()))
}

fn main() {
    let client = Client::new();
    drop((foo(&client), bar(&client, &Val)));
}
