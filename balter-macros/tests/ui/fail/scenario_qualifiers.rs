use balter_uring::prelude::*;

#[scenario]
const fn constant() {}

#[scenario]
async unsafe fn dangerous() {}

#[scenario]
async extern "C" fn foreign() {}

fn main() {}
