use balter_uring::prelude::*;

#[scenario(tps = 100)]
async fn browse() {}

fn main() {
    let _ = browse().tps(1);
}
