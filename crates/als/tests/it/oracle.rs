//! The objective and its minimiser, straight from the formula, in double precision.

use refrain_als::{Confidence, Factors, Hyper, Interactions};

pub(crate) fn confidence(hyper: &Hyper, strength: f32) -> f64 {
    let r = f64::from(strength);
    f64::from(hyper.alpha)
        * match hyper.confidence {
            Confidence::Linear => r,
            Confidence::Log => (1.0 + r).ln(),
        }
}

pub(crate) fn ridge(hyper: &Hyper, observed: usize, others: usize) -> f64 {
    let frequency = observed as f64 + f64::from(hyper.unobserved_weight) * others as f64;
    f64::from(hyper.regularization) * frequency.powf(f64::from(hyper.frequency_exponent))
}

/// Minimises one row's objective by Gauss–Jordan elimination. `evidence`: signed strengths.
pub(crate) fn solve(hyper: &Hyper, factors: &[f32], evidence: &[(u32, f32)]) -> Vec<f64> {
    let d = hyper.rank;
    let rows: Vec<&[f32]> = factors.chunks_exact(d).collect();
    let mut system = vec![vec![0.0; d + 1]; d];
    for i in 0..d {
        for j in 0..d {
            for row in &rows {
                let product = f64::from(row[i]) * f64::from(row[j]);
                system[i][j] += f64::from(hyper.unobserved_weight) * product;
            }
            for &(item, strength) in evidence {
                let row = rows[item as usize];
                system[i][j] +=
                    confidence(hyper, strength.abs()) * f64::from(row[i]) * f64::from(row[j]);
            }
        }
        system[i][i] += ridge(hyper, evidence.len(), rows.len());
        for &(item, strength) in evidence.iter().filter(|(_, strength)| *strength > 0.0) {
            system[i][d] += confidence(hyper, strength) * f64::from(rows[item as usize][i]);
        }
    }
    for column in 0..d {
        let pivot = (column..d)
            .max_by(|&a, &b| system[a][column].abs().total_cmp(&system[b][column].abs()))
            .unwrap();
        system.swap(column, pivot);
        let pivot_row = system[column].clone();
        for (i, row) in system.iter_mut().enumerate() {
            if i != column {
                let factor = row[column] / pivot_row[column];
                for (value, &p) in row.iter_mut().zip(&pivot_row) {
                    *value -= factor * p;
                }
            }
        }
    }
    (0..d).map(|i| system[i][d] / system[i][i]).collect()
}

/// The whole objective: what both half-steps lower.
pub(crate) fn objective(hyper: &Hyper, data: &Interactions, users: &[f32], items: &[f32]) -> f64 {
    let d = hyper.rank;
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        a.iter()
            .zip(b)
            .map(|(&x, &y)| f64::from(x) * f64::from(y))
            .sum()
    };
    let transposed = data.transposed();
    let mut sum = 0.0;
    for (user, x) in (0..).zip(users.chunks_exact(d)) {
        let (heard, strengths) = data.user(user);
        for (&item, strength) in heard.iter().zip(strengths.iter()) {
            let y = &items[item as usize * d..][..d];
            sum += confidence(hyper, strength) * (1.0 - dot(x, y)).powi(2);
        }
        for y in items.chunks_exact(d) {
            sum += f64::from(hyper.unobserved_weight) * dot(x, y).powi(2);
        }
        sum += ridge(hyper, heard.len(), data.items() as usize) * dot(x, x);
    }
    for (item, y) in (0..).zip(items.chunks_exact(d)) {
        let listeners = transposed.user(item).0.len();
        sum += ridge(hyper, listeners, data.users() as usize) * dot(y, y);
    }
    sum
}

/// Solves every item against the users, then every user against the items.
pub(crate) fn pass(hyper: &Hyper, data: &Interactions, factors: &mut Factors) {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "rounding to f32 is the point"
    )]
    fn solve_all(hyper: &Hyper, data: &Interactions, fixed: &[f32], solved: &mut [f32]) {
        for (row, out) in (0..).zip(solved.chunks_exact_mut(hyper.rank)) {
            let (others, strengths) = data.user(row);
            let evidence: Vec<_> = others.iter().copied().zip(strengths.iter()).collect();
            for (out, value) in out.iter_mut().zip(solve(hyper, fixed, &evidence)) {
                *out = value as f32;
            }
        }
    }
    let Factors { users, items, .. } = factors;
    solve_all(hyper, &data.transposed(), users, items);
    solve_all(hyper, data, items, users);
}
