//! Pairs the items of two versions of a list, so that unchanged items keep their form when other
//! items are added or removed.

/// The maximum number of comparisons. If lists need more, the items between the common start and
/// the common end are paired by position.
const COMPARISONS_MAX: usize = 1 << 16;

/// Returns the positions of the paired items, in order. As many equal items as possible are paired.
/// In each gap between them, the other items are paired from the start of the gap.
#[must_use]
pub fn pairs(
    old: usize,
    new: usize,
    is_same: impl Fn(usize, usize) -> bool,
) -> Vec<(usize, usize)> {
    let shorter = old.min(new);
    let start = (0..shorter).take_while(|at| is_same(*at, *at)).count();
    let from_end = (1..=shorter - start).take_while(|at| is_same(old - at, new - at)).count();
    let (old_end, new_end) = (old - from_end, new - from_end);
    let mut same: Vec<(usize, usize)> = (0..start).map(|at| (at, at)).collect();
    same.extend(common(start..old_end, start..new_end, &is_same));
    same.extend((old_end..old).zip(new_end..new));
    let mut found = Vec::new();
    let mut next = (0, 0);
    for (one, other) in same.into_iter().chain([(old, new)]) {
        found.extend((next.0..one).zip(next.1..other));
        found.push((one, other));
        next = (one + 1, other + 1);
    }
    // The last pair was added only to close the last gap.
    found.pop();
    found
}

/// Returns a longest common subsequence.
fn common(
    old: std::ops::Range<usize>,
    new: std::ops::Range<usize>,
    is_same: impl Fn(usize, usize) -> bool,
) -> Vec<(usize, usize)> {
    let (rows, columns) = (old.len(), new.len());
    if rows == 0 || columns == 0 || rows.saturating_mul(columns) > COMPARISONS_MAX {
        return Vec::new();
    }
    // For each pair of positions, the length of the longest common subsequence of the items from
    // these positions on.
    let width = columns + 1;
    let mut lengths = vec![0_usize; (rows + 1) * width];
    let at = |lengths: &[usize], row: usize, column: usize| {
        lengths.get(row * width + column).copied().unwrap_or_default()
    };
    for row in (0..rows).rev() {
        for column in (0..columns).rev() {
            let length = if is_same(old.start + row, new.start + column) {
                at(&lengths, row + 1, column + 1) + 1
            } else {
                at(&lengths, row + 1, column).max(at(&lengths, row, column + 1))
            };
            if let Some(place) = lengths.get_mut(row * width + column) {
                *place = length;
            }
        }
    }
    let (mut row, mut column, mut found) = (0, 0, Vec::new());
    while row < rows && column < columns {
        if is_same(old.start + row, new.start + column) {
            found.push((old.start + row, new.start + column));
            (row, column) = (row + 1, column + 1);
        } else if at(&lengths, row + 1, column) >= at(&lengths, row, column + 1) {
            row += 1;
        } else {
            column += 1;
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(old: &str, new: &str) -> Vec<(usize, usize)> {
        let (one, other) = (old.as_bytes(), new.as_bytes());
        pairs(one.len(), other.len(), |at, to| one[at] == other[to])
    }

    #[test]
    fn items_that_stay_the_same_are_paired_and_the_others_by_position() {
        for (old, new, expected) in [
            ("", "", &[][..]),
            ("abc", "abc", &[(0, 0), (1, 1), (2, 2)]),
            ("abc", "xabc", &[(0, 1), (1, 2), (2, 3)]),
            ("abc", "ac", &[(0, 0), (2, 1)]),
            ("abc", "axcd", &[(0, 0), (1, 1), (2, 2)]),
            ("abcd", "bxd", &[(1, 0), (2, 1), (3, 2)]),
            ("ab", "ba", &[(1, 0)]),
            ("aa", "a", &[(0, 0)]),
            ("ab", "xyz", &[(0, 0), (1, 1)]),
        ] {
            assert_eq!(found(old, new), expected, "{old} {new}");
        }
    }

    #[test]
    fn long_lists_are_paired_by_position_between_their_common_ends() {
        let (old, new) = ("b".repeat(1_000), "c".repeat(1_001));
        let found = found(&format!("a{old}z"), &format!("a{new}z"));
        assert_eq!((found.len(), found[500], found[1_001]), (1_002, (500, 500), (1_001, 1_002)));
    }
}
