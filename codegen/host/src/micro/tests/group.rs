//! Sorting by groups.

use super::Guarded;
use crate::micro::sort_by_group;

#[test]
fn rows_keep_their_order_in_their_group() {
    for (list, groups, order, starts) in [
        (vec![2, 0, 2, 1, 0], 3, vec![1, 4, 3, 0, 2], vec![0, 2, 3, 5]),
        (vec![3, 3], 5, vec![0, 1], vec![0, 0, 0, 0, 2, 2]),
        (vec![], 1, vec![], vec![0, 0]),
        // What lies beyond the last group is put into it.
        (vec![7, 0, u32::MAX], 2, vec![1, 0, 2], vec![0, 1, 3]),
    ] {
        let group = Guarded::new(&list);
        let mut found = (Guarded::new(&vec![9; list.len()]), Guarded::new(&vec![9; groups + 1]));
        let (to, begins) = (found.0.as_mut_ptr(), found.1.as_mut_ptr());
        // SAFETY: the slices have these lengths.
        unsafe { sort_by_group(group.as_ptr(), list.len(), groups, to, begins) };
        assert_eq!((&*found.0, &*found.1), (&order[..], &starts[..]));
    }
}
