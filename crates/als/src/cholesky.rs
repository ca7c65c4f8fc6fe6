//! Small dense systems: `A = Uᵀ U`, and back.

use refrain_kernels::Kernels;

/// Rows of the factor computed together: as many as the widest tile of the kernels has.
const PANEL: usize = 8;

/// Working memory of [`factor`].
#[derive(Debug, Default)]
pub(crate) struct Workspace {
    diagonal: Vec<f32>,
    /// The finished rows of the factor with the opposite sign.
    negated: Vec<f32>,
}

/// Overwrites the upper triangle of a symmetric row-major `order * order` matrix with `U`, where
/// `A = Uᵀ U`; only the upper triangle is read, the rest is scratch.
///
/// Left-looking (Golub and Van Loan, "Matrix computations", §4.2.5, by rows): a panel first takes in
/// all rows above it in one pass, so that its tiles are loaded and stored once, and is then eliminated
/// row by row. `order³ / 6` multiply-adds.
///
/// False if a pivot is not clearly positive: below `order` units of rounding of its diagonal entry
/// the rest of the factor would be noise.
pub(crate) fn factor(
    kernels: Kernels,
    matrix: &mut [f32],
    order: usize,
    Workspace { diagonal, negated }: &mut Workspace,
) -> bool {
    diagonal.clear();
    diagonal.extend(matrix.iter().step_by(order + 1));
    negated.resize(negated.len().max(order * order), 0.0);
    let tolerance = order as f32 * f32::EPSILON;
    for start in (0..order).step_by(PANEL) {
        let (above, rest) = matrix.split_at_mut(start * order);
        let panel_rows = PANEL.min(order - start);
        let panel = &mut rest[..panel_rows * order];
        kernels.rank_update(order, start, &negated[..start * order], above, panel);
        for (at, j) in (start..start + panel_rows).enumerate() {
            let (head, below) = panel.split_at_mut((at + 1) * order);
            let row = &mut head[at * order..];
            let pivot = row[j];
            if !(pivot > tolerance * diagonal[j] && pivot.is_finite()) {
                return false;
            }
            let inverse = pivot.sqrt().recip();
            let negative = &mut negated[j * order..][..order];
            for (value, negative) in row[j..].iter_mut().zip(&mut negative[j..]) {
                *value *= inverse;
                *negative = -*value;
            }
            kernels.rank_update(order, j + 1, negative, row, below);
        }
    }
    true
}

/// Solves `Uᵀ U x = b` in place of `b`, with the upper triangle of `upper` as `U`.
pub(crate) fn substitute(kernels: Kernels, upper: &[f32], x: &mut [f32]) {
    let order = x.len();
    for j in 0..order {
        let (head, tail) = x.split_at_mut(j + 1);
        let row = &upper[j * order + j..(j + 1) * order];
        head[j] /= row[0];
        kernels.axpy(-head[j], &row[1..], tail);
    }
    for j in (0..order).rev() {
        let (head, tail) = x.split_at_mut(j + 1);
        let row = &upper[j * order + j..(j + 1) * order];
        head[j] = (head[j] - kernels.dot(&row[1..], tail)) / row[0];
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gram::gram;
    use crate::random::initial_factors;

    #[test]
    fn solves_at_every_order_around_the_panels() {
        let kernels = Kernels::active();
        let mut workspace = Workspace::default();
        for order in (1..=35).rev().chain([64, 100]) {
            let mut matrix = gram(&initial_factors(2 * order, order, 5), order, 1);
            for j in 0..order {
                matrix[j * order + j] += 0.01;
            }
            let truth: Vec<f32> = (0..order).map(|j| (j % 7) as f32 - 3.0).collect();
            let mut x: Vec<f32> = matrix
                .chunks_exact(order)
                .map(|row| kernels.dot(row, &truth))
                .collect();
            assert!(factor(kernels, &mut matrix, order, &mut workspace));
            substitute(kernels, &matrix, &mut x);
            for (x, truth) in x.iter().zip(&truth) {
                assert!(
                    (x - truth).abs() < 1e-4,
                    "{x} is not {truth} at order {order}"
                );
            }
        }
    }

    #[test]
    fn refuses_what_is_not_positive_definite() {
        let refused = |mut matrix: Vec<f32>, order| {
            !factor(
                Kernels::active(),
                &mut matrix,
                order,
                &mut Workspace::default(),
            )
        };
        assert!(refused(vec![0.0], 1));
        assert!(refused(vec![f32::NAN], 1));
        assert!(refused(vec![f32::INFINITY], 1));
        // Rank one, twice the same row: the second pivot is rounding.
        assert!(refused(vec![1.0 / 3.0, 1.0 / 3.0, 1.0 / 3.0, 1.0 / 3.0], 2));
        // Indefinite, in the second panel.
        let mut matrix = vec![0.0; 100];
        matrix.iter_mut().step_by(11).for_each(|value| *value = 1.0);
        matrix[99] = -1.0;
        assert!(refused(matrix, 10));
    }
}
