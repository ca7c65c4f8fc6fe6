//! An index for the tests of this crate.

use crate::{BuildParams, Index, build};

/// Builds vectors of `dim` values and opens what was built.
pub(crate) fn index(vectors: &[f32], dim: usize, params: &BuildParams) -> Index {
    let sections = build(vectors, dim, params, &())
        .expect("valid")
        .into_sections();
    let get = |name: &str| {
        let found = sections.iter().find(|section| section.name == name);
        found.map(|section| section.bytes.clone())
    };
    Index::open(&get).expect("just built")
}
