//! How many instances a rate needs by Little's law: the rate times the mean time
//! that one transaction keeps an instance.

use super::ladder::Sample;

/// Weight of the newest window in the mean service time.
const NEWEST: f64 = 0.3;

/// Completions below which a measured cycle says too little.
const ENOUGH: u64 = 10;

/// What is known about the time that a transaction takes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Little {
    /// Mean over the last windows in nanoseconds.
    service_ns: Option<f64>,
    /// Time that an instance needs for one transaction with all it does around
    /// it, as a multiple of the service time; at least 1.
    cycle: f64,
}

impl Default for Little {
    fn default() -> Self {
        Little { service_ns: None, cycle: 1.0 }
    }
}

impl Little {
    /// Takes in the mean service time of one window.
    pub(super) fn learn_service(&mut self, mean_ns: f64) {
        let smooth_ns = self.service_ns.map_or(mean_ns, |old| old + NEWEST * (mean_ns - old));
        self.service_ns = Some(smooth_ns);
    }

    /// Takes in a measurement during which permits waited: every instance was in
    /// use, so the time that instances existed for one completion is the time
    /// that a transaction takes with all around it.
    pub(super) fn learn_cycle(&mut self, sample: &Sample) {
        if sample.completed >= ENOUGH && sample.service_ns > 0.0 {
            // Bounded, because a scenario that does next to nothing else than
            // wait would ask for instances without end.
            self.cycle = (sample.instance_ns / sample.service_ns).clamp(1.0, 100.0);
        }
    }

    /// Instances for a rate at the mean service time of the last windows.
    pub(super) fn needed(&self, tps: u32) -> Option<u32> {
        self.service_ns.map(|service_ns| self.needed_at(tps, service_ns))
    }

    /// Instances for a rate at a service time. With random arrivals the number
    /// in use is Poisson distributed, with a standard deviation of its square
    /// root; the quarter covers service times that drift, the two a handful of
    /// instances.
    pub(super) fn needed_at(&self, tps: u32, service_ns: f64) -> u32 {
        let mean = f64::from(tps) * service_ns * self.cycle / 1e9;
        let margin = (mean / 4.0).max(3.0 * mean.sqrt());
        ((mean + margin).ceil() as u32).saturating_add(2)
    }
}
