//! mbarrier and groups.

use sinter_vgpu::async_copy::mbarrier::MOST;
use sinter_vgpu::async_copy::{Groups, Mbarrier, MbarrierError};

#[test]
fn a_phase_ends_with_its_last_arrival() {
    let mut barrier = Mbarrier::new(3).expect("a count");
    let state = barrier.arrive(2).expect("two arrive");
    assert_eq!((state, barrier.test(state), barrier.pending()), (0, Ok(false), 1));
    assert!(!barrier.test_parity(0) && barrier.test_parity(1), "the phase before the first counts as over");
    assert_eq!(barrier.arrive(1), Ok(0));
    assert_eq!((barrier.test(state), barrier.phase(), barrier.pending()), (Ok(true), 1, 3));
    assert!(barrier.test_parity(0) && !barrier.test_parity(1));
}

#[test]
fn bytes_hold_a_phase_open_in_either_order() {
    let mut barrier = Mbarrier::new(1).expect("a count");
    assert_eq!(barrier.arrive_expect(4096), Ok(0));
    assert!(!barrier.test_parity(0));
    barrier.complete(4000).expect("some");
    assert_eq!(barrier.transactions(), 96);
    assert!(!barrier.test_parity(0));
    barrier.complete(96).expect("the rest");
    assert!(barrier.test_parity(0));
    // The bytes come before they are announced.
    barrier.complete(64).expect("early");
    assert_eq!((barrier.transactions(), barrier.phase()), (-64, 1));
    assert_eq!(barrier.arrive_expect(64), Ok(1));
    assert_eq!(barrier.phase(), 2);
    // Announced without an arrival: the arrival alone does not end the phase.
    barrier.expect(16).expect("announced");
    assert_eq!(barrier.arrive(1), Ok(2));
    assert_eq!(barrier.phase(), 2);
    barrier.complete(16).expect("there");
    assert_eq!(barrier.phase(), 3);
}

#[test]
fn what_a_barrier_cannot_do_is_an_error() {
    assert_eq!(Mbarrier::new(0), Err(MbarrierError::Count(0)));
    assert_eq!(Mbarrier::new(1 << 20), Err(MbarrierError::Count(1 << 20)));
    let mut barrier = Mbarrier::new(2).expect("a count");
    assert_eq!(barrier.arrive(3), Err(MbarrierError::Arrivals { count: 3, pending: 2 }));
    assert_eq!(barrier.arrive(0), Err(MbarrierError::Count(0)));
    assert_eq!(barrier.arrive_no_complete(2), Err(MbarrierError::Completes));
    assert_eq!(barrier.arrive_no_complete(1), Ok(0));
    barrier.expect(MOST as u32).expect("as much as there can be");
    assert_eq!(barrier.expect(1), Err(MbarrierError::Transactions { bytes: MOST + 1 }));
    assert_eq!(barrier.arrive(1), Ok(0));
    // Everyone is there, the bytes are not: nobody can arrive once more.
    assert_eq!(barrier.arrive(1), Err(MbarrierError::Arrivals { count: 1, pending: 0 }));
    barrier.complete(MOST as u32).expect("there");
    barrier.complete(MOST as u32).expect("early");
    assert_eq!(barrier.complete(1), Err(MbarrierError::Transactions { bytes: -MOST - 1 }));
}

#[test]
fn a_wait_for_a_phase_long_over_is_an_error() {
    let mut barrier = Mbarrier::new(1).expect("a count");
    let first = barrier.arrive(1).expect("arrives");
    assert_eq!(barrier.test(first), Ok(true));
    barrier.arrive(1).expect("arrives");
    assert_eq!(barrier.test(first), Err(MbarrierError::Phase { wanted: 0, current: 2 }));
    assert_eq!(barrier.test(3), Err(MbarrierError::Phase { wanted: 3, current: 2 }));
}

#[test]
fn one_who_drops_out_is_not_waited_for() {
    let mut barrier = Mbarrier::new(3).expect("a count");
    assert_eq!(barrier.arrive_drop(1), Ok(0));
    assert_eq!(barrier.arrive(2), Ok(0));
    assert_eq!((barrier.phase(), barrier.pending()), (1, 2));
    assert!(barrier.arrive_drop(3).is_err());
}

/// A ring of stages with a producer and a consumer, as a kernel has it: each waits for the other's phase.
#[test]
fn a_ring_of_stages_runs() {
    const STAGES: usize = 3;
    let mut full = [Mbarrier::new(1).expect("a count"); STAGES];
    let mut empty = [Mbarrier::new(2).expect("a count"); STAGES];
    let (mut produced, mut consumed, mut turns) = (0usize, 0usize, 0);
    while consumed < 20 {
        turns += 1;
        let (stage, parity) = (produced % STAGES, (produced / STAGES) as u32 & 1);
        if produced < 20 && empty[stage].test_parity(parity ^ 1) {
            full[stage].arrive_expect(256).expect("announced");
            full[stage].complete(128).expect("half");
            full[stage].complete(128).expect("half");
            produced += 1;
        }
        let (stage, parity) = (consumed % STAGES, (consumed / STAGES) as u32 & 1);
        if turns % 3 == 0 && full[stage].test_parity(parity) {
            empty[stage].arrive(1).expect("one");
            empty[stage].arrive(1).expect("other");
            consumed += 1;
        }
        assert!(produced - consumed <= STAGES && turns < 1000);
    }
}

#[test]
fn groups_are_done_in_order() {
    let mut groups = Groups::default();
    groups.begin('a');
    groups.begin('b');
    groups.commit();
    groups.commit();
    groups.begin('c');
    groups.commit();
    groups.begin('d');
    assert_eq!((groups.pending(), groups.uncommitted()), (3, &['d'][..]));
    assert_eq!(groups.wait(3), []);
    assert_eq!(groups.wait(1), ['a', 'b']);
    assert_eq!(groups.wait(1), [], "the empty group was done too");
    assert!(groups.under_way().eq(&['c', 'd']));
    assert_eq!(groups.wait(0), ['c'], "what is not committed is not waited for");
    assert_eq!(groups.wait_all(), ['d']);
    assert_eq!((groups.pending(), groups.under_way().count()), (0, 0));
}
