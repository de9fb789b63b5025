//! The fit of the scalability law, and how well it says it knows its parameters.

use balter_controllers::{Interval, Usl};
use proptest::prelude::*;

#[allow(dead_code, reason = "each test binary uses a part of it")]
mod server;

use server::Random;

proptest! {
    #[test]
    fn a_law_is_found_again_from_its_points(
        lambda in 1.0..1e6_f64,
        sigma in 0.0..0.5_f64,
        kappa in 0.0..0.01_f64,
        noise in prop::collection::vec(-0.01..0.01_f64, 8),
    ) {
        let law = Usl { lambda, sigma, kappa };
        let users = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0];
        let points: Vec<_> = users
            .iter()
            .zip(&noise)
            .map(|(&n, noise)| (n, law.throughput(n) * (1.0 + noise)))
            .collect();
        let fitted = Usl::fit(&points).expect("eight points");
        for (n, _) in points {
            let off = fitted.law.throughput(n) / law.throughput(n) - 1.0;
            prop_assert!(off.abs() < 0.05, "off by {off} at {n}: {fitted:?}");
        }
        for (interval, value) in [
            (fitted.lambda, fitted.law.lambda),
            (fitted.sigma, fitted.law.sigma),
            (fitted.kappa, fitted.law.kappa),
        ] {
            let holds = 0.0 <= interval.low && interval.low <= value && value <= interval.high;
            prop_assert!(holds && interval.high.is_finite(), "{fitted:?}");
        }
    }
}

const FITS: u64 = 500;

/// Of so many fits to points with noise, how many have each parameter in its interval; and how wide
/// these are in the median, in relation to the parameter.
fn coverage(law: Usl, users: &[f64], noise: f64) -> ([u64; 3], [f64; 3]) {
    let truth = [law.lambda, law.sigma, law.kappa];
    let mut held = [0; 3];
    let mut widths = [const { Vec::new() }; 3];
    let mut fits = 0;
    for seed in 0..FITS {
        let mut random = Random::new(seed + 7_000);
        // Neighbouring seeds begin alike.
        (0..8).for_each(|_| {
            random.uniform();
        });
        let measured = |n: f64, error: f64| (n, law.throughput(n) * (1.0 + noise * error));
        let points: Vec<_> = users.iter().map(|&n| measured(n, random.normal())).collect();
        let Some(fit) = Usl::fit(&points) else { continue };
        fits += 1;
        for (index, interval) in [fit.lambda, fit.sigma, fit.kappa].into_iter().enumerate() {
            let Interval { low, high } = interval;
            held[index] += u64::from(low <= truth[index] && truth[index] <= high);
            widths[index].push((high - low) / truth[index].max(1e-9));
        }
    }
    let widths = widths.map(|mut widths| {
        widths.sort_by(f64::total_cmp);
        widths[widths.len() / 2]
    });
    println!("{law:?}, {users:?}, noise {noise}: {held:?} of {fits}, widths {widths:.2?}");
    assert!(fits >= FITS * 9 / 10, "{law:?}: {fits} fits");
    (held.map(|held| held * FITS / fits), widths)
}

#[test]
fn intervals_hold_the_truth() {
    let six = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0];
    let four = [1.0, 4.0, 16.0, 64.0];
    let twice = [1.0, 2.0, 4.0, 8.0, 16.0, 16.0, 8.0, 4.0, 2.0, 1.0];
    for (users, noise) in [(&six[..], 0.02), (&six, 0.05), (&four, 0.01), (&twice, 0.05)] {
        for (sigma, kappa) in [(0.05, 0.001), (0.5, 0.0), (0.0, 0.0), (0.0, 0.01), (1.0, 0.0)] {
            let law = Usl { lambda: 1_000.0, sigma, kappa };
            let (held, widths) = coverage(law, users, noise);
            assert!(held.iter().all(|&held| held >= FITS * 9 / 10), "{law:?}: {held:?}");
            // And they say something.
            assert!(widths[0] < 1.0, "{law:?}: {widths:?}");
        }
    }
}

/// With a little noise the best parabola has contention below zero. What is left out then has to be the
/// contention, not the coherency.
#[test]
fn the_term_that_is_left_out_is_the_one_that_is_not_there() {
    let law = Usl { lambda: 1.0, sigma: 0.0, kappa: 0.001_32 };
    let mut points: Vec<_> =
        (0..8).map(|power| f64::from(1 << power)).map(|n| (n, law.throughput(n))).collect();
    points[7].1 *= 0.993;
    let fitted = Usl::fit(&points).expect("eight points").law;
    assert_eq!(fitted.sigma, 0.0);
    assert!((fitted.lambda - 1.0).abs() < 0.01 && fitted.kappa > 0.001, "{fitted:?}");
}

#[test]
fn what_cannot_be_fitted_is_not() {
    assert_eq!(Usl::fit(&[]), None);
    assert_eq!(Usl::fit(&[(1.0, 10.0), (1.0, 11.0), (2.0, 20.0)]), None);
    assert_eq!(Usl::fit(&[(0.0, 10.0), (1.0, 0.0), (2.0, -1.0), (3.0, 1.0)]), None);
}

/// Any three points lie on a parabola: they say nothing of how well it is known.
#[test]
fn three_numbers_of_users_are_too_few() {
    let law = Usl { lambda: 100.0, sigma: 0.1, kappa: 0.01 };
    let point = |n: f64| (n, law.throughput(n));
    assert_eq!(Usl::fit(&[1.0, 4.0, 16.0].map(point)), None);
    assert_eq!(Usl::fit(&[1.0, 4.0, 16.0, 16.0, 4.0, 1.0].map(point)), None);
    assert!(Usl::fit(&[1.0, 4.0, 16.0, 32.0].map(point)).is_some());
}

#[test]
fn a_target_that_scales_without_end_has_no_peak() {
    let points = [(1.0, 100.0), (10.0, 1_000.0), (50.0, 5_000.0), (100.0, 10_000.0)];
    let law = Usl::fit(&points).expect("four points").law;
    assert_eq!((law.lambda.round(), law.peak()), (100.0, None));
}

/// One server that serves one after the other, with exponential service times of 1 ms. In a closed
/// loop it gives 1 000/s to any number of users: contention is all there is. The mean number under way
/// in an open loop makes it a target of 500/s.
#[test]
fn a_single_server_is_one_whose_work_is_done_one_at_a_time() {
    let mut random = Random::new(3);
    let mut closed = |users: usize| {
        // Whoever is served comes back at once, so the server is never idle.
        let time: f64 = (0..20_000).map(|_| 1e-3 * random.exponential()).sum();
        (users as f64, 20_000.0 / time)
    };
    let fit = Usl::fit(&[1, 2, 4, 8, 16].map(&mut closed)).expect("five points");
    assert!(fit.lambda.low < 1_000.0 && 1_000.0 < fit.lambda.high, "{fit:?}");
    assert!(fit.sigma.low < 1.0 && 1.0 < fit.sigma.high && fit.sigma.low > 0.9, "{fit:?}");
    assert_eq!(fit.kappa.low, 0.0, "{fit:?}");
    let open = [200.0, 500.0, 800.0, 900.0, 950.0].map(|tps| (tps / (1_000.0 - tps), tps));
    let fit = Usl::fit(&open).expect("five points").law;
    assert!((fit.lambda - 500.0).abs() < 1.0 && (fit.sigma - 0.5).abs() < 0.01, "{fit:?}");
}
