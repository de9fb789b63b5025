//! The connections of a coordinator to its workers, made again when they break.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::runtime::Secret;
use crate::runtime::node::Node;
use crate::runtime::service;
use crate::runtime::wire::{Command, Prepare, Report};

/// Workers report several times a second. One that is silent for so long is asked anew.
const SILENCE: Duration = Duration::from_secs(3);

/// Pauses between two attempts to reach a node: the first, and the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// What a link has to tell, each with the index of its member.
pub(super) enum Event {
    Connected(usize, mpsc::Sender<Command>),
    Report(usize, Report),
    /// The connection is lost or could not be made, and why.
    Broken(usize, String),
}

/// All links of a run; dropped, they end.
pub(super) struct Links {
    node: Node,
    events: mpsc::Sender<Event>,
    tasks: JoinSet<()>,
}

impl Links {
    pub(super) fn new(node: Node, events: mpsc::Sender<Event>) -> Self {
        Self { node, events, tasks: JoinSet::new() }
    }

    pub(super) fn open(&mut self, index: usize, address: SocketAddr, prepare: Prepare) {
        self.tasks.spawn(keep(self.node.clone(), index, address, prepare, self.events.clone()));
    }
}

async fn keep(
    node: Node,
    index: usize,
    address: SocketAddr,
    prepare: Prepare,
    events: mpsc::Sender<Event>,
) {
    let mut pause = FIRST_PAUSE;
    loop {
        let began = tokio::time::Instant::now();
        let reason = hold(&node, index, address, &prepare, &events).await;
        if began.elapsed() > SILENCE {
            pause = FIRST_PAUSE;
        }
        if events.send(Event::Broken(index, reason)).await.is_err() {
            return;
        }
        sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Connects, and passes on what the worker reports until that ends; answers why.
async fn hold(
    node: &Node,
    index: usize,
    address: SocketAddr,
    prepare: &Prepare,
    events: &mpsc::Sender<Event>,
) -> String {
    let connecting = async {
        service::connect(
            node.config.endpoint(address)?,
            node.config.token.as_ref().map(Secret::as_str),
        )
        .await
    };
    let (commands, mut reports) = match timeout(SILENCE, connecting).await {
        Ok(Ok(connected)) => connected,
        Ok(Err(reason)) => return reason,
        Err(_) => return "it does not answer".to_owned(),
    };
    let first = Command { prepare: Some(prepare.clone()), grant: None };
    if commands.send(first).await.is_err()
        || events.send(Event::Connected(index, commands)).await.is_err()
    {
        return "the connection was closed at once".to_owned();
    }
    loop {
        let report = match timeout(SILENCE, reports.message()).await {
            Ok(Ok(Some(report))) => report,
            Ok(Ok(None)) => return "it closed the connection".to_owned(),
            Ok(Err(status)) => return status.message().to_owned(),
            Err(_) => return "it is silent".to_owned(),
        };
        if events.send(Event::Report(index, report)).await.is_err() {
            return String::new();
        }
    }
}
