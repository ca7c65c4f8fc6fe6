//! The eigenvectors of a small symmetric matrix, in double precision.
//!
//! Householder tridiagonalisation and the implicit QR iteration with Wilkinson's shift (Golub and Van
//! Loan, "Matrix computations", §8.3), every sum in a fixed order and nothing but `+ − × ÷ √`: the
//! same bits on every machine.

/// QR steps an eigenvalue takes at most; two or three are usual.
const MAX_STEPS: usize = 60;

/// `A = Σ_k values[k] q_k q_kᵀ`.
#[derive(Debug, Clone, PartialEq)]
pub struct Eigen {
    /// `order` values in no particular order.
    pub values: Vec<f64>,
    /// Row-major `order * order`: row `k` is the unit vector `q_k`.
    pub vectors: Vec<f64>,
}

/// Decomposes a row-major `order * order` matrix, of which the upper triangle is read. `O(order³)`.
///
/// None if a value is not finite, or the iteration does not converge. The same bits on every machine.
#[must_use]
pub fn eigen(matrix: &[f32], order: usize) -> Option<Eigen> {
    if matrix.iter().any(|value| !value.is_finite()) {
        return None;
    }
    let mut full = vec![0.0; order * order];
    for i in 0..order {
        for j in i..order {
            let value = f64::from(matrix[i * order + j]);
            full[i * order + j] = value;
            full[j * order + i] = value;
        }
    }
    let mut vectors = vec![0.0; order * order];
    vectors
        .iter_mut()
        .step_by(order + 1)
        .for_each(|value| *value = 1.0);
    let mut beside = tridiagonalise(&mut full, order, &mut vectors);
    let mut values: Vec<f64> = full.iter().step_by(order + 1).copied().collect();
    diagonalise(&mut values, &mut beside, &mut vectors).then_some(Eigen { values, vectors })
}

/// Reduces `a` to tridiagonal form `T = H A Hᵀ`, `H` a product of reflections, which is multiplied onto
/// `vectors` from the left. Leaves the diagonal of `T` in `a`, returns what is beside it.
fn tridiagonalise(a: &mut [f64], order: usize, vectors: &mut [f64]) -> Vec<f64> {
    let mut beside = Vec::with_capacity(order);
    let mut v = vec![0.0; order];
    let mut w = vec![0.0; order];
    let mut image = vec![0.0; order];
    for k in 1..order {
        // The reflection that takes row `k − 1` right of the diagonal to a multiple of a unit vector.
        let row = &a[(k - 1) * order..k * order];
        let rest: f64 = row[k + 1..].iter().map(|x| x * x).sum();
        if rest == 0.0 {
            beside.push(row[k]);
            continue;
        }
        let norm = (row[k] * row[k] + rest).sqrt();
        let target = if row[k] > 0.0 { -norm } else { norm };
        beside.push(target);
        v[k..].copy_from_slice(&row[k..]);
        v[k] -= target;
        let scale = 2.0 / (v[k] * v[k] + rest);
        let v = &v[k..];
        // A ← A − v wᵀ − w vᵀ.
        for (w, row) in w[k..].iter_mut().zip(a[k * order..].chunks_exact(order)) {
            *w = scale * dot(&row[k..], v);
        }
        let w = &mut w[k..];
        let along = scale / 2.0 * dot(w, v);
        for (w, v) in w.iter_mut().zip(v) {
            *w -= along * v;
        }
        for ((row, &vi), &wi) in a[k * order..].chunks_exact_mut(order).zip(v).zip(&*w) {
            for ((value, vj), wj) in row[k..].iter_mut().zip(v).zip(&*w) {
                *value -= vi * wj + wi * vj;
            }
        }
        // vectors ← (I − scale v vᵀ) vectors.
        image.fill(0.0);
        for (row, &vi) in vectors[k * order..].chunks_exact(order).zip(v) {
            for (image, value) in image.iter_mut().zip(row) {
                *image += vi * value;
            }
        }
        for (row, &vi) in vectors[k * order..].chunks_exact_mut(order).zip(v) {
            for (value, image) in row.iter_mut().zip(&image) {
                *value -= scale * vi * image;
            }
        }
    }
    beside
}

