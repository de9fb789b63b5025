//! Requests a second on one generator core, side by side with what else there is; large bodies;
//! HTTPS; memory of an instance; under the feature `tokio`, reqwest here and under Balter.
//!
//! The target has the last core to itself and is the same for all; its count over the same stretch
//! of time is what all contenders are compared by. Requests are asked of two targets: the crate's
//! own, and a bare loop. Throughput is that of the slower of the two cores, so the crate's own
//! target, which costs about as much as the best clients, hides the differences between those: the
//! faster a client, the smaller the batches that it gets, and the more each request costs it. The
//! bare loop costs less than any client. A contender whose core is not busy all the time waited
//! for the target; what it costs is then told by the generator's time for each request, and
//! ratios are judged by that. HTTPS is asked of nginx, which costs more than either client.
//!
//! ```text
//! cargo bench --bench http
//! cargo bench --bench http -- requests
//! cargo bench --bench http -- connections
//! cargo bench --bench http --features tokio -- tokio
//! cargo bench --bench http -- https
//! ```

// The macros of Balter 0.8.2 expand to paths that begin with `::balter`.
extern crate balter_peer as balter;

#[cfg(feature = "tls")]
#[path = "../tests/support_http/authority.rs"]
mod authority;
#[path = "support/cpu.rs"]
mod cpu;
#[path = "support/harness.rs"]
mod harness;
#[path = "support/memory.rs"]
mod memory;
#[cfg(feature = "tls")]
#[path = "../tests/support_http/nginx.rs"]
mod nginx;
#[path = "support/peers.rs"]
mod peers;
#[cfg(feature = "tls")]
#[path = "support/secure.rs"]
mod secure;
#[path = "support/slow_road.rs"]
mod slow_road;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use balter_uring::http::{Client, ClientBuilder};
use balter_uring::target::Target;
use futures_lite::future::block_on;

use cpu::Stretch;
use harness::{Claim, Plan, Series, Table, interleave, ratios};

mod ours {
    use balter_uring::http::{Client, ClientBuilder, Error, PreparedRequest};
    use balter_uring::{scenario, transaction};

    #[scenario]
    pub(crate) async fn visitor(client: ClientBuilder, url: String) {
        let page = client.build().get(&url).prepare().expect("the target's own URL");
        loop {
            // What fails is counted.
            let _ = visit(&page).await;
        }
    }

    /// As the README writes it.
    #[scenario]
    pub(crate) async fn plain_visitor(client: ClientBuilder, url: String) {
        let client = client.build();
        loop {
            let _ = visit_plainly(&client, &url).await;
        }
    }

    #[transaction]
    async fn visit_plainly(client: &Client, url: &str) -> Result<(), Error> {
        client.get(url).send().await?.error_for_status()?.bytes().await?;
        Ok(())
    }

    #[transaction]
    async fn visit(page: &PreparedRequest) -> Result<(), Error> {
        page.send().await?.error_for_status()?.discard().await?;
        Ok(())
    }
}

/// A generator's core that is busy for less of its time waits for the target.
const BOUND: f64 = 0.95;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Contender {
    Ours,
    /// With a request that is not prepared, as in the README.
    OursAsInReadme,
    /// With reqwest in its scenario, under the feature `tokio`.
    OursWithReqwest,
    Floor,
    Glommio,
    /// In its first second, with as many instances as it was told to begin with: its best.
    BalterAtFirst,
    /// After that, with as many as it has added.
    Balter,
    /// As its guide runs it.
    BalterAsInGuide,
    Wrk,
}

/// What is asked.
struct Asked<'a> {
    address: SocketAddr,
    url: String,
    served: &'a dyn Fn() -> u64,
    /// For ours.
    client: ClientBuilder,
}

impl<'a> Asked<'a> {
    fn new(address: SocketAddr, path: &str, served: &'a dyn Fn() -> u64) -> Self {
        let url = format!("http://{address}{path}");
        Self { address, url, served, client: Client::builder() }
    }
}

