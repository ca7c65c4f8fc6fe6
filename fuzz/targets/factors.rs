//! Factors from elsewhere: `.npy`, `.fvecs` and Parquet.

#![no_main]

use libfuzzer_sys::fuzz_target;
use refrain_builder::import::{FactorFiles, read_factors};

fuzz_target!(|input: &[u8]| {
    let files = FactorFiles {
        factors: refrain_fuzz::file("factors", input),
        ids: None,
    };
    if let Ok(set) = read_factors(&files) {
        assert_eq!(set.values.len(), set.ids.len() * set.dim);
        assert!(set.values.iter().all(|value| value.is_finite()));
    }
});
