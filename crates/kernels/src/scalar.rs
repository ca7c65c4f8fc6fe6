//! The kernels in plain Rust: the definition of the canonical order.

use crate::{LANES, kernels::Table};

pub(crate) static TABLE: Table = Table {
    dot: sum::<false>,
    l2_squared: sum::<true>,
    dot_ids: score_ids::<false>,
    l2_ids: score_ids::<true>,
    dot_rows: score_rows::<false>,
    l2_rows: score_rows::<true>,
    axpy,
    add_ids,
    rank_update,
};

fn sum<const L2: bool>(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0.0_f32; LANES];
    let (a_blocks, a_tail) = a.as_chunks::<LANES>();
    let (b_blocks, b_tail) = b.as_chunks::<LANES>();
    for (a, b) in a_blocks.iter().zip(b_blocks) {
        add_block::<L2>(a, b, &mut lanes);
    }
    if !a_tail.is_empty() {
        let mut a = [0.0; LANES];
        let mut b = [0.0; LANES];
        a[..a_tail.len()].copy_from_slice(a_tail);
        b[..b_tail.len()].copy_from_slice(b_tail);
        add_block::<L2>(&a, &b, &mut lanes);
    }
    let mut width = LANES / 2;
    while width > 0 {
        for lane in 0..width {
            lanes[lane] += lanes[lane + width];
        }
        width /= 2;
    }
    lanes[0]
}

fn add_block<const L2: bool>(a: &[f32; LANES], b: &[f32; LANES], lanes: &mut [f32; LANES]) {
    for ((a, b), lane) in a.iter().zip(b).zip(lanes) {
        *lane = if L2 {
            let difference = a - b;
            difference.mul_add(difference, *lane)
        } else {
            a.mul_add(*b, *lane)
        };
    }
}

fn score_ids<const L2: bool>(query: &[f32], rows: &[f32], ids: &[u32], out: &mut [f32]) {
    let dim = query.len();
    for (&id, out) in ids.iter().zip(out) {
        let start = id as usize * dim;
        let sum = sum::<L2>(query, &rows[start..start + dim]);
        *out = if L2 { -sum } else { sum };
    }
}

fn score_rows<const L2: bool>(query: &[f32], rows: &[f32], out: &mut [f32]) {
    let dim = query.len();
    for (row, out) in out.iter_mut().enumerate() {
        let sum = sum::<L2>(query, &rows[row * dim..(row + 1) * dim]);
        *out = if L2 { -sum } else { sum };
    }
}

fn axpy(alpha: f32, x: &[f32], y: &mut [f32]) {
    for (x, y) in x.iter().zip(y) {
        *y = alpha.mul_add(*x, *y);
    }
}

fn add_ids(weights: &[f32], rows: &[f32], ids: &[u32], out: &mut [f32]) {
    let dim = out.len();
    for (&weight, &id) in weights.iter().zip(ids) {
        let start = id as usize * dim;
        axpy(weight, &rows[start..start + dim], out);
    }
}

fn rank_update(dim: usize, first: usize, left: &[f32], right: &[f32], upper: &mut [f32]) {
    for (left, right) in left.chunks_exact(dim).zip(right.chunks_exact(dim)) {
        for (row, i) in upper.chunks_exact_mut(dim).zip(first..) {
            axpy(left[i], &right[i..], &mut row[i..]);
        }
    }
}
