//! Naive f64 definitions, one loop each: what every kernel is tested against.
//!
//! Unlike the kernels these are meant to be read, not run on anything large.

use crate::Metric;

/// `Σ aᵢ bᵢ` over the shorter of the two.
pub fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter()
        .zip(b)
        .map(|(a, b)| f64::from(*a) * f64::from(*b))
        .sum()
}

/// `Σ (aᵢ - bᵢ)²` over the shorter of the two.
pub fn l2_squared(a: &[f32], b: &[f32]) -> f64 {
    a.iter()
        .zip(b)
        .map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2))
        .sum()
}

/// `|a|`.
pub fn norm(a: &[f32]) -> f64 {
    dot(a, a).sqrt()
}

/// `a · b / (|a| |b|)`; 0 when either is zero.
pub fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let norms = norm(a) * norm(b);
    if norms > 0.0 { dot(a, b) / norms } else { 0.0 }
}

/// The score of a pair under a metric (cosine normalises here); larger is better.
pub fn score(metric: Metric, a: &[f32], b: &[f32]) -> f64 {
    match metric {
        Metric::InnerProduct => dot(a, b),
        Metric::Cosine => cosine(a, b),
        Metric::L2 => -l2_squared(a, b),
    }
}

/// The ordinals of the `k` best rows for a query, best first, ties by ordinal. O(n log n).
pub fn top_k(metric: Metric, query: &[f32], rows: &[f32], dim: usize, k: usize) -> Vec<u32> {
    let mut scored: Vec<(f64, u32)> = rows
        .chunks_exact(dim)
        .map(|row| score(metric, query, row))
        .zip(0..)
        .collect();
    scored.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    scored
        .into_iter()
        .take(k)
        .map(|(_, ordinal)| ordinal)
        .collect()
}
