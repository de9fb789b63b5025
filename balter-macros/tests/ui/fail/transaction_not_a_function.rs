use balter_uring::prelude::*;

#[transaction]
static GET: &str = "/";

trait Service {
    #[transaction]
    async fn required(&self);
}

fn main() {
    let _ = GET;
}
