use balter_uring::prelude::*;

#[scenario(100)]
fn browse(host: &str) -> bool {
    host.is_empty()
}

fn main() {
    let _ = browse("a").tps(1);
}