/// Takes a tridiagonal matrix to diagonal form by rotations, which are applied to the rows of
/// `vectors`. False if that takes too long.
fn diagonalise(diagonal: &mut [f64], beside: &mut [f64], vectors: &mut [f64]) -> bool {
    let order = diagonal.len();
    let mut last = order.saturating_sub(1);
    let mut steps = 0;
    while last > 0 {
        let negligible = |k: usize| {
            beside[k].abs() <= f64::EPSILON * (diagonal[k].abs() + diagonal[k + 1].abs())
        };
        if negligible(last - 1) {
            last -= 1;
            steps = 0;
            continue;
        }
        if steps == MAX_STEPS {
            return false;
        }
        steps += 1;
        let first = (1..last)
            .rev()
            .find(|&k| negligible(k - 1))
            .unwrap_or_default();
        // Wilkinson's shift: the eigenvalue of the last two by two block nearest its last entry.
        let half = (diagonal[last - 1] - diagonal[last]) / 2.0;
        let square = beside[last - 1] * beside[last - 1];
        let root = (half * half + square).sqrt();
        let shift = diagonal[last] - square / (half + if half < 0.0 { -root } else { root });
        let mut x = diagonal[first] - shift;
        let mut bulge = beside[first];
        for k in first..last {
            let radius = (x * x + bulge * bulge).sqrt();
            let (c, s) = if radius > 0.0 {
                (x / radius, bulge / radius)
            } else {
                (1.0, 0.0)
            };
            if k > first {
                beside[k - 1] = radius;
            }
            let (p, q, r) = (diagonal[k], diagonal[k + 1], beside[k]);
            diagonal[k] = c * c * p + 2.0 * c * s * r + s * s * q;
            diagonal[k + 1] = s * s * p - 2.0 * c * s * r + c * c * q;
            beside[k] = c * s * (q - p) + (c * c - s * s) * r;
            x = beside[k];
            if k + 1 < last {
                bulge = s * beside[k + 1];
                beside[k + 1] *= c;
            }
            let (head, tail) = vectors.split_at_mut((k + 1) * order);
            let rows = head[k * order..].iter_mut().zip(&mut tail[..order]);
            for (upper, lower) in rows {
                let (u, l) = (*upper, *lower);
                *upper = c * u + s * l;
                *lower = c * l - s * u;
            }
        }
    }
    true
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gram::gram;
    use crate::random::initial_factors;

    fn check(matrix: &[f32], order: usize) {
        let Eigen { values, vectors } = eigen(matrix, order).expect("converges");
        let scale = values
            .iter()
            .fold(f64::MIN_POSITIVE, |max, v| max.max(v.abs()));
        let rows: Vec<&[f64]> = vectors.chunks_exact(order).collect();
        for i in 0..order {
            for j in i..order {
                let product = dot(rows[i], rows[j]) - f64::from(u8::from(i == j));
                assert!(product.abs() < 1e-12, "order {order}: not orthonormal");
                let sum: f64 = (0..order)
                    .map(|k| values[k] * rows[k][i] * rows[k][j])
                    .sum();
                let error = (sum - f64::from(matrix[i * order + j])).abs() / scale;
                assert!(error < 1e-13, "order {order}: {error} at {i},{j}");
            }
        }
    }

    #[test]
    fn the_parts_multiply_to_the_whole() {
        for order in (1..=12).chain([33, 64, 130]) {
            // Of full rank, and far from it.
            for rows in [3 * order, order / 3] {
                check(&gram(&initial_factors(rows, order, 9), order, 1), order);
            }
        }
    }

    #[test]
    fn degenerate_matrices_are_no_exception() {
        let order = 20;
        check(&vec![0.0; order * order], order);
        check(&vec![1.0; order * order], order);
        let diagonal = |f: &dyn Fn(usize) -> f32| {
            let mut matrix = vec![0.0; order * order];
            for i in 0..order {
                matrix[i * order + i] = f(i);
            }
            matrix
        };
        check(&diagonal(&|_| 1.0), order);
        check(&diagonal(&|i| -(i as f32)), order);
        check(&diagonal(&|i| if i % 2 == 0 { 1e38 } else { 1e-38 }), order);
        // Indefinite: zero on the diagonal, one beside it.
        let mut chain = vec![0.0; order * order];
        for i in 1..order {
            chain[(i - 1) * order + i] = 1.0;
        }
        for i in 1..order {
            chain[i * order + i - 1] = 1.0;
        }
        check(&chain, order);
    }

    #[test]
    fn only_the_upper_triangle_is_read_and_it_must_be_finite() {
        let mut matrix = gram(&initial_factors(20, 5, 1), 5, 1);
        let whole = eigen(&matrix, 5).expect("converges").values;
        matrix[20] = 7.0;
        assert_eq!(eigen(&matrix, 5).expect("converges").values, whole);
        matrix[4] = f32::NAN;
        assert!(eigen(&matrix, 5).is_none());
    }
}
