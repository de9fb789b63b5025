//! Arguments of every shape are accepted, and the builder is an ordinary function of them.
#![deny(warnings)]

use std::sync::Arc;

use balter_uring::Scenario;
use balter_uring::prelude::*;

#[derive(Clone)]
struct Target {
    host: String,
    port: u16,
}

/// Documented, public, generic.
#[scenario]
pub async fn everything<T>(
    plain: String,
    mut counter: u32,
    Target { host, port }: Target,
    (first, _): (u8, String),
    _: Arc<str>,
    ref by_ref: String,
    whole @ [_, _]: [u8; 2],
    #[allow(unused_variables)] unused: u8,
    _guard: Arc<()>,
    generic: T,
    text: &'static str,
    callback: Arc<dyn Fn(&str) -> usize + Send + Sync>,
) where
    T: Clone + Send + Into<u64> + 'static,
{
    counter += 1;
    let sum = plain.len() + host.len() + by_ref.len() + text.len() + callback(text);
    let small = u64::from(counter) + u64::from(port) + u64::from(first) + u64::from(whole[0]);
    if sum as u64 + small > generic.into() {
        return;
    }
    std::future::ready(()).await;
}

#[scenario]
async fn none() {}

#[scenario]
async fn unit() -> () {
    std::future::ready(()).await
}

#[scenario]
async fn forever() {
    loop {
        std::future::ready(()).await;
    }
}

#[scenario]
async fn one(_only: String) {
    #![allow(unused_variables)]
    let not_send = std::rc::Rc::new(1);
    std::future::ready(()).await;
    drop(not_send);
}

#[scenario]
async fn constant<const N: usize>(list: [u8; N]) {
    let _ = list;
}

#[scenario]
async fn r#loop(r#type: u8) {
    let _ = r#type;
}

struct Suite;

impl Suite {
    #[scenario]
    async fn associated(self_like: Arc<Suite>) {
        let _: Arc<Self> = self_like;
    }
}

fn is_send<T: Send>(value: T) -> T {
    value
}

fn main() {
    let text = String::new;
    let scenarios: Vec<Scenario> = vec![
        everything(
            text(),
            0,
            Target { host: text(), port: 80 },
            (1, text()),
            "a".into(),
            text(),
            [1, 2],
            3,
            Arc::new(()),
            4_u32,
            "five",
            Arc::new(str::len),
        ),
        none(),
        unit(),
        forever(),
        one(text()),
        constant([1, 2, 3]),
        r#loop(1),
        Suite::associated(Arc::new(Suite)),
    ];
    is_send(scenarios);
    let _configured = none().tps(100);
}
