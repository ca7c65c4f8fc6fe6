//! Full precision through simsimd: values widened to f64, sums accumulated in f64.
//!
//! For ground truth, reports and as a second oracle, independent of the code of this crate. Not
//! for the search loop: each call goes through a C function and widens its arguments first.

use simsimd::SpatialSimilarity;

/// Values widened on the stack at a time.
const CHUNK: usize = 256;

/// `Σ aᵢ bᵢ`, or `None` when the lengths differ.
pub fn dot(a: &[f32], b: &[f32]) -> Option<f64> {
    sum(a, b, <f64 as SpatialSimilarity>::dot)
}

/// `Σ (aᵢ - bᵢ)²`, or `None` when the lengths differ.
pub fn l2_squared(a: &[f32], b: &[f32]) -> Option<f64> {
    sum(a, b, <f64 as SpatialSimilarity>::l2sq)
}

/// `a · b / (|a| |b|)`, 0 when either is zero; `None` when the lengths differ.
pub fn cosine(a: &[f32], b: &[f32]) -> Option<f64> {
    let product = dot(a, b)?;
    let norms = (dot(a, a)? * dot(b, b)?).sqrt();
    Some(if norms > 0.0 { product / norms } else { 0.0 })
}

fn sum(a: &[f32], b: &[f32], part: impl Fn(&[f64], &[f64]) -> Option<f64>) -> Option<f64> {
    if a.len() != b.len() {
        return None;
    }
    let mut wide_a = [0.0_f64; CHUNK];
    let mut wide_b = [0.0_f64; CHUNK];
    let mut total = 0.0;
    for (a, b) in a.chunks(CHUNK).zip(b.chunks(CHUNK)) {
        for (wide, value) in wide_a.iter_mut().zip(a) {
            *wide = f64::from(*value);
        }
        for (wide, value) in wide_b.iter_mut().zip(b) {
            *wide = f64::from(*value);
        }
        total += part(&wide_a[..a.len()], &wide_b[..b.len()])?;
    }
    Some(total)
}
