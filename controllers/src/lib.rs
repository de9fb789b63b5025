//! The part of balter-uring that decides, free of clocks and of input and output.
//!
//! Everything here is a plain value with methods: time comes in as nanoseconds
//! on whatever monotonic clock the caller has, measurements come in as
//! [`Window`]s, decisions go out as values. Nothing sleeps, locks or spawns, so
//! every claim can be proven in virtual time, and the same code serves a shard
//! of a process and a node of a cluster.
//!
//! | question | answered by |
//! |---|---|
//! | When is the next transaction due on this shard? | [`Pacer`], with its [`Arrival`] |
//! | Which part of a whole belongs to whom? | [`split`], [`split_evenly`]; of a rate, [`Timetable`] |
//! | What happened in the last stretch of time? | [`Window`] |
//! | How do the windows of many parts become those of the whole? | [`WindowGrid`] |
//! | How many instances may be under way? | [`ConcurrencyController`] |
//! | How many has a shard, then? | [`Population`] |
//! | What is the highest rate within limits? | [`RateController`], with its [`Limit`]s |
//! | Was the target worse the second time? | [`worse`], of [`Block`]s of time |
//! | How does throughput grow with concurrency? | [`Usl`], [`UslFit`] |
//! | What may a party use that can be lost? | [`LeaseBook`], [`LeaseHolder`] |
//! | How is what it measured counted exactly once? | [`Outbox`], [`Ledger`] |
//! | Who has how much of what a run did less than asked? | [`Shortfall`] |
//! | What bounded the run in the end? | [`judge`], [`Verdict`] |
//!
//! # Terms
//!
//! In an *open loop* transactions start on a schedule, whatever the target does;
//! in a *closed loop* an instance starts its next transaction when the last one
//! has ended. A *permit* is the right to start one transaction and carries its
//! intended start. Permits that are due and not yet taken are the *backlog*.
//! *Service time* runs from the actual start, *response time* from the intended
//! one; their difference is the *lag*.

#![forbid(unsafe_code)]

mod arrival;
mod comparison;
mod concurrency;
mod delivery;
mod grid;
mod lease;
mod pacer;
mod population;
mod rate;
mod schedule;
mod shortfall;
mod split;
mod student;
mod timetable;
mod usl;
mod verdict;
mod window;

pub use arrival::Arrival;
pub use comparison::{Block, Measure, Worse, worse};
pub use concurrency::{
    ConcurrencyConfig, ConcurrencyController, ConcurrencyDecision, ConcurrencyGoal,
    ConcurrencyState, Saturation,
};
pub use delivery::{Ledger, Outbox};
pub use grid::WindowGrid;
pub use lease::{Allowance, LeaseBook, LeaseConfig, LeaseGrant, LeaseHolder};
pub use pacer::{Pacer, PacerConfig, PacerCounts, Permit};
pub use population::{Crowd, Population, Shortage};
pub use rate::{
    Broken, Interval, Limit, RateConfig, RateController, RateDecision, RateEstimate, RateState,
    SearchEnd, proportion,
};
pub use shortfall::{Cause, Shortfall};
pub use split::{split, split_evenly};
pub use timetable::{Ticks, Timetable};
pub use usl::{Usl, UslFit};
pub use verdict::{Evidence, SearchEvidence, Verdict, distorted, judge};
pub use window::Window;
