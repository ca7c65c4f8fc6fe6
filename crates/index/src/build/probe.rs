//! A walk over a graph under construction.

use refrain_kernels::{
    Kernels,
    codes::{BLOCK, Simd, Task},
};

use super::{Coded, Draft};
use crate::{
    codes::CodeQuery,
    scratch::Scratch,
    walk::{self, Spent},
};

/// Looks for what is best for a query on the base layer; it ends in the pool of the scratch.
pub(super) struct Probe<'a> {
    pub(super) draft: &'a Draft,
    pub(super) coded: &'a Coded,
    pub(super) query: &'a CodeQuery,
    /// Where it begins: at most a block of them.
    pub(super) seeds: &'a [u32],
    /// Width of the beam.
    pub(super) ef: usize,
    pub(super) scratch: &'a mut Scratch,
}

impl Probe<'_> {
    pub(super) fn walk(self) {
        Kernels::active().run(self);
    }
}

impl Task for Probe<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        match self.coded.walk_stride() / BLOCK {
            2 => self.go::<S, 2>(simd),
            4 => self.go::<S, 4>(simd),
            _ => self.go::<S, 0>(simd),
        }
    }
}

impl Probe<'_> {
    #[inline(always)]
    fn go<S: Simd, const B: usize>(self, simd: S) {
        let scorer = self.coded.space().walker::<B>(self.query);
        let base = self.draft.graph().base();
        let Scratch {
            pool,
            visited,
            block,
            ..
        } = self.scratch;
        pool.reset(self.ef);
        visited.reset(self.draft.n);
        let mut spent = Spent::default();
        let beam = walk::Beam {
            layer: &base,
            scorer: &scorer,
            seeds: self.seeds,
            deadline: None,
            pool,
            marks: visited.marks(self.draft.n),
            block,
            spent: &mut spent,
        };
        beam.run(simd);
    }
}
