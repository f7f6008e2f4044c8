//! Medians, which a busy machine moves less than means.

/// The median; of an even number of values, the upper one of the two in the middle. Panics if there is none.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

/// The median of what each round says about two sides.
pub fn paired(left: &[f64], right: &[f64], compare: impl Fn(f64, f64) -> f64) -> f64 {
    let pairs: Vec<f64> = left.iter().zip(right).map(|(left, right)| compare(*left, *right)).collect();
    median(&pairs)
}

/// The median of the rounds' ratios.
pub fn ratio(left: &[f64], right: &[f64]) -> f64 {
    paired(left, right, |left, right| left / right)
}

/// The median of the rounds' differences.
pub fn difference(left: &[f64], right: &[f64]) -> f64 {
    paired(left, right, |left, right| left - right)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_disturbed_round_changes_nothing() {
        let (left, right) = ([10.0, 11.0, 900.0], [5.0, 5.5, 5.0]);
        assert!((median(&left) - 11.0).abs() < 1e-9);
        assert!((ratio(&left, &right) - 2.0).abs() < 1e-9);
        assert!((difference(&left, &right) - 5.5).abs() < 1e-9);
    }
}