impl Contender {
    fn name(self) -> &'static str {
        match self {
            Self::Ours => "balter-uring",
            Self::OursAsInReadme => "balter-uring, as in its README",
            Self::OursWithReqwest => "balter-uring + reqwest, feature tokio",
            Self::Floor => "floor: bare io_uring loop",
            Self::Glommio => "glommio TcpStream + httparse",
            Self::BalterAtFirst => "Balter 0.8.2 + reqwest, first second",
            Self::Balter => "Balter 0.8.2 + reqwest, later",
            Self::BalterAsInGuide => "Balter 0.8.2 + reqwest, as in its guide",
            Self::Wrk => "wrk -t1",
        }
    }

    /// What is claimed of ours, as a ratio to this.
    fn claim(self) -> Option<(Claim, &'static str)> {
        match self {
            Self::Floor => Some((Claim::AtLeast(0.93), "× floor")),
            Self::BalterAtFirst | Self::Balter | Self::BalterAsInGuide => {
                Some((Claim::AtLeast(4.0), "× Balter"))
            }
            Self::Wrk => Some((Claim::AtLeast(1.5), "× wrk")),
            Self::Ours | Self::OursAsInReadme | Self::OursWithReqwest | Self::Glommio => None,
        }
    }
}

/// What one contender did in one repetition.
#[derive(Clone, Copy, Debug)]
struct Measured {
    stretch: Stretch,
    /// Share of the time that it had a core in which the generator had something to do. Ours spins
    /// while it waits, and says itself what of that was work; the others sleep, and all of their
    /// running is work.
    busy: f64,
}

impl Measured {
    fn rate(&self) -> f64 {
        self.stretch.per_second()
    }

    /// Microseconds of work on the generator's core for each request.
    fn cost(&self) -> f64 {
        self.busy * (1.0 - self.stretch.held_up()) / self.rate() * 1e6
    }
}

fn main() {
    memory::be_a_target_if_asked();
    let plan = Plan::from_environment();
    plan.announce("http");
    let (generator, target) = cpu::cores();
    println!("generator on core {generator}, target on core {target}");
    if generator == target {
        println!("only one core: generator and target share it, and no ratio says anything");
    }
    // Before anything else has grown the process.
    if plan.wants("memory") {
        memory::measure(&plan);
    }
    let has_wrk = peers::has_wrk();
    if !has_wrk {
        println!("wrk (or taskset) is not installed: skipped");
    }
    for connections in [64, 256] {
        if plan.wants("requests") {
            let target = Target::start().expect("a target starts");
            let served = || target.served();
            let asked = Asked::new(target.address(), "/", &served);
            requests(&plan, &asked, "the crate's own target", connections, has_wrk);
        }
        if plan.wants("requests") {
            let responder = peers::Responder::start(target).expect("the bare responder starts");
            let served = || responder.served();
            let asked = Asked::new(responder.address, "/", &served);
            requests(&plan, &asked, "a bare responder", connections, has_wrk);
        }
    }
    if plan.wants("connections") {
        let responder = peers::Responder::start(target).expect("the bare responder starts");
        let served = || responder.served();
        let asked = Asked::new(responder.address, "/", &served);
        connections(&plan, &asked, has_wrk);
    }
    if plan.wants("bodies") {
        bodies(&plan, has_wrk);
    }
    if plan.wants("tokio") {
        slow_road::compare(&plan);
    }
    #[cfg(feature = "tls")]
    if plan.wants("https") {
        https(&plan, target, has_wrk);
    }
}

#[cfg(feature = "tls")]
fn https(plan: &Plan, core: usize, has_wrk: bool) {
    const CONNECTIONS: usize = 64;
    let Some(target) = secure::Secure::start(core) else {
        println!("nginx is not installed: https is skipped");
        return;
    };
    let served = || target.served();
    let asked = Asked {
        url: format!("https://{}/", target.address()),
        client: target.client(),
        ..Asked::new(target.address(), "/", &served)
    };
    let mut contenders = vec![Contender::Ours];
    if has_wrk {
        contenders.push(Contender::Wrk);
    }
    let measured = interleave(plan.repetitions, &contenders, |&contender| {
        measure(contender, &asked, CONNECTIONS, plan.length(2.0))
    });
    let mut table = Table::new(
        format!("HTTPS GET of 12 bytes, keep-alive, {CONNECTIONS} connections, nginx"),
        &[
            "contender",
            "req/s",
            "(min–max)",
            "core busy",
            "µs/req",
            "ours ÷ by rate",
            "ours ÷ by cost",
            "claim",
        ],
    );
    for (contender, theirs) in contenders.iter().zip(&measured) {
        let rate = Series::new(theirs.iter().map(Measured::rate));
        let busy = Series::new(theirs.iter().map(|measured| measured.busy));
        let cost = Series::new(theirs.iter().map(Measured::cost));
        let comparison = Comparison::of(&measured[0], theirs);
        let claim = match contender {
            Contender::Wrk => comparison.judge((Claim::AtLeast(1.3), "× wrk over TLS")),
            _ => String::new(),
        };
        table.row([
            contender.name().to_owned(),
            format!("{:.0}", rate.median()),
            rate.range(0),
            format!("{:.2}", busy.median()),
            format!("{:.2}", cost.median()),
            format!("{:.2}", comparison.by_rate),
            format!("{:.2}", comparison.by_cost),
            claim,
        ]);
    }
    table.print();
    println!("  all speak {}", target.speaks());
    tell_held_up(&measured);
}

