//! Corrections of p-values for looking at many. For exploratory metrics and segments only: the roles of
//! [`super::decision`] have their own levels.

/// Each p-value times their number, at most 1.
#[must_use]
pub fn bonferroni(p: &[f64]) -> Vec<f64> {
    let m = super::moments::length(p.len());
    p.iter().map(|p| (p * m).min(1.0)).collect()
}

/// Holm (1979): family-wise error under any dependence; never weaker than [`bonferroni`].
#[must_use]
pub fn holm(p: &[f64]) -> Vec<f64> {
    let order = ascending(p);
    let mut adjusted = vec![0.0; p.len()];
    let mut largest: f64 = 0.0;
    for (rank, &i) in order.iter().enumerate() {
        largest = largest
            .max(p[i] * super::moments::length(p.len() - rank))
            .min(1.0);
        adjusted[i] = largest;
    }
    adjusted
}

/// Hommel (1988): family-wise error for independent or positively dependent p-values; the most
/// powerful of those offered. O(m²).
#[must_use]
pub fn hommel(p: &[f64]) -> Vec<f64> {
    let order = ascending(p);
    let sorted: Vec<f64> = order.iter().map(|&i| p[i]).collect();
    let m = sorted.len();
    let number = super::moments::length;
    let simes = |of: &[f64], scale: usize, from: usize| {
        of.iter()
            .zip(from..)
            .map(|(p, i)| number(scale) * p / number(i))
            .fold(f64::INFINITY, f64::min)
    };
    // Wright (1992): for every size j of an intersection, the smallest Simes bound it can have.
    let mut largest = vec![simes(&sorted, m, 1); m];
    for j in (2..m).rev() {
        let (low, high) = sorted.split_at(m - j + 1);
        let bound = simes(high, j, 2);
        let at = |p: f64| (number(j) * p).min(bound);
        for (value, &p) in largest.iter_mut().zip(low) {
            *value = value.max(at(p));
        }
        let last = at(low[low.len() - 1]);
        for value in &mut largest[low.len()..] {
            *value = value.max(last);
        }
    }
    let mut adjusted = vec![0.0; m];
    for (rank, &i) in order.iter().enumerate() {
        adjusted[i] = largest[rank].max(sorted[rank]).min(1.0);
    }
    adjusted
}

/// Benjamini and Hochberg (1995): false discovery rate, for independent or positively dependent
/// p-values.
#[must_use]
pub fn benjamini_hochberg(p: &[f64]) -> Vec<f64> {
    let order = ascending(p);
    let mut adjusted = vec![0.0; p.len()];
    let mut smallest: f64 = 1.0;
    for (rank, &i) in order.iter().enumerate().rev() {
        let m = super::moments::length(p.len());
        smallest = smallest.min(p[i] * m / super::moments::length(rank + 1));
        adjusted[i] = smallest;
    }
    adjusted
}

fn ascending(p: &[f64]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..p.len()).collect();
    order.sort_by(|&a, &b| p[a].total_cmp(&p[b]).then(a.cmp(&b)));
    order
}
