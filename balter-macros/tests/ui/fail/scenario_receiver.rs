use balter_uring::prelude::*;

struct User;

impl User {
    #[scenario]
    async fn browse(&self) {}
}

fn main() {
    let _ = User.browse().tps(1);
}
