use balter_uring::prelude::*;

#[transaction]
fn get(path: &str) -> usize {
    path.len()
}

fn main() {
    let _: usize = get("/");
}
