//! Arguments, receivers, generics and places of all kinds.
#![deny(warnings)]

use std::pin::Pin;
use std::sync::Arc;

use balter_uring::prelude::*;

// Names that the expansion uses too.
const META: u8 = 1;
struct Probe;

#[transaction]
async fn borrowing<'a>(list: &'a mut Vec<String>, text: &str) -> Option<&'a str> {
    list.push(text.to_owned());
    list.last().map(String::as_str)
}

#[transaction]
async fn patterns(mut count: u32, (a, _): (u8, String), [x, ..]: [u8; 3], _: String) -> u32 {
    count += u32::from(a) + u32::from(x) + u32::from(META);
    let _ = Probe;
    count
}

#[transaction]
pub(crate) async fn generics<T, const N: usize>(items: [T; N]) -> Vec<T>
where
    T: Clone + PartialEq,
{
    let mut seen = Vec::new();
    for item in items {
        if !seen.contains(&item) {
            seen.push(item.clone());
        }
    }
    seen
}

#[transaction]
async fn r#try(action: impl AsyncFn(u8) -> Result<(), ()>) -> Result<(), ()> {
    action(1).await?;
    action(2).await
}

struct Client {
    sent: u32,
}

impl Client {
    /// By reference.
    #[transaction]
    pub async fn count(&self) -> u32 {
        self.sent
    }

    #[transaction]
    async fn send(&mut self, text: &str) -> Result<&mut Self, String> {
        if text.is_empty() {
            return Err("nothing to send".to_owned());
        }
        self.sent += 1;
        Ok(self)
    }

    #[transaction]
    async fn close(mut self) -> Self {
        self.sent = 0;
        self
    }

    #[transaction]
    async fn shared(self: Arc<Self>) -> Option<u32> {
        Some(self.sent)
    }

    #[transaction]
    async fn pinned(self: Pin<&mut Self>) -> u32 {
        self.sent
    }

    #[transaction]
    async fn connect() -> Result<Self, ()> {
        Ok(Self { sent: 0 })
    }
}

trait Service {
    type Error;

    async fn call(&self, text: &str) -> Result<usize, Self::Error>;

    #[transaction]
    async fn provided(&self) -> Result<usize, Self::Error> {
        self.call("default").await
    }
}

impl<T: PartialEq<str>> Service for Option<T> {
    type Error = &'static str;

    #[transaction]
    async fn call(&self, text: &str) -> Result<usize, Self::Error> {
        match self {
            Some(own) if own == text => Ok(text.len()),
            _ => Err("unknown"),
        }
    }
}

macro_rules! transactions {
    ($($name:ident($arg:ident: $ty:ty) -> $ret:ty $body:block)*) => {
        $(#[transaction] async fn $name($arg: $ty) -> $ret $body)*
    };
}

transactions! {
    from_a_macro(text: &str) -> usize { text.len() }
    nothing_from_a_macro(text: &str) -> () { drop(text.to_owned()) }
}

#[scenario]
async fn user(name: String) {
    let Ok(mut client) = Client::connect().await else {
        return;
    };
    for _ in 0..2 {
        if client.send(&name).await.is_err() {
            return;
        }
    }
    let _ = client.count().await;
    let mut client = Box::pin(client.close().await);
    let _ = client.as_mut().pinned().await;
    let _ = Arc::new(Client { sent: 1 }).shared().await;

    let mut list = Vec::new();
    let _ = borrowing(&mut list, &name).await;
    let _ = patterns(1, (1, name.clone()), [1, 2, 3], name.clone()).await;
    let _ = generics([1, 2, 1]).await;
    let _ = r#try(async |_| Ok(())).await;
    let _ = Some(name.clone()).provided().await;
    let _ = from_a_macro(&name).await;
    nothing_from_a_macro(&name).await;
}

fn main() {
    let _ = user("somebody".to_owned());
}
