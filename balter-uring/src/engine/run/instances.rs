//! How many instances a run has on its shard.

use std::rc::Rc;

use balter_controllers::Crowd;

use super::ShardRun;
use crate::engine::budget::Share;
use crate::engine::instance::Role;

impl ShardRun {
    fn crowd(&self) -> Crowd {
        let permits = self.permits.borrow();
        Crowd {
            alive: self.instances.get(),
            starting: self.starting.get(),
            in_flight: self.in_flight.get() + permits.granted() + permits.queued(),
            waiting: permits.waiting(),
            taken: self.started.get(),
        }
    }

    /// Starts instances that are wanted, and has surplus ones leave.
    pub(super) fn keep_instances(self: &Rc<Self>, now: u64) {
        let (share, crowd) = (self.share.get(), self.crowd());
        let wanted = match self.spec.open {
            true => self.open_loop(now, &share, &crowd),
            false => self.closed_loop(now, &share, &crowd),
        };
        for _ in 0..wanted {
            self.spawn(Role::Scenario, None);
        }
    }

    fn open_loop(&self, now: u64, share: &Share, crowd: &Crowd) -> u32 {
        let mut population = self.population.borrow_mut();
        let beyond = crowd.alive.saturating_sub(share.most);
        self.surplus.set(beyond - self.dismiss(beyond));
        self.dismiss(population.surplus(now, crowd, self.cycles.get().mean_ns()));
        if self.overloaded.get() && crowd.alive >= self.spec.initial {
            // What its permits wait for is the shard itself: it has no use for more instances.
            return 0;
        }
        let pacer = &self.permits.borrow().pacer;
        population.wanted(now, crowd, pacer, share.concurrency, share.most)
    }

    /// As many as it takes for the share to be in use.
    fn closed_loop(&self, now: u64, share: &Share, crowd: &Crowd) -> u32 {
        let is_fixed = self.spec.fixed || share.concurrency == 0;
        let used = if is_fixed { crowd.alive } else { crowd.occupied() };
        let pauses = !is_fixed && crowd.alive > used;
        // How many of those who pause are back at a time is chance; three standard deviations are
        // no reason to send any away.
        let scatter = if pauses { 3 * share.concurrency.isqrt() + 1 } else { 0 };
        let surplus = used.saturating_sub(share.concurrency.saturating_add(scatter));
        self.surplus.set(surplus.max(crowd.alive.saturating_sub(share.most)));
        let most = share.most.saturating_sub(crowd.alive);
        let wanted = share.concurrency.saturating_sub(used).min(most);
        self.population.borrow_mut().paced(now, crowd.alive, wanted)
    }

    /// Drops instances that wait for a permit, the youngest first; how many there were.
    fn dismiss(&self, surplus: u32) -> u32 {
        if surplus == 0 {
            return 0;
        }
        let leaving: Vec<_> =
            self.permits.borrow().idle_instances().take(surplus as usize).cloned().collect();
        for instance in &leaving {
            instance.kill();
        }
        leaving.len() as u32
    }
}
