//! Makes a way to a violation shorter as long as it leads to one of the same kind.

use crate::finding::Violation;

/// As few of these changes as lead to a violation of the same kind, and the violation that these lead to. Each change is left out in
/// its turn; `attempt` says what is wrong under those that it is given.
///
/// # Errors
///
/// When an attempt can't be made.
pub fn minimise<C: Clone, V: AsRef<Violation>, Violations: IntoIterator<Item = V>>(
    changes: &[C],
    mut violation: V,
    mut attempt: impl FnMut(&[C]) -> anyhow::Result<Violations>,
) -> anyhow::Result<(Vec<C>, V)> {
    let mut changes = changes.to_vec();
    let mut index = 0;
    while index < changes.len() {
        let mut fewer = changes.clone();
        fewer.remove(index);
        match attempt(&fewer)?.into_iter().find(|other| other.as_ref().kind == violation.as_ref().kind) {
            Some(other) => (changes, violation) = (fewer, other),
            None => index += 1,
        }
    }
    Ok((changes, violation))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_matter_is_left_out() {
        let attempt = |changes: &[u32]| {
            let needed = [2, 5].iter().all(|needed| changes.contains(needed));
            Ok(if needed {
                vec![Violation::new("other", ""), Violation::new("kind", format!("{changes:?}"))]
            } else {
                vec![]
            })
        };
        let (least, violation) = minimise(&[1, 2, 3, 5, 8], Violation::new("kind", "all"), attempt).expect("attempts");
        assert_eq!(least, [2, 5]);
        assert_eq!(violation.what, "[2, 5]");
    }

    #[test]
    fn a_violation_of_another_kind_is_another_one() {
        let attempt = |changes: &[u32]| Ok(Some(Violation::new(if changes.len() == 2 { "kind" } else { "other" }, "")));
        let (least, _) = minimise(&[1, 2], Violation::new("kind", ""), attempt).expect("attempts");
        assert_eq!(least, [1, 2]);
    }
}
