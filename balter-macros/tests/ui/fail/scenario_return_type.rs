use balter_uring::prelude::*;

#[scenario]
async fn browse() -> Result<(), String> {
    Ok(())
}

fn main() {
    let _ = browse().tps(1);
}
