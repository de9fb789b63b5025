use crate::schedule::SECOND_NS;

/// The grid of a whole rate: tick `j` is due `(j + phase) / tps` seconds after `from_ns`.
///
/// All who share a rate take their ticks from one timetable, so that together they are evenly
/// spaced, whatever their number, and stay so when the rate changes.
///
/// ```
/// use balter_controllers::Timetable;
///
/// let mut whole = Timetable::new(0, 100);
/// let before = whole.ticks(0, 2);
/// // 4 ms after the tick at 10 ms, four tenths of an interval have passed: at ten a second, six
/// // tenths of one are left.
/// whole.change(14_000_000, 10);
/// assert_eq!((whole.from_ns(), whole.tps()), (14_000_000, 10));
/// assert!((whole.ticks(0, 1).phase - 0.6).abs() < 1e-9);
/// assert_ne!(whole.ticks(0, 2), before);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Timetable {
    from_ns: u64,
    /// `0.0..1.0`; while the rate is zero, the share of an interval that is left for later.
    phase: f64,
    tps: u32,
}

impl Timetable {
    /// A rate of `tps` ticks a second, the first of them due at `from_ns`.
    #[must_use]
    pub fn new(from_ns: u64, tps: u32) -> Self {
        Self { from_ns, phase: 0.0, tps }
    }

    /// From when on it holds, in nanoseconds.
    #[must_use]
    pub fn from_ns(&self) -> u64 {
        self.from_ns
    }

    /// Ticks a second, over all parts.
    #[must_use]
    pub fn tps(&self) -> u32 {
        self.tps
    }

    /// Has another rate from `at_ns` on. A time before the last change counts as that.
    ///
    /// The share of an interval that has already passed carries over: the next
    /// tick is due after what is left of it at the new rate, so there is no
    /// burst and no wait longer than one interval of the slower rate. At rate zero
    /// nothing is due, and the share is kept.
    pub fn change(&mut self, at_ns: u64, tps: u32) {
        let elapsed_ns = at_ns.saturating_sub(self.from_ns);
        if self.tps > 0 {
            // Ticks repeat every second.
            let within_ns = (elapsed_ns % SECOND_NS) as f64;
            let passed = within_ns * f64::from(self.tps) / 1e9 - self.phase;
            // Exactly one whole interval to go is possible (changed just after a tick); the
            // grid wants a phase below one.
            self.phase = (passed.ceil() - passed).clamp(0.0, 1.0 - f64::EPSILON);
        }
        self.from_ns = self.from_ns.saturating_add(elapsed_ns);
        self.tps = tps;
    }

    /// The ticks of one of `parts` that share the rate evenly: number `part`, `part + parts`, …
    ///
    /// With fewer ticks a second than parts, use as many parts as ticks: the others would have one
    /// every few seconds, and need an instance for it.
    ///
    /// # Panics
    ///
    /// If `part` is not below `parts`.
    #[must_use]
    pub fn ticks(&self, part: u32, parts: u32) -> Ticks {
        assert!(part < parts, "part {part} of {parts} does not exist: use 0..{parts}");
        let &Self { from_ns, phase, tps } = self;
        Ticks { from_ns, phase, tps, part, parts }
    }
}

/// One part's ticks of a [`Timetable`]: those with the numbers `part`, `part + parts`, …
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ticks {
    /// From when on they hold, in nanoseconds.
    pub from_ns: u64,
    /// When tick zero of the whole is due after that, in intervals of the whole, `0.0..1.0`.
    pub phase: f64,
    /// Ticks a second of the whole.
    pub tps: u32,
    /// The first of them.
    pub part: u32,
    /// How many take turns, at least 1.
    pub parts: u32,
}

impl Ticks {
    /// None at all.
    #[must_use]
    pub fn none(from_ns: u64) -> Self {
        Self { from_ns, phase: 0.0, tps: 0, part: 0, parts: 1 }
    }

    /// This part's ticks a second.
    #[must_use]
    pub fn rate(&self) -> f64 {
        f64::from(self.tps) / f64::from(self.parts)
    }
}