fn requests(plan: &Plan, asked: &Asked<'_>, whom: &str, connections: usize, has_wrk: bool) {
    let mut contenders =
        vec![Contender::Ours, Contender::Floor, Contender::Glommio, Contender::BalterAtFirst];
    // It takes longer than a quick look may.
    if !plan.quick {
        contenders.extend([Contender::Balter, Contender::BalterAsInGuide]);
    }
    if has_wrk {
        contenders.push(Contender::Wrk);
    }
    let measured = interleave(plan.repetitions, &contenders, |&contender| {
        measure(contender, asked, connections, plan.length(2.0))
    });
    let mut table = Table::new(
        format!("GET of 12 bytes, keep-alive, {connections} connections, {whom}"),
        &[
            "contender",
            "req/s",
            "(min–max)",
            "core busy",
            "µs/req",
            "ours ÷ by rate",
            "ours ÷ by cost",
            "claim",
        ],
    );
    let ours = &measured[0];
    for (contender, theirs) in contenders.iter().zip(&measured) {
        let rate = Series::new(theirs.iter().map(Measured::rate));
        let busy = Series::new(theirs.iter().map(|measured| measured.busy));
        let cost = Series::new(theirs.iter().map(Measured::cost));
        let comparison = Comparison::of(ours, theirs);
        table.row([
            contender.name().to_owned(),
            format!("{:.0}", rate.median()),
            rate.range(0),
            format!("{:.2}", busy.median()),
            format!("{:.2}", cost.median()),
            format!("{:.2}", comparison.by_rate),
            format!("{:.2}", comparison.by_cost),
            contender.claim().map_or_else(String::new, |claim| comparison.judge(claim)),
        ]);
    }
    table.print();
    tell_held_up(&measured);
    if Series::new(ours.iter().map(|measured| measured.busy)).median() < BOUND {
        println!("  ours waited for the target, whose core is the slower of the two here");
    }
}

/// Ever more connections: a turn of the shard is to cost what it starts, not how many there are.
fn connections(plan: &Plan, asked: &Asked<'_>, has_wrk: bool) {
    const CLAIM: (Claim, &str) = (Claim::AtLeast(1.15), "× wrk");
    let mut contenders = vec![Contender::OursAsInReadme, Contender::Ours];
    if has_wrk {
        contenders.push(Contender::Wrk);
    }
    let mut all = Vec::new();
    let mut table = Table::new(
        "GET of 12 bytes, keep-alive, a bare responder, by the number of connections",
        &[
            "connections, contender",
            "req/s",
            "(min–max)",
            "core busy",
            "µs/req",
            "÷ wrk by rate",
            "÷ wrk by cost",
            "claim",
        ],
    );
    for connections in [1, 64, 256, 1_024, 4_000] {
        let measured = interleave(plan.repetitions, &contenders, |&contender| {
            measure(contender, asked, connections, plan.length(2.0))
        });
        for (contender, ours) in contenders.iter().zip(&measured) {
            let rate = Series::new(ours.iter().map(Measured::rate));
            let busy = Series::new(ours.iter().map(|measured| measured.busy));
            let cost = Series::new(ours.iter().map(Measured::cost));
            let comparison = match has_wrk {
                true => measured.last().map(|wrk| Comparison::of(ours, wrk)),
                false => None,
            };
            let told = |of: fn(&Comparison) -> f64| {
                comparison.as_ref().map_or_else(String::new, |it| format!("{:.2}", of(it)))
            };
            table.row([
                format!("{connections}, {}", contender.name()),
                format!("{:.0}", rate.median()),
                rate.range(0),
                format!("{:.2}", busy.median()),
                format!("{:.2}", cost.median()),
                told(|it| it.by_rate),
                told(|it| it.by_cost),
                match (&comparison, contender) {
                    (Some(comparison), Contender::Ours | Contender::OursAsInReadme) => {
                        comparison.judge(CLAIM)
                    }
                    _ => String::new(),
                },
            ]);
        }
        all.extend(measured);
    }
    table.print();
    tell_held_up(&all);
}

