//! Whether the machine had its processors to itself: time that a hypervisor took away, and time
//! that a control group was not allowed to run.

use std::fs;
use std::time::Duration;

/// Readings that only grow; what happened in a run is the difference of two.
#[derive(Clone, Debug, Default)]
pub(super) struct Readings {
    /// For each core asked about: ticks stolen, and all ticks.
    cores: Vec<Option<(u64, u64)>>,
    throttled: Duration,
}

impl Readings {
    /// What the kernel tells now; what it does not tell counts as nothing.
    pub(super) fn now(cores: impl Iterator<Item = usize>) -> Self {
        let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
        Self {
            cores: cores.map(|core| ticks(&stat, core)).collect(),
            throttled: control_group().map_or(Duration::ZERO, |stat| throttled(&stat)),
        }
    }

    /// Share of each core's time that was stolen since.
    pub(super) fn stolen_since(&self, before: &Self) -> Vec<f64> {
        let pairs = self.cores.iter().zip(&before.cores);
        let shares = pairs.map(|(now, before)| {
            let (Some((stolen, all)), Some((stolen_then, all_then))) = (now, before) else {
                return 0.0;
            };
            match all.saturating_sub(*all_then) {
                0 => 0.0,
                all => stolen.saturating_sub(*stolen_then) as f64 / all as f64,
            }
        });
        shares.collect()
    }

    /// Time since in which the control group was not allowed to run, summed over its processors.
    pub(super) fn throttled_since(&self, before: &Self) -> Duration {
        self.throttled.saturating_sub(before.throttled)
    }
}

/// Stolen and all ticks in the line `cpuN user nice system idle iowait irq softirq steal guest …`.
fn ticks(stat: &str, core: usize) -> Option<(u64, u64)> {
    let name = format!("cpu{core} ");
    let line = stat.lines().find_map(|line| line.strip_prefix(&name))?;
    // Guest time is part of user time already.
    let fields: Vec<u64> = line.split_whitespace().take(8).flat_map(str::parse).collect();
    Some((*fields.get(7)?, fields.iter().sum()))
}

/// `cpu.stat` of the control group (version 2) that this process is in.
fn control_group() -> Option<String> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let path = groups.lines().find_map(|line| line.strip_prefix("0::"))?;
    // Inside a container the own group is the root of what is mounted.
    let places = [format!("/sys/fs/cgroup{path}/cpu.stat"), "/sys/fs/cgroup/cpu.stat".to_owned()];
    places.iter().find_map(|place| fs::read_to_string(place).ok())
}

fn throttled(stat: &str) -> Duration {
    let line = stat.lines().find_map(|line| line.strip_prefix("throttled_usec "));
    Duration::from_micros(line.and_then(|value| value.trim().parse().ok()).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAT: &str = "cpu  9 9 9 9 9 9 9 9 0 0\n\
                        cpu0 100 0 50 800 10 0 5 35 0 0\n\
                        cpu10 1 1 1 1 1 1 1 1 0 0\n";

    #[test]
    fn steal_is_read_from_the_cores_own_line() {
        assert_eq!(ticks(STAT, 0), Some((35, 1_000)));
        assert_eq!(ticks(STAT, 10), Some((1, 8)));
        assert_eq!(ticks(STAT, 1), None);
        assert_eq!(ticks("cpu0 1 2", 0), None);
    }

    #[test]
    fn shares_are_of_the_time_between() {
        let at = |stolen, all| Readings {
            cores: vec![Some((stolen, all)), None],
            throttled: Duration::from_millis(stolen),
        };
        assert_eq!(at(30, 200).stolen_since(&at(10, 100)), [0.2, 0.0]);
        assert_eq!(at(30, 200).throttled_since(&at(10, 100)), Duration::from_millis(20));
        assert_eq!(at(10, 100).stolen_since(&at(10, 100)), [0.0, 0.0]);
    }

    #[test]
    fn throttling_is_read_where_it_is_told() {
        assert_eq!(throttled("usage_usec 5\nthrottled_usec 1500\n"), Duration::from_micros(1_500));
        assert_eq!(throttled("usage_usec 5\n"), Duration::ZERO);
    }
}
