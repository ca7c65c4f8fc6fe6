//! From the subject of a request to a query vector.

use refrain_index::OrdinalSet;
use refrain_kernels::Metric;

use crate::request::{MissingSeeds, RequestError, Seed};
use crate::version::Version;

/// What seeds come to.
#[derive(Debug)]
pub(crate) struct SeedQuery {
    /// The items among them.
    pub(crate) ordinals: OrdinalSet,
    /// Ids that the version does not know.
    pub(crate) unresolved: Vec<String>,
    /// Whether any seed is known.
    pub(crate) any: bool,
}

/// Puts the weighted mean of the positive seeds less that of the negative ones into `query`. Seeds
/// are added up in the order given, in double precision.
pub(crate) fn from_seeds(
    version: &Version,
    positive: &[Seed<'_>],
    negative: &[Seed<'_>],
    missing: MissingSeeds,
    query: &mut Vec<f32>,
) -> Result<SeedQuery, RequestError> {
    let mut seeds = SeedQuery {
        ordinals: OrdinalSet::new(),
        unresolved: Vec::new(),
        any: false,
    };
    let mut mean = |side: &str, given: &[Seed<'_>]| {
        let mut mean = Mean::new(version.index().dim());
        for (i, seed) in given.iter().enumerate() {
            match *seed {
                Seed::Vector { values, weight } => mean.add(values, weight),
                Seed::Item { id, weight } => {
                    let ordinal = version.items().ordinal(id);
                    let vector = ordinal.and_then(|ordinal| version.vector(ordinal));
                    if let (Some(ordinal), Some(values)) = (ordinal, vector) {
                        seeds.ordinals.insert(ordinal);
                        mean.add(&values, weight);
                    } else if missing == MissingSeeds::Fail {
                        let path = format!("seeds.{side}[{i}].item_id");
                        return Err(RequestError::UnknownItem {
                            path,
                            id: id.to_owned(),
                        });
                    } else {
                        seeds.unresolved.push(id.to_owned());
                    }
                }
            }
        }
        Ok(mean)
    };
    let (near, far) = (mean("positive", positive)?, mean("negative", negative)?);
    seeds.any = near.weight > 0.0 || far.weight > 0.0;
    near.less(&far, query);
    Ok(seeds)
}

/// Whether there is anything to search with: under `ip` and `cosine` the zero vector is as similar to
/// every item as to any other.
pub(crate) fn searchable(metric: Metric, query: &[f32]) -> bool {
    metric == Metric::L2 || !is_zero(query)
}

pub(crate) fn is_zero(values: &[f32]) -> bool {
    values.iter().all(|&value| value == 0.0)
}

/// A weighted mean of vectors.
pub(crate) struct Mean {
    sums: Vec<f64>,
    weight: f64,
}

impl Mean {
    pub(crate) fn new(dim: usize) -> Self {
        Self {
            sums: vec![0.0; dim],
            weight: 0.0,
        }
    }

    pub(crate) fn add(&mut self, values: &[f32], weight: f32) {
        let weight = f64::from(weight);
        for (sum, &value) in self.sums.iter_mut().zip(values) {
            *sum += weight * f64::from(value);
        }
        self.weight += weight;
    }

    /// This mean less the other; the mean of nothing is zero.
    pub(crate) fn less(&self, other: &Self, out: &mut Vec<f32>) {
        let at = |mean: &Self, sum: f64| {
            if mean.weight > 0.0 {
                sum / mean.weight
            } else {
                0.0
            }
        };
        out.clear();
        out.extend(self.sums.iter().zip(&other.sums).map(|(&near, &far)| {
            // The difference of two f32 can exceed their range.
            let value = at(self, near) - at(other, far);
            #[expect(clippy::cast_possible_truncation, reason = "rounds to nearest")]
            let value = value.clamp(f64::from(f32::MIN), f64::from(f32::MAX)) as f32;
            value
        }));
    }
}