fn bodies(plan: &Plan, has_wrk: bool) {
    let target = Target::start().expect("a target starts");
    let served = || target.served();
    let mut contenders = vec![Contender::Ours];
    if has_wrk {
        contenders.push(Contender::Wrk);
    }
    let mut all = Vec::new();
    let mut table = Table::new(
        "GET of large bodies, keep-alive, 64 connections",
        &[
            "body, contender",
            "MB/s",
            "(min–max)",
            "core busy",
            "ours ÷ by rate",
            "ours ÷ by cost",
            "claim",
        ],
    );
    for kibibytes in [4, 64, 1024] {
        let path = format!("/bytes/{}", kibibytes << 10);
        let asked = Asked::new(target.address(), &path, &served);
        let measured = interleave(plan.repetitions, &contenders, |&contender| {
            measure(contender, &asked, 64, plan.length(2.0))
        });
        for (contender, theirs) in contenders.iter().zip(&measured) {
            let megabytes =
                |measured: &Measured| measured.rate() * f64::from(kibibytes << 10) / 1e6;
            let rate = Series::new(theirs.iter().map(megabytes));
            let busy = Series::new(theirs.iter().map(|measured| measured.busy));
            let comparison = Comparison::of(&measured[0], theirs);
            let claim = match contender {
                Contender::Wrk => comparison.judge((Claim::AtLeast(1.0), "× wrk")),
                _ => String::new(),
            };
            table.row([
                format!("{kibibytes} KiB, {}", contender.name()),
                format!("{:.0}", rate.median()),
                rate.range(0),
                format!("{:.2}", busy.median()),
                format!("{:.2}", comparison.by_rate),
                format!("{:.2}", comparison.by_cost),
                claim,
            ]);
        }
        all.extend(measured);
    }
    table.print();
    tell_held_up(&all);
}

/// Says when the machine was not quiet enough for what it measured.
fn tell_held_up(measured: &[Vec<Measured>]) {
    let held_up = measured.iter().flatten().map(|measured| measured.stretch.held_up());
    let most = held_up.fold(0.0, f64::max);
    if most > 0.03 {
        println!("  others had the generator's core for up to {:.0} % of the time", most * 100.0);
    }
}

/// Ours against another, above 1 where ours is better.
struct Comparison {
    by_rate: f64,
    by_cost: f64,
    /// Did not wait for the target, so that the rate is its own.
    ours_bound: bool,
    theirs_bound: bool,
}

impl Comparison {
    fn of(ours: &[Measured], theirs: &[Measured]) -> Self {
        let each = |of: fn(&Measured) -> f64, measured: &[Measured]| -> Vec<f64> {
            measured.iter().map(of).collect()
        };
        let busy = |measured: &[Measured]| {
            Series::new(measured.iter().map(|measured| measured.busy)).median()
        };
        Self {
            by_rate: ratios(&each(Measured::rate, ours), &each(Measured::rate, theirs)).median(),
            by_cost: ratios(&each(Measured::cost, theirs), &each(Measured::cost, ours)).median(),
            ours_bound: busy(ours) >= BOUND,
            theirs_bound: busy(theirs) >= BOUND,
        }
    }

    fn judge(&self, (claim, unit): (Claim, &str)) -> String {
        // What ours reaches although it waited for the target holds all the more without that; a
        // peer that waited is not beaten by its rate.
        if self.theirs_bound && (self.ours_bound || claim.holds(self.by_rate)) {
            claim.judge(unit, self.by_rate)
        } else {
            format!("{} (by cost)", claim.judge(unit, self.by_cost))
        }
    }
}

/// A machine that stands still for the whole of a short stretch has measured nothing: then again.
fn measure(
    contender: Contender,
    asked: &Asked<'_>,
    connections: usize,
    length: Duration,
) -> Measured {
    (0..3)
        .find_map(|_| try_to_measure(contender, asked, connections, length))
        .unwrap_or_else(|| panic!("{} has asked nothing", contender.name()))
}

