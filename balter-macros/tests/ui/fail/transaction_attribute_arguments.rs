use balter_uring::prelude::*;

#[transaction(name = "get")]
async fn get() {}

fn main() {
    let _ = get();
}
