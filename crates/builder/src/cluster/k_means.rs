//! k-means, and how many clusters there are.

use rayon::prelude::*;

use crate::generate::rng::Rng;

/// Rows a thread takes at a time. Sums are made block by block and added in order, so the result does not
/// depend on the number of threads.
const BLOCK: usize = 1_024;
/// Passes over the rows, at most.
const PASSES: usize = 100;
/// A pass that lowers the sum of squares by less than this share is the last.
const LEAST_PROGRESS: f64 = 1e-4;
/// Rows that the number of clusters is chosen on, at most.
const SAMPLE: usize = 1_200;
/// Clouds without structure that they are compared with.
const CLOUDS: usize = 2;

/// Rows in `k` clusters.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Clusters {
    /// `k * width` values, row-major.
    pub(super) centres: Vec<f32>,
    /// The cluster of each row.
    pub(super) of: Vec<u32>,
    /// Sum of squared distances to the own centre.
    pub(super) squares: f64,
}

/// The best of `restarts` runs of Lloyd's algorithm, each from centres seeded by k-means++ (Arthur and
/// Vassilvitskii, "k-means++: the advantages of careful seeding", SODA 2007). `rows` is row-major
/// `n * width`. A cluster that loses its last row moves to the row farthest from its centre. Fewer than `k`
/// clusters where there are fewer different rows.
///
/// `O(restarts passes n k width)`, memory `O(n)`. The same at any number of threads.
pub(super) fn k_means(
    rows: &[f32],
    width: usize,
    k: usize,
    restarts: usize,
    rng: &mut Rng,
) -> Clusters {
    let mut best: Option<Clusters> = None;
    for _ in 0..restarts.max(1) {
        let centres = seeded(rows, width, k, rng);
        let found = lloyd(rows, width, centres);
        if best
            .as_ref()
            .is_none_or(|best| found.squares < best.squares)
        {
            best = Some(found);
        }
    }
    best.unwrap_or_else(|| Clusters {
        centres: Vec::new(),
        of: Vec::new(),
        squares: 0.0,
    })
}

fn square(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum()
}

/// k-means++: the first centre by lot, each next one with probability in proportion to the squared distance
/// from the centres so far.
fn seeded(rows: &[f32], width: usize, k: usize, rng: &mut Rng) -> Vec<f32> {
    let n = rows.len() / width;
    let row = |at: usize| &rows[at * width..][..width];
    let first = rng.below(u32::try_from(n).unwrap_or(u32::MAX)) as usize;
    let mut centres = row(first).to_vec();
    let mut nearest = vec![f32::INFINITY; n];
    for _ in 1..k {
        let last = &centres[centres.len() - width..];
        nearest
            .par_iter_mut()
            .zip(rows.par_chunks_exact(width))
            .with_min_len(BLOCK)
            .for_each(|(nearest, row)| *nearest = nearest.min(square(row, last)));
        let total: f64 = nearest.iter().map(|&square| f64::from(square)).sum();
        if total <= 0.0 {
            break;
        }
        let mut left = rng.unit() * total;
        let far = |at: &usize| nearest[*at] > 0.0;
        let drawn = (0..n).filter(far).find(|&at| {
            left -= f64::from(nearest[at]);
            left < 0.0
        });
        // Rounding may leave a rest: then it is the last that can be drawn.
        let drawn = drawn.or_else(|| (0..n).rev().find(far)).unwrap_or(first);
        centres.extend_from_slice(row(drawn));
    }
    centres
}

/// Index of the nearest centre, the first of equally near ones, and the squared distance.
fn nearest(row: &[f32], centres: &[f32]) -> (u32, f32) {
    let mut best = (0, f32::INFINITY);
    for (at, centre) in (0u32..).zip(centres.chunks_exact(row.len())) {
        let distance = square(row, centre);
        if distance < best.1 {
            best = (at, distance);
        }
    }
    best
}

/// The cluster of each row and the squared distance to its centre.
pub(super) fn assign(rows: &[f32], width: usize, centres: &[f32]) -> (Vec<u32>, Vec<f32>) {
    rows.par_chunks_exact(width)
        .with_min_len(BLOCK)
        .map(|row| nearest(row, centres))
        .unzip()
}

fn lloyd(rows: &[f32], width: usize, mut centres: Vec<f32>) -> Clusters {
    let mut before = f64::INFINITY;
    let mut pass = 0;
    loop {
        let (of, mut distances) = assign(rows, width, &centres);
        let squares: f64 = distances.iter().map(|&square| f64::from(square)).sum();
        pass += 1;
        if squares >= before * (1.0 - LEAST_PROGRESS) || pass == PASSES {
            return Clusters {
                centres,
                of,
                squares,
            };
        }
        before = squares;
        move_centres(rows, width, &of, &mut distances, &mut centres);
    }
}

