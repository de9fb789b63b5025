//! Shares are exact: they add up, follow the weights, and stay by their quota.

use balter_controllers::{split, split_evenly};
use proptest::prelude::*;

fn weights() -> impl Strategy<Value = Vec<u64>> {
    let weight = prop_oneof![Just(0), 0..10u64, any::<u64>(), Just(u64::MAX)];
    prop::collection::vec(weight, 1..40)
}

proptest! {
    #[test]
    fn shares_add_up_and_stay_within_one_of_the_quota(total: u64, weights in weights()) {
        let shares = split(total, &weights);
        prop_assert_eq!(shares.len(), weights.len());
        prop_assert_eq!(shares.iter().map(|&s| u128::from(s)).sum::<u128>(), u128::from(total));
        let sum: u128 = weights.iter().map(|&w| u128::from(w)).sum();
        if weights.iter().any(|&w| w > 0) {
            for (&share, &weight) in shares.iter().zip(&weights) {
                let quota = u128::from(total) * u128::from(weight);
                prop_assert!(u128::from(share) >= quota / sum);
                prop_assert!(u128::from(share) <= quota.div_ceil(sum));
            }
        }
    }

    #[test]
    fn a_larger_weight_never_gets_less(total: u64, weights in weights()) {
        let shares = split(total, &weights);
        for (i, &a) in weights.iter().enumerate() {
            for (j, &b) in weights.iter().enumerate() {
                if a > b {
                    prop_assert!(shares[i] >= shares[j]);
                }
                if a == b && i < j {
                    prop_assert!(shares[i] >= shares[j], "ties go to the lowest index");
                }
            }
        }
    }

    #[test]
    fn an_even_split_is_the_split_of_equal_weights(total: u64, parts in 0..60usize, weight: u64) {
        let even: Vec<u64> = split_evenly(total, parts).collect();
        prop_assert_eq!(&even, &split(total, &vec![weight; parts]));
    }
}

#[test]
fn leftovers_go_to_the_largest_fraction_then_the_lowest_index() {
    // Quotas 2.5, 3.75 and 3.75: one unit for each 0.75, none for 0.5.
    assert_eq!(split(10, &[2, 3, 3]), [2, 4, 4]);
    assert_eq!(split(2, &[1, 1, 1]), [1, 1, 0]);
    assert_eq!(split(5, &[0, 0]), [3, 2]);
    assert!(split(5, &[]).is_empty());
}
