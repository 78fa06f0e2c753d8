//! Where threads that part meet again: the immediate post-dominator of a branch.

use super::op::{Inst, Op};

/// No place: the ways meet at the end of the kernel only.
pub(super) const NEVER: u32 = u32::MAX;

/// The basic blocks of a program: where each starts, and where it goes.
struct Blocks {
    starts: Vec<usize>,
    next: Vec<Vec<usize>>,
}

fn blocks(code: &[Inst]) -> Blocks {
    let mut leader = vec![false; code.len() + 1];
    leader[0] = true;
    for (at, inst) in code.iter().enumerate() {
        match inst.op {
            Op::Branch => {
                leader[inst.d as usize] = true;
                leader[at + 1] = true;
            }
            Op::Exit | Op::Trap => leader[at + 1] = true,
            _ => {}
        }
    }
    let starts: Vec<usize> = (0..code.len()).filter(|at| leader[*at]).collect();
    let of = |at: usize| starts.partition_point(|start| *start <= at).saturating_sub(1);
    let next = (0..starts.len()).map(|block| {
        let end = starts.get(block + 1).copied().unwrap_or(code.len());
        let last = &code[end - 1];
        let mut next = Vec::new();
        if matches!(last.op, Op::Branch) {
            next.push(of(last.d as usize));
        }
        let ends = matches!(last.op, Op::Branch | Op::Exit | Op::Trap) && last.guard.is_none();
        if !ends && end < code.len() {
            next.push(of(end));
        }
        next.dedup();
        next
    });
    Blocks { next: next.collect(), starts }
}

/// The immediate post-dominator of each block, by the algorithm of Cooper, Harvey and Kennedy ("A simple, fast dominance
/// algorithm") on the reversed graph; block `n` is the end of the kernel.
fn post_dominators(next: &[Vec<usize>]) -> Vec<Option<usize>> {
    let exit = next.len();
    let mut before = vec![Vec::new(); exit + 1];
    for (block, targets) in next.iter().enumerate() {
        for target in targets {
            before[*target].push(block);
        }
        // A kernel's end is reached from every block that has nowhere else to go.
        if targets.is_empty() {
            before[exit].push(block);
        }
    }
    let order = post_order(&before, exit);
    let mut rank = vec![usize::MAX; exit + 1];
    for (at, block) in order.iter().enumerate() {
        rank[*block] = at;
    }
    let mut found: Vec<Option<usize>> = vec![None; exit + 1];
    found[exit] = Some(exit);
    let mut changed = true;
    while changed {
        changed = false;
        for block in order.iter().rev().filter(|block| **block != exit) {
            let mut new = None;
            let ends = [exit];
            let targets: &[usize] = if next[*block].is_empty() { &ends } else { &next[*block] };
            for target in targets.iter().filter(|target| found[**target].is_some()) {
                new = Some(new.map_or(*target, |other| meet(&found, &rank, *target, other)));
            }
            changed |= new != found[*block];
            found[*block] = new;
        }
    }
    found
}

fn post_order(edges: &[Vec<usize>], root: usize) -> Vec<usize> {
    let (mut seen, mut order, mut stack) = (vec![false; edges.len()], Vec::new(), vec![(root, 0)]);
    seen[root] = true;
    while let Some((block, at)) = stack.pop() {
        match edges[block].get(at) {
            Some(&other) => {
                stack.push((block, at + 1));
                if !seen[other] {
                    seen[other] = true;
                    stack.push((other, 0));
                }
            }
            None => order.push(block),
        }
    }
    order
}

fn meet(found: &[Option<usize>], rank: &[usize], mut a: usize, mut b: usize) -> usize {
    while a != b {
        while rank[a] < rank[b] {
            a = found[a].unwrap_or(b);
        }
        while rank[b] < rank[a] {
            b = found[b].unwrap_or(a);
        }
    }
    a
}

/// Writes into each branch where its ways meet.
pub(super) fn reconverge(code: &mut [Inst]) {
    if code.is_empty() {
        return;
    }
    let blocks = blocks(code);
    let meets = post_dominators(&blocks.next);
    for (block, meet) in meets.iter().enumerate().take(blocks.starts.len()) {
        let end = blocks.starts.get(block + 1).copied().unwrap_or(code.len());
        let last = &mut code[end - 1];
        if matches!(last.op, Op::Branch) {
            last.a = match meet {
                Some(meet) if *meet < blocks.starts.len() => blocks.starts[*meet] as u32,
                _ => NEVER,
            };
        }
    }
}
