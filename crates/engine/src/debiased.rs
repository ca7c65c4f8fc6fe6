//! What scores are multiplied by where a variant takes popularity out of them: made once for a version and a
//! power, and kept.

use std::sync::Arc;

use quick_cache::sync::Cache;
use refrain_index::Debias;
use refrain_kernels::Metric;
use refrain_ranking::Variant;

use crate::version::Version;

/// Powers that a version keeps weights of; each takes four bytes an item.
const KEPT: usize = 32;

/// The weights of a base, by the bits of the power.
#[derive(Debug)]
pub(crate) struct OfBase(Cache<u64, Arc<Debias>>);

impl Default for OfBase {
    fn default() -> Self {
        Self(Cache::new(KEPT))
    }
}

/// The weights of the rows of deltas, by the bits of the power.
#[derive(Debug)]
pub(crate) struct OfDelta(Cache<u64, Arc<[f32]>>);

impl Default for OfDelta {
    fn default() -> Self {
        Self(Cache::new(KEPT))
    }
}

/// The weights of a version for one power.
#[derive(Debug, Clone)]
pub(crate) struct Debiased {
    pub(crate) base: Arc<Debias>,
    /// Where there are deltas.
    pub(crate) rows: Option<Arc<[f32]>>,
}

impl Version {
    /// Makes, and keeps, what searches under a variant need: O(n · dim) once for each power of
    /// [`Variant::debias`]. A request that comes first would do it, and be late.
    pub fn prepare(&self, variant: &Variant) {
        drop(self.debiased(variant.debias));
    }

    /// `None` where nothing is taken out: `beta` is 0, or the version has no lengths in its scores.
    pub(crate) fn debiased(&self, beta: f64) -> Option<Debiased> {
        if beta == 0.0 {
            return None;
        }
        let bits = beta.to_bits();
        let (of_base, of_delta) = self.kept_weights();
        let base = of_base
            .0
            .get_or_insert_with(&bits, || Debias::new(self.index(), beta).map(Arc::new));
        let rows = self.folded().map(|delta| {
            let made = || Ok::<_, std::convert::Infallible>(delta.vectors.weights(beta).into());
            let Ok(rows) = of_delta.0.get_or_insert_with(&bits, made);
            rows
        });
        Some(Debiased {
            base: base.ok()?,
            rows,
        })
    }

    /// A score without its weight: the inner product. A score of 0 has lost it, and stays.
    pub(crate) fn undebiased(&self, ordinal: u32, score: f32, beta: f64) -> f32 {
        let weight = self.weight(ordinal, beta);
        if weight > 0.0 { score / weight } else { score }
    }

    /// What the score of an item is multiplied by.
    pub(crate) fn weight(&self, ordinal: u32, beta: f64) -> f32 {
        if beta == 0.0 || self.index().metric() != Metric::InnerProduct {
            return 1.0;
        }
        let vector = self.vector(ordinal);
        vector.map_or(1.0, |vector| Debias::weight(&vector, beta))
    }
}
