//! Keeping the waker of a task that waits.

use std::task::{Context, Waker};

/// Keeps the waker of `cx` in `place`; clones it only if another is there.
#[inline]
pub(crate) fn remember(place: &mut Option<Waker>, cx: &Context<'_>) {
    match place {
        Some(waker) if waker.will_wake(cx.waker()) => {}
        _ => *place = Some(cx.waker().clone()),
    }
}
