//! The rows that are clustered, and their principal axes.

use rayon::prelude::*;
use refrain_als::{eigen, gram};

/// Rows that the axes of a scene are computed from, at most: evenly spaced ones of a larger scene.
const AXES_ROWS: usize = 16_384;
/// Axes kept, at most.
const MOST_AXES: usize = 32;
/// Share of the variance that the axes keep, unless that takes more than [`MOST_AXES`].
const VARIANCE: f64 = 0.8;
/// Rows projected by a thread at a time.
const BLOCK: usize = 1_024;

/// Whether two tracks are near when their vectors point alike, or when they lie near one another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Nearness {
    /// Vectors are brought to unit length: of factors, whose length grows with popularity.
    Direction,
    /// Vectors are taken as they are.
    Position,
}

/// `n * dim` values, each row scaled by a number of its own. Nothing is copied.
pub(super) struct Points<'a> {
    vectors: &'a [f32],
    dim: usize,
    /// What each row is multiplied by; 0 is a row that has no direction.
    scale: Vec<f64>,
}

impl<'a> Points<'a> {
    /// `vectors` is row-major `n * dim`.
    pub(super) fn new(vectors: &'a [f32], dim: usize, by: Nearness) -> Self {
        let scale = vectors
            .par_chunks_exact(dim)
            .map(|row| {
                let square: f64 = row.iter().map(|&x| f64::from(x) * f64::from(x)).sum();
                match by {
                    _ if square == 0.0 => 0.0,
                    Nearness::Direction => square.sqrt().recip(),
                    Nearness::Position => 1.0,
                }
            })
            .collect();
        Self {
            vectors,
            dim,
            scale,
        }
    }

    /// The rows that can be placed: those that are not zero.
    pub(super) fn placeable(&self) -> Vec<u32> {
        (0u32..)
            .zip(&self.scale)
            .filter_map(|(row, &scale)| (scale > 0.0).then_some(row))
            .collect()
    }

    fn row(&self, row: u32) -> impl Iterator<Item = f64> + '_ {
        let row = row as usize;
        let scale = self.scale[row];
        self.vectors[row * self.dim..][..self.dim]
            .iter()
            .map(move |&x| f64::from(x) * scale)
    }
}

/// The principal axes of a scene's rows.
#[derive(Debug, Clone)]
pub(super) struct Axes {
    /// `dim` values: where the axes meet.
    pub(super) mean: Vec<f64>,
    /// `variances.len() * dim` values, row-major, unit rows, the widest first.
    pub(super) axes: Vec<f64>,
    /// The variance along each, in squared `unit`s: together they are 1.
    pub(super) variances: Vec<f64>,
    /// What distances along the axes are measured in, so that their squares stay in range.
    pub(super) unit: f64,
    /// Share of all variance that they keep, 0 to 1.
    pub(super) kept: f64,
}

/// Principal component analysis of some rows (Jolliffe, "Principal component analysis", 2002, §1): the
/// eigenvectors of their covariance that together keep [`VARIANCE`] of it. `O(rows dim² + dim³)` with at
/// most [`AXES_ROWS`] rows, beside a copy of them.
///
/// None when the rows are all alike: there is nothing to tell them apart by.
#[expect(
    clippy::cast_possible_truncation,
    reason = "rounding to f32 is the point"
)]
pub(super) fn principal_axes(points: &Points<'_>, rows: &[u32], threads: usize) -> Option<Axes> {
    let dim = points.dim;
    let step = rows.len().div_ceil(AXES_ROWS).max(1);
    let sample: Vec<u32> = rows.iter().copied().step_by(step).collect();
    let n = sample.len() as f64;
    let mut mean = vec![0.0; dim];
    for &row in &sample {
        for (sum, x) in mean.iter_mut().zip(points.row(row)) {
            *sum += x;
        }
    }
    mean.iter_mut().for_each(|sum| *sum /= n);
    // Brought to a common size first: the products of the very small and very large stay in range.
    let spread = sample
        .iter()
        .flat_map(|&row| points.row(row).zip(&mean).map(|(x, mean)| (x - mean).abs()))
        .fold(0.0, f64::max);
    let size = mean.iter().fold(0.0_f64, |max, x| max.max(x.abs()));
    // Beyond the rounding of single precision there must be something.
    if spread <= size * f64::from(f32::EPSILON) {
        return None;
    }
    let centred: Vec<f32> = sample
        .iter()
        .flat_map(|&row| {
            points
                .row(row)
                .zip(&mean)
                .map(|(x, mean)| ((x - mean) / spread) as f32)
        })
        .collect();
    let parts = eigen(&gram(&centred, dim, threads), dim)?;
    let mut order: Vec<usize> = (0..dim).collect();
    order.sort_by(|&a, &b| parts.values[b].total_cmp(&parts.values[a]).then(a.cmp(&b)));
    let total: f64 = parts.values.iter().map(|value| value.max(0.0)).sum();
    let (mut axes, mut variances, mut sum) = (Vec::new(), Vec::new(), 0.0);
    for at in order {
        let value = parts.values[at].max(0.0);
        if variances.len() == MOST_AXES || (sum >= VARIANCE * total && variances.len() >= 2) {
            break;
        }
        if value <= 1e-6 * total {
            break;
        }
        let axis = &parts.vectors[at * dim..][..dim];
        // An axis has no sign of its own: its largest value is made positive.
        let largest = axis
            .iter()
            .fold(0.0_f64, |max, &x| if x.abs() > max.abs() { x } else { max });
        axes.extend(axis.iter().map(|x| x * largest.signum()));
        variances.push(value);
        sum += value;
    }
    variances.iter_mut().for_each(|value| *value /= sum);
    (!variances.is_empty()).then(|| Axes {
        mean,
        axes,
        variances,
        unit: (sum / n).sqrt() * spread,
        kept: sum / total,
    })
}

/// The rows along the axes, in their unit: `rows.len() * axes.variances.len()` values, row-major.
#[expect(
    clippy::cast_possible_truncation,
    reason = "rounding to f32 is the point"
)]
pub(super) fn project(points: &Points<'_>, rows: &[u32], axes: &Axes) -> Vec<f32> {
    let (dim, width) = (points.dim, axes.variances.len());
    let mut projected = vec![0.0f32; rows.len() * width];
    projected
        .par_chunks_mut(BLOCK * width)
        .zip(rows.par_chunks(BLOCK))
        .for_each_init(
            || vec![0.0; dim],
            |centred: &mut Vec<f64>, (out, rows)| {
                for (out, &row) in out.chunks_exact_mut(width).zip(rows) {
                    for ((centred, x), mean) in
                        centred.iter_mut().zip(points.row(row)).zip(&axes.mean)
                    {
                        *centred = x - mean;
                    }
                    for (out, axis) in out.iter_mut().zip(axes.axes.chunks_exact(dim)) {
                        let along: f64 = axis.iter().zip(&*centred).map(|(a, x)| a * x).sum();
                        *out = (along / axes.unit) as f32;
                    }
                }
            },
        );
    projected
}