fn try_to_measure(
    contender: Contender,
    asked: &Asked<'_>,
    connections: usize,
    length: Duration,
) -> Option<Measured> {
    let (core, _) = cpu::cores();
    let Asked { address, ref url, served, ref client } = *asked;
    let warm_up = Duration::from_millis(200);
    // All are still running when the stretch ends.
    let whole = warm_up + length + warm_up;
    let before = served();
    let (stretch, busy, counted) = match contender {
        Contender::Ours | Contender::OursAsInReadme => {
            let (client, url) = (client.clone(), url.to_owned());
            let run = match contender {
                Contender::Ours => ours::visitor(client, url),
                _ => ours::plain_visitor(client, url),
            };
            let run = run.concurrency(connections).cores([core]).duration(whole);
            let running = std::thread::spawn(move || block_on(run.run()));
            let stretch = cpu::watch(warm_up, length, served, || cpu::of_shard(core));
            let statistics = running.join().expect("waiting for a run does not panic");
            let statistics = statistics.expect("the machine allows a run");
            let counts = &statistics.counts;
            assert!(counts.add_up() && counts.failed == 0, "{counts:?} {:?}", statistics.failures);
            assert!(!statistics.shards[0].lost, "the shard stands still: {:?}", statistics.verdict);
            (stretch, stretch.share() * statistics.shards[0].busy, Some(counts.succeeded))
        }
        Contender::OursWithReqwest => {
            let (stretch, counted) =
                slow_road::measure(core, url, connections, (warm_up, length), served);
            (stretch, stretch.share(), Some(counted))
        }
        Contender::Floor => {
            let response_len = response_len(address);
            let work = move || peers::bare(address, connections, response_len, whole);
            let running = cpu::on_core(peers::FLOOR, core, work);
            let stretch = cpu::watch(warm_up, length, served, || cpu::of_threads(peers::FLOOR));
            let counted = running.join().expect("the loop does not panic");
            (stretch, stretch.share(), Some(counted.expect("the loop has met no error")))
        }
        Contender::Glommio => {
            let work = move || peers::glommio(core, address, connections, whole);
            let running = std::thread::spawn(work);
            let stretch = cpu::watch(warm_up, length, served, || cpu::of_threads(peers::GLOMMIO));
            let counted = running.join().expect("glommio does not panic");
            (stretch, stretch.share(), Some(counted.expect("glommio has met no error")))
        }
        Contender::BalterAtFirst | Contender::Balter | Contender::BalterAsInGuide => {
            // Its first second ends before it has other numbers of instances.
            let (warm_up, length) = match contender {
                Contender::BalterAtFirst => (warm_up, length.min(Duration::from_millis(700))),
                _ => (Duration::from_millis(2_200), length),
            };
            let run = match contender {
                Contender::BalterAsInGuide => peers::BalterRun::AsInGuide,
                _ => peers::BalterRun::AtBest { connections },
            };
            let (url, margin) = (url.clone(), Duration::from_millis(100));
            let work = move || peers::balter(&url, run, warm_up + length + margin);
            let running = cpu::on_core(peers::BALTER, core, work);
            let stretch = cpu::watch(warm_up, length, served, || cpu::of_threads(peers::BALTER));
            running.join().expect("Balter does not panic").expect("tokio starts");
            (stretch, stretch.share(), None)
        }
        Contender::Wrk => {
            let wrk = peers::wrk(core, url, connections, whole).expect("wrk can be started");
            let wrk = wrk.expect("wrk was found before");
            let stretch = cpu::watch(warm_up, length, served, || wrk.used());
            (stretch, stretch.share(), None)
        }
    };
    if stretch.count == 0 {
        return None;
    }
    if let Some(counted) = counted {
        // What was in flight when it ended may have been served and not counted, and so may the
        // request that asks how long an answer is.
        let served = served() - before;
        let between = counted..=counted + connections as u64 + 1;
        let name = contender.name();
        assert!(between.contains(&served), "{name}: {counted} counted, {served} served");
    }
    Some(Measured { stretch, busy: busy.min(1.0) })
}

/// Length of a whole response of a target, for a client that does not parse.
fn response_len(address: SocketAddr) -> usize {
    let mut stream = TcpStream::connect(address).expect("the target listens");
    stream.write_all(peers::request(address).as_bytes()).expect("the target reads");
    let mut bytes = vec![0; 4096];
    let mut filled = 0;
    loop {
        let read = stream.read(&mut bytes[filled..]).expect("the target answers");
        assert!(read > 0, "the target answers before it closes");
        filled += read;
        if let Some(whole) = peers::whole(&bytes[..filled]).expect("the target answers well")
            && filled >= whole
        {
            return whole;
        }
    }
}
