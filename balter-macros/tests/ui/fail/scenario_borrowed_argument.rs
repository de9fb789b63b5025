use std::borrow::Cow;

use balter_uring::prelude::*;

#[scenario]
async fn browse(host: &str, paths: Vec<&'static [&str]>, agent: Cow<'_, str>) {
    let _ = (host, paths, agent);
}

#[scenario]
async fn named<'a>(host: &'a str) {
    let _ = host;
}

fn main() {
    let _ = browse("a", vec![], "b".into()).tps(1);
}