/// Moves every centre to the mean of its rows.
#[expect(
    clippy::cast_possible_truncation,
    reason = "rounding to f32 is the point"
)]
fn move_centres(
    rows: &[f32],
    width: usize,
    of: &[u32],
    distances: &mut [f32],
    centres: &mut [f32],
) {
    let k = centres.len() / width;
    let parts: Vec<(Vec<f64>, Vec<u64>)> = rows
        .par_chunks(BLOCK * width)
        .zip(of.par_chunks(BLOCK))
        .map(|(rows, of)| {
            let (mut sums, mut counts) = (vec![0.0; k * width], vec![0u64; k]);
            for (row, &of) in rows.chunks_exact(width).zip(of) {
                counts[of as usize] += 1;
                for (sum, &x) in sums[of as usize * width..].iter_mut().zip(row) {
                    *sum += f64::from(x);
                }
            }
            (sums, counts)
        })
        .collect();
    let (mut sums, mut counts) = (vec![0.0; k * width], vec![0u64; k]);
    for (part, counted) in &parts {
        sums.iter_mut().zip(part).for_each(|(sum, x)| *sum += x);
        counts
            .iter_mut()
            .zip(counted)
            .for_each(|(sum, x)| *sum += x);
    }
    for (at, centre) in centres.chunks_exact_mut(width).enumerate() {
        if counts[at] > 0 {
            for (centre, sum) in centre.iter_mut().zip(&sums[at * width..]) {
                *centre = (sum / counts[at] as f64) as f32;
            }
            continue;
        }
        let farthest = (0..distances.len())
            .max_by(|&a, &b| distances[a].total_cmp(&distances[b]).then(b.cmp(&a)));
        if let Some(farthest) = farthest {
            centre.copy_from_slice(&rows[farthest * width..][..width]);
            distances[farthest] = 0.0;
        }
    }
}

/// How well `k` clusters stand apart.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Candidate {
    /// Clusters.
    pub k: usize,
    /// Mean silhouette of a sample in so many clusters, -1 to 1.
    pub silhouette: f64,
    /// The same of a cloud without clusters.
    pub silhouette_of_cloud: f64,
}

impl Candidate {
    /// How much better the rows fall apart than a cloud does.
    #[must_use]
    pub fn gain(&self) -> f64 {
        self.silhouette - self.silhouette_of_cloud
    }
}

/// How a sample of `rows` (row-major `n * width`) falls into 2 to `most` clusters, beside what a cloud
/// without clusters does.
///
/// The figure is the mean silhouette (Rousseeuw, "Silhouettes: a graphical aid", 1987). Any cloud has a
/// positive one, the more so in few dimensions, so it is judged as the gap statistic is (Tibshirani, Walther
/// and Hastie 2001), against the same procedure on reference data: here near-normal points with the rows'
/// variance along each of their principal axes. `O(sample² (width + most))`.
pub(super) fn candidates(
    rows: &[f32],
    width: usize,
    variances: &[f64],
    most: usize,
    restarts: usize,
    rng: &mut Rng,
) -> Vec<Candidate> {
    let sample = sample(rows, width, rng);
    let n = sample.len() / width;
    let clouds: Vec<Vec<f32>> = (0..CLOUDS).map(|_| cloud(n, variances, rng)).collect();
    let distances = Distances::new(&sample, width);
    let of_clouds: Vec<Distances> = clouds
        .iter()
        .map(|cloud| Distances::new(cloud, width))
        .collect();
    (2..=most)
        .map(|k| {
            let mut silhouette = |rows: &[f32], distances: &Distances| {
                let found = k_means(rows, width, k, restarts, rng);
                distances.silhouette(&found.of, k)
            };
            let own = silhouette(&sample, &distances);
            let theirs: f64 = clouds
                .iter()
                .zip(&of_clouds)
                .map(|(cloud, distances)| silhouette(cloud, distances))
                .sum();
            Candidate {
                k,
                silhouette: own,
                silhouette_of_cloud: theirs / CLOUDS as f64,
            }
        })
        .collect()
}

/// At most [`SAMPLE`] rows: one by lot of each of as many equal stretches.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a number of rows"
)]
fn sample(rows: &[f32], width: usize, rng: &mut Rng) -> Vec<f32> {
    let n = rows.len() / width;
    if n <= SAMPLE {
        return rows.to_vec();
    }
    let stretch = n as f64 / SAMPLE as f64;
    (0..SAMPLE)
        .flat_map(|at| {
            let row = ((at as f64 + rng.unit()) * stretch) as usize;
            &rows[row.min(n - 1) * width..][..width]
        })
        .copied()
        .collect()
}

/// `n` points, each value a sum of twelve uniforms about 0 with the stated variance: near enough to a
/// normal one, without a logarithm or a cosine whose last bit differs between platforms.
#[expect(
    clippy::cast_possible_truncation,
    reason = "rounding to f32 is the point"
)]
fn cloud(n: usize, variances: &[f64], rng: &mut Rng) -> Vec<f32> {
    (0..n)
        .flat_map(|_| variances)
        .map(|variance| {
            let sum: f64 = (0..12).map(|_| rng.unit()).sum();
            ((sum - 6.0) * variance.sqrt()) as f32
        })
        .collect()
}

