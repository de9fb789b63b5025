use balter_uring::prelude::*;

#[scenario]
fn plain() {}

fn main() {
    let _ = plain().tps(1);
}
