//! A node of a run, as its coordinator knows it.

use std::net::SocketAddr;

use balter_controllers::{LeaseBook, Ledger, Window};
use tokio::sync::mpsc;

use crate::engine::steering::Steering;
use crate::runtime::view::NodeView;
use crate::runtime::wire::{Command, Grant};
use crate::statistics::Counts;

#[derive(Default)]
pub(super) struct Member {
    pub(super) name: String,
    address: String,
    pub(super) commands: Option<mpsc::Sender<Command>>,
    /// The process that takes part.
    pub(super) boot: Option<u64>,
    /// Its place in the book of leases and among the parts of the run, once it is ready.
    pub(super) party: Option<usize>,
    pub(super) part: Option<usize>,
    pub(super) ledger: Ledger,
    /// Its last report: the stamp, and when it arrived.
    pub(super) stamped: (u64, u64),
    /// What it has told since the last decision, and whether all of that was done at its share.
    pub(super) window: Window,
    pub(super) has_reported: bool,
    pub(super) is_steady: bool,
    pub(super) is_refused: bool,
    pub(super) is_leaving: bool,
    /// Its part has ended, and all of it has been told.
    pub(super) is_over: bool,
    /// The other nodes do not hear of it.
    pub(super) is_known_dead: bool,
    /// It has told all, and what it knows beside its windows.
    pub(super) has_summed_up: bool,
    /// Why it cannot be reached.
    pub(super) trouble: Option<String>,
    /// As it told last, while it had any.
    pub(super) instances: u32,
}

impl Member {
    pub(super) fn new(name: &str, address: SocketAddr) -> Self {
        let address = address.to_string();
        Self { name: name.to_owned(), address, is_steady: true, ..Self::default() }
    }

    /// A new process is there in place of the one before.
    pub(super) fn start_over(&mut self) {
        (self.party, self.part) = (None, None);
        (self.ledger, self.window) = (Ledger::default(), Window::default());
        (self.has_reported, self.is_steady) = (false, true);
        (self.is_over, self.is_leaving, self.has_summed_up) = (false, false, false);
    }

    pub(super) fn tell(&mut self, grant: Grant) {
        if let Some(commands) = &self.commands {
            // One that does not fit is of no use later; the next report has the next one.
            let _ = commands.try_send(Command { prepare: None, grant: Some(grant) });
        }
    }

    /// Its instances, before they left at the end; none while nothing is known of it.
    pub(super) fn instances(&self) -> u32 {
        if self.commands.is_some() || self.is_over { self.instances } else { 0 }
    }

    /// Nothing more is to be expected of it.
    pub(super) fn is_settled(&self) -> bool {
        self.is_refused || (self.is_over && self.has_summed_up)
    }

    pub(super) fn view(&self, steering: &Steering, book: &LeaseBook) -> NodeView {
        let state = match self {
            Self { is_refused: true, .. } => "refused",
            Self { is_over: true, .. } => "done",
            Self { commands: None, party: Some(_), .. } => "unreachable",
            Self { is_leaving: true, .. } => "leaving",
            Self { party: None, .. } => "joining",
            _ => "working",
        };
        NodeView {
            name: self.name.clone(),
            address: self.address.clone(),
            state: state.to_owned(),
            share_tps: self.party.map_or(0, |party| book.share(party).tps),
            instances: self.instances(),
            counts: self
                .part
                .map_or_else(Counts::default, |part| steering.totals.parts[part].counts),
        }
    }
}