/// All distances within a sample.
struct Distances {
    n: usize,
    values: Vec<f32>,
}

impl Distances {
    fn new(rows: &[f32], width: usize) -> Self {
        let n = rows.len() / width;
        let mut values = vec![0.0; n * n];
        if n > 0 {
            values
                .par_chunks_mut(n)
                .zip(rows.par_chunks_exact(width))
                .for_each(|(out, row)| {
                    for (out, other) in out.iter_mut().zip(rows.chunks_exact(width)) {
                        *out = square(row, other).sqrt();
                    }
                });
        }
        Self { n, values }
    }

    /// Mean over the rows of `(b - a) / max(a, b)`, `a` the mean distance to the others of the own
    /// cluster, `b` the least mean distance to another cluster; 0 for a row alone in its cluster.
    fn silhouette(&self, of: &[u32], k: usize) -> f64 {
        let mut counts = vec![0u32; k];
        of.iter().for_each(|&of| counts[of as usize] += 1);
        let widths: Vec<f64> = self
            .values
            .par_chunks(self.n.max(1))
            .zip(of)
            .map(|(distances, &own)| {
                let mut sums = vec![0.0f64; k];
                for (&distance, &of) in distances.iter().zip(of) {
                    sums[of as usize] += f64::from(distance);
                }
                let own = own as usize;
                if counts[own] < 2 {
                    return 0.0;
                }
                let within = sums[own] / f64::from(counts[own] - 1);
                let beside = (0..k)
                    .filter(|&at| at != own && counts[at] > 0)
                    .map(|at| sums[at] / f64::from(counts[at]))
                    .fold(f64::INFINITY, f64::min);
                let larger = within.max(beside);
                match larger.is_finite() && larger > 0.0 {
                    true => (beside - within) / larger,
                    false => 0.0,
                }
            })
            .collect();
        widths.iter().sum::<f64>() / self.n.max(1) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_silhouette_is_that_of_its_definition() {
        // Points 0, 1 | 10, 12 on a line.
        let distances = Distances::new(&[0.0, 1.0, 10.0, 12.0], 1);
        let expected = [10.0 / 11.0, 9.0 / 10.0, 7.5 / 9.5, 9.5 / 11.5];
        let mean = expected.iter().sum::<f64>() / 4.0;
        let got = distances.silhouette(&[0, 0, 1, 1], 2);
        assert!((got - mean).abs() < 1e-6, "{got} is not {mean}");
        // A row alone counts as 0, an empty cluster not at all.
        let got = distances.silhouette(&[0, 0, 0, 2], 4);
        assert!((-1.0..1.0).contains(&got));
        assert_eq!(Distances::new(&[], 1).silhouette(&[], 2), 0.0);
    }

    #[test]
    fn finds_the_optimum_of_a_small_problem() {
        let rows = [0.0, 0.1, 0.2, 5.0, 5.1, 9.0f32];
        let found = k_means(&rows, 1, 3, 8, &mut Rng::new(1, 0));
        assert_eq!(found.of[0], found.of[2]);
        assert_eq!(found.of[3], found.of[4]);
        // 2 * 0.1² + 2 * 0.05².
        assert!((found.squares - 0.025).abs() < 1e-5, "{}", found.squares);
        // Two different rows make two clusters, however many are asked for.
        let few = k_means(&[1.0, 1.0, 2.0], 1, 5, 2, &mut Rng::new(1, 0));
        assert_eq!((few.centres.len(), few.squares), (2, 0.0));
    }

    #[test]
    fn a_centre_without_rows_moves_to_the_farthest_row() {
        let rows = [0.0, 1.0, 10.0f32];
        let mut centres = vec![0.5, 100.0];
        let (of, mut distances) = (vec![0, 0, 0], vec![0.25, 0.25, 90.25]);
        move_centres(&rows, 1, &of, &mut distances, &mut centres);
        assert_eq!(centres[1], 10.0);
    }

    #[test]
    fn a_cloud_gains_little_and_clusters_gain_much() {
        let mut rng = Rng::new(5, 0);
        let plain = cloud(800, &[1.0, 0.5, 0.2], &mut rng);
        for one in candidates(&plain, 3, &[1.0, 0.5, 0.2], 5, 3, &mut rng) {
            assert!(one.gain().abs() < 0.05, "{one:?}");
        }
        let mut apart = plain;
        for (at, row) in apart.chunks_exact_mut(3).enumerate() {
            row[0] += [-8.0, 0.0, 8.0][at % 3];
        }
        let found = candidates(&apart, 3, &[43.0, 0.5, 0.2], 5, 3, &mut rng);
        let best = found
            .iter()
            .max_by(|a, b| a.gain().total_cmp(&b.gain()))
            .unwrap();
        assert!(best.k == 3 && best.gain() > 0.15, "{found:?}");
    }
}
