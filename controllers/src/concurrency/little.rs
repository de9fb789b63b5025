//! How many transactions a rate has under way by Little's law: the rate times their mean service
//! time.

/// Weight of the newest window in the mean service time.
const NEWEST: f64 = 0.3;

/// What is known about the time that a transaction takes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Little {
    /// Mean over the last windows in nanoseconds.
    service_ns: Option<f64>,
}

impl Little {
    /// Takes in the mean service time of one window.
    pub(super) fn learn_service(&mut self, mean_ns: f64) {
        let smooth_ns = self.service_ns.map_or(mean_ns, |old| old + NEWEST * (mean_ns - old));
        self.service_ns = Some(smooth_ns);
    }

    /// Instances in transactions for a rate at the mean service time of the last windows.
    pub(super) fn needed(&self, tps: u32) -> Option<u32> {
        self.service_ns.map(|service_ns| Self::needed_at(tps, service_ns))
    }

    /// Instances in transactions for a rate at a service time. With random arrivals the number
    /// in use is Poisson distributed, with a standard deviation of its square
    /// root; the quarter covers service times that drift, the two a handful of
    /// instances.
    pub(super) fn needed_at(tps: u32, service_ns: f64) -> u32 {
        let mean = f64::from(tps) * service_ns / 1e9;
        let margin = (mean / 4.0).max(3.0 * mean.sqrt());
        ((mean + margin).ceil() as u32).saturating_add(2)
    }
}
