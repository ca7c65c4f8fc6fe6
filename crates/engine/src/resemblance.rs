//! How much items resemble each other: cosines of their vectors, gathered once a list.

use refrain_kernels::{Kernels, Metric};
use refrain_ranking::Resemblance;

use crate::version::Version;

/// Memory for the vectors of the items that are spread, normalised and side by side.
#[derive(Debug, Default)]
pub(crate) struct Gathered {
    rows: Vec<f32>,
}

/// Cosines between items of one version.
pub(crate) struct Cosines<'a> {
    pub(crate) version: &'a Version,
    pub(crate) memory: &'a mut Gathered,
}

impl Resemblance for Cosines<'_> {
    fn prepare(&mut self, ordinals: &mut dyn Iterator<Item = u32>) {
        let (dim, kernels) = (self.version.index().dim(), Kernels::active());
        let rows = &mut self.memory.rows;
        rows.clear();
        for ordinal in ordinals {
            let start = rows.len();
            match self.version.vector(ordinal) {
                Some(vector) => rows.extend_from_slice(&vector),
                None => rows.resize(start + dim, 0.0),
            }
            if let Some(row) = rows.get_mut(start..) {
                let norm = kernels.dot(row, row).sqrt();
                // The zero vector resembles nothing.
                let scale = if norm > 0.0 { norm.recip() } else { 0.0 };
                for value in row {
                    *value *= scale;
                }
            }
        }
    }

    fn cosines(&mut self, of: usize, out: &mut [f32]) {
        let dim = self.version.index().dim();
        let rows = &self.memory.rows;
        match rows.get(of * dim..(of + 1) * dim) {
            Some(row) if rows.len() == out.len() * dim => {
                Kernels::active().score_rows(Metric::InnerProduct, row, rows, dim, out);
            }
            _ => out.fill(0.0),
        }
    }
}
