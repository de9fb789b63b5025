//! Windows of many parts, brought onto one grid of time.

use std::collections::VecDeque;

use crate::Window;

/// Cells of the grid that a part may lag behind the foremost one before it is no longer waited for.
const MOST_BEHIND: u64 = 3;

/// Makes the windows of the whole of those of its parts (shards, nodes).
///
/// The ends of the whole's windows lie on a grid: `start + k × length`. The parts' windows need not:
/// a part that is late ends its window late, and one that was kept from running for a second has one
/// window for ten cells. What it counted is taken to be spread evenly over its window, so that each
/// window of the whole gets the share of the time that both have in common. So a late part is one
/// part, for as long as its window is, and never several.
///
/// Cells become a window of the whole when all parts have told of them; if that happens to several
/// cells at once, they become one window, longer by so much. This is rather that than several alike,
/// since a controller would take several for as many independent observations.
///
/// A part that lags more than three cells behind the foremost one is passed over: the windows go on
/// without its counts, with the states that were last known of it, and say so in
/// [`absent`](Window::absent). When it tells, what lies in windows that are gone is left out of
/// those to come: their rate is that of their own time. Sums over a whole run are therefore to be
/// made of the parts' windows.
///
/// ```
/// use balter_controllers::{Window, WindowGrid};
///
/// let mut grid = WindowGrid::new(0, 100, 2);
/// let window = |start_ns, length_ns, succeeded| {
///     Window { start_ns, length_ns, succeeded, instances: 5, ..Window::default() }
/// };
/// grid.push(0, &window(0, 100, 10));
/// assert_eq!(grid.advance(), None, "the other part has yet to tell");
/// // It is late: its window is that of two cells and a half.
/// grid.push(1, &window(0, 250, 25));
/// let whole = grid.advance().expect("both have told of the first cell");
/// assert_eq!((whole.length_ns, whole.succeeded, whole.instances), (100, 20, 10));
/// ```
#[derive(Clone, Debug)]
pub struct WindowGrid {
    start_ns: u64,
    length_ns: u64,
    /// Up to here windows of the whole have been made.
    done_ns: u64,
    parts: Vec<Part>,
}

/// What is known of one part.
#[derive(Clone, Debug)]
struct Part {
    /// Its windows, as far as they are not in one of the whole yet. As many as a part can be ahead
    /// of the others, which is bounded by [`MOST_BEHIND`].
    pending: VecDeque<Window>,
    /// It has told of everything up to here.
    told_ns: u64,
    /// States at the end of its last window that is in one of the whole.
    backlog: u64,
    instances: u32,
    starting: u32,
    in_flight: u32,
    /// It told of something too late since the last window of the whole.
    is_cut: bool,
    /// No more windows are to come.
    is_over: bool,
    /// It is gone, with all its instances.
    is_lost: bool,
}

impl WindowGrid {
    /// A grid with cells of `length_ns` (one nanosecond at least), for so many parts, each of which
    /// begins at `start_ns`.
    #[must_use]
    pub fn new(start_ns: u64, length_ns: u64, parts: usize) -> Self {
        let part = Part {
            pending: VecDeque::new(),
            told_ns: start_ns,
            backlog: 0,
            instances: 0,
            starting: 0,
            in_flight: 0,
            is_cut: false,
            is_over: false,
            is_lost: false,
        };
        let length_ns = length_ns.max(1);
        Self { start_ns, length_ns, done_ns: start_ns, parts: vec![part; parts] }
    }

    /// Takes in a part's next window. Those of a part come in order and follow each other.
    ///
    /// # Panics
    ///
    /// If there is no such part.
    pub fn push(&mut self, part: usize, window: &Window) {
        let part = &mut self.parts[part];
        let mut window = window.clone();
        part.told_ns = part.told_ns.max(window.start_ns.saturating_add(window.length_ns));
        if window.start_ns < self.done_ns {
            part.is_cut = true;
            part.stand(&window);
            // Of the time of windows that are gone without it.
            let _ = window.take_until(self.done_ns);
            if window.length_ns == 0 {
                return;
            }
        }
        part.pending.push_back(window);
    }

    /// The part has told of everything: it is waited for no more.
    ///
    /// # Panics
    ///
    /// If there is no such part.
    pub fn end(&mut self, part: usize) {
        self.parts[part].is_over = true;
    }

    /// The part is gone, and its instances with it: it is waited for no more.
    ///
    /// # Panics
    ///
    /// If there is no such part.
    pub fn lose(&mut self, part: usize) {
        let part = &mut self.parts[part];
        (part.is_over, part.is_lost) = (true, true);
    }

    /// The next window of the whole, if there is one. To be asked for after each
    /// [`push`](Self::push), [`end`](Self::end) and [`lose`](Self::lose).
    ///
    /// It begins where the last one has ended. It ends on the grid, but for the one with which the
    /// last part is over.
    pub fn advance(&mut self) -> Option<Window> {
        let to_ns = self.told_by_all_ns();
        let is_over = self.parts.iter().all(|part| part.is_over);
        let is_pending = self.parts.iter().any(|part| !part.pending.is_empty());
        if to_ns <= self.done_ns && !(is_over && is_pending) {
            return None;
        }
        let mut whole = Window::default();
        for part in &mut self.parts {
            whole.merge(&part.take_until(to_ns));
            let is_late = part.told_ns < to_ns && !part.is_over;
            whole.absent += u32::from(std::mem::take(&mut part.is_cut) || is_late);
        }
        let start_ns = std::mem::replace(&mut self.done_ns, to_ns);
        (whole.start_ns, whole.length_ns) = (start_ns, to_ns - start_ns);
        Some(whole)
    }

    /// The last boundary of the grid up to which nobody is waited for.
    fn told_by_all_ns(&self) -> u64 {
        let foremost_ns = self.parts.iter().map(|part| part.told_ns).max().unwrap_or(self.done_ns);
        let patience_ns = self.length_ns.saturating_mul(MOST_BEHIND);
        let active = self.parts.iter().filter(|part| !part.is_over);
        let told_ns = match active.map(|part| part.told_ns).min() {
            Some(told_ns) => {
                let told_ns = told_ns.max(foremost_ns.saturating_sub(patience_ns));
                told_ns - told_ns.saturating_sub(self.start_ns) % self.length_ns
            }
            None => foremost_ns,
        };
        told_ns.max(self.done_ns)
    }
}

impl Part {
    /// What it did up to `to_ns` that is in no window of the whole yet, and how it stands.
    fn take_until(&mut self, to_ns: u64) -> Window {
        let mut sum = Window::default();
        // A window without length belongs to the moment at which it is.
        let begins = |next: &Window| next.start_ns < to_ns + u64::from(next.length_ns == 0);
        while let Some(window) = self.pending.front_mut().filter(|next| begins(next)) {
            let piece = window.take_until(to_ns);
            if window.length_ns == 0 {
                self.pending.pop_front();
            }
            sum.append(&piece);
            self.stand(&piece);
        }
        (sum.backlog, sum.instances, sum.starting, sum.in_flight) = match self.is_lost {
            true => (0, 0, 0, 0),
            false => (self.backlog, self.instances, self.starting, self.in_flight),
        };
        sum
    }

    fn stand(&mut self, window: &Window) {
        (self.backlog, self.instances, self.starting, self.in_flight) =
            (window.backlog, window.instances, window.starting, window.in_flight);
    }
}
