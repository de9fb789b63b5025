//! Any return type will do.
#![deny(warnings)]

use std::fmt::Display;
use std::num::ParseIntError;

use balter_uring::prelude::*;

type Alias<T, E = Box<dyn std::error::Error>> = Result<T, E>;

#[transaction]
async fn unit() {
    if std::hint::black_box(true) {
        return;
    }
    std::future::ready(()).await;
}

#[transaction]
async fn explicit_unit() -> () {
    unit().await
}

#[transaction]
async fn plain() -> u32 {
    7
}

#[transaction]
async fn maybe(text: &str) -> Option<char> {
    let first = text.chars().next()?;
    Some(first)
}

#[transaction]
async fn parsed(text: &str) -> Result<u32, ParseIntError> {
    text.parse()
}

#[transaction]
async fn aliased(text: &str) -> Alias<u32> {
    if text.is_empty() {
        return Err("empty".into());
    }
    let number: u32 = text.parse()?;
    parsed(text).await?;
    Ok(number)
}

#[transaction]
async fn io() -> std::io::Result<()> {
    Err(std::io::ErrorKind::TimedOut)?;
    Ok(())
}

#[transaction]
async fn generic_result<T: Clone, E>(output: &Result<T, E>) -> Result<T, E>
where
    E: Clone,
{
    output.clone()
}

#[transaction]
async fn generic<T>(value: T) -> T {
    value
}

#[transaction]
async fn opaque(number: u32) -> impl Display + use<> {
    number
}

#[transaction]
async fn opaque_literal() -> impl Display {
    5
}

#[transaction]
async fn opaque_inside(text: &str) -> Result<impl Display + use<>, Box<dyn std::error::Error>> {
    let number: u32 = text.parse()?;
    Ok(number)
}

#[transaction]
async fn opaque_result(text: &str) -> impl Into<Result<u32, ParseIntError>> + use<> {
    text.parse::<u32>()
}

#[transaction]
async fn diverging() -> Result<u8, String> {
    loop {
        std::future::pending::<()>().await;
    }
}

#[transaction]
async fn never() -> ! {
    loop {
        std::future::pending::<()>().await;
    }
}

#[transaction]
async fn boxed() -> Box<dyn Fn(&str) -> usize> {
    Box::new(str::len)
}

fn main() {
    drop((
        unit(),
        explicit_unit(),
        plain(),
        maybe("a"),
        parsed("1"),
        aliased("1"),
        io(),
        generic_result(&Ok::<u8, ()>(1)),
        generic(1),
        opaque(1),
        opaque_literal(),
        opaque_inside("1"),
        opaque_result("1"),
        diverging(),
        never(),
        boxed(),
    ));
}
