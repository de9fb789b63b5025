use balter_uring::prelude::*;

#[scenario]
async fn browse(host: impl Into<String>, #[cfg(unix)] uid: u32) {
    let _ = host;
}

fn main() {}
