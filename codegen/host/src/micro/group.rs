//! Sorting rows by the weight that each is multiplied with.

/// Sorts the numbers `0..count` by their groups, stably: `order` gets the numbers, `starts[g]` where group g begins, and
/// `starts[groups]` the count. A group beyond the last counts as the last.
///
/// # Safety
/// `group` and `order` have `count` elements, `starts` has `groups + 1`; none overlaps another; `groups` is not 0.
pub unsafe extern "C" fn sort_by_group(
    group: *const u32,
    count: usize,
    groups: usize,
    order: *mut u32,
    starts: *mut u32,
) {
    // SAFETY: the caller lends these elements.
    let (group, order, starts) = unsafe {
        (
            std::slice::from_raw_parts(group, count),
            std::slice::from_raw_parts_mut(order, count),
            std::slice::from_raw_parts_mut(starts, groups + 1),
        )
    };
    let of = |g: u32| (g as usize).min(groups - 1);
    starts.fill(0);
    group.iter().for_each(|g| starts[of(*g) + 1] += 1);
    for g in 0..groups {
        starts[g + 1] += starts[g];
    }
    // Each start moves to the end of its group, that is, to the next one's start; afterwards all move back.
    for (number, g) in group.iter().enumerate() {
        let place = &mut starts[of(*g)];
        order[*place as usize] = number as u32;
        *place += 1;
    }
    starts.copy_within(0..groups, 1);
    starts[0] = 0;
}
