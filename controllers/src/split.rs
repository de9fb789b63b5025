/// Divides `total` in proportion to `weights`, by largest remainder.
///
/// The shares add up to `total` exactly and each lies within one unit of its
/// quota `total * weight / sum(weights)`. Units left over go to the largest
/// fractions, among equal ones to the lowest index, so every caller computes
/// the same division. If all weights are zero they count as equal; a share of
/// weight zero beside one that is not gets nothing. Empty weights give an empty
/// division (the total then belongs to nobody).
///
/// ```
/// use balter_controllers::split;
///
/// assert_eq!(split(10, &[1, 1, 1]), [4, 3, 3]);
/// assert_eq!(split(7, &[2, 0, 1]), [5, 0, 2]);
/// ```
#[must_use]
pub fn split(total: u64, weights: &[u64]) -> Vec<u64> {
    // u64 times u64 fits u128, and so does a sum of 2^64 weights.
    let sum: u128 = weights.iter().map(|&w| u128::from(w)).sum();
    if sum == 0 {
        return split_evenly(total, weights.len()).collect();
    }
    let mut shares = Vec::with_capacity(weights.len());
    let mut fractions = Vec::with_capacity(weights.len());
    let mut given = 0;
    for (index, &weight) in weights.iter().enumerate() {
        let scaled = u128::from(total) * u128::from(weight);
        // The quotient is at most `total`, because a weight is at most the sum.
        let share = (scaled / sum) as u64;
        given += share;
        shares.push(share);
        fractions.push((scaled % sum, index));
    }
    // The fractions add up to `left` whole units and each is below one, so
    // there are always more than `left` of them that are not zero, or none is
    // needed: a weight of zero is never reached.
    let left = (total - given) as usize;
    fractions.sort_unstable_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(&b.1)));
    for &(_, index) in &fractions[..left] {
        shares[index] += 1;
    }
    shares
}

/// Divides `total` into `parts` shares that differ by one at most, the larger
/// ones first. The same as [`split`] with equal weights, without allocating.
///
/// No parts give an empty division.
///
/// ```
/// use balter_controllers::split_evenly;
///
/// assert!(split_evenly(10, 4).eq([3, 3, 2, 2]));
/// ```
pub fn split_evenly(total: u64, parts: usize) -> impl ExactSizeIterator<Item = u64> + Clone {
    let divisor = (parts as u64).max(1);
    let (base, left) = (total / divisor, total % divisor);
    (0..parts).map(move |index| base + u64::from((index as u64) < left))
}
