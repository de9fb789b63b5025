use balter_uring::prelude::*;

#[scenario]
pub struct Browse;

trait Load {
    #[scenario]
    async fn required();
}

fn main() {
    let _ = Browse;
}
