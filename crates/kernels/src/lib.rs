//! Distances, batch scoring and the small dense updates of ALS, in f32.
//!
//! Every SIMD intrinsic of the workspace lives here, and with it all `unsafe` of the numeric
//! crates. [`Kernels`] is a table of function pointers that is resolved once; the instruction
//! sets behind it ([`Level`]) are interchangeable in the strictest sense: **every level returns
//! the same bits**, so an index built or searched on one machine is the one built or searched on
//! any other.
//!
//! # The canonical order of summation
//! A sum over `dim` products is taken in 32 lanes: element `i` goes to lane `i mod 32` by a fused
//! multiply-add (correctly rounded, so each level can reproduce it), the last block is padded with
//! zeros, and the lanes are folded by halves: `l + (l + 16)`, then 8, 4, 2, 1. Thirty-two lanes
//! are two AVX-512 registers, four of AVX2, eight of NEON: enough independent chains to hide the
//! latency of the addition on all of them.
//!
//! [`oracle`] holds the naive f64 definitions that tests compare with; [`portable`] the same
//! measures through simsimd in full precision, for ground truth.
#![expect(
    unsafe_code,
    reason = "SIMD intrinsics and their pointer loads; every other numeric crate forbids unsafe"
)]

pub mod codes;
mod kernels;
mod level;
mod lines;
mod metric;
pub mod oracle;
pub mod portable;

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "aarch64")]
mod neon;
mod scalar;

pub use kernels::{Kernels, prefetch, prefetch_at};
pub use level::{Level, LevelError, ParseLevelError};
pub use lines::Lines;
pub use metric::{Metric, ParseMetricError};

/// Lanes of the canonical order of summation.
const LANES: usize = 32;

/// Whole rows are prefetched up to this many cache lines; beyond it the hardware's own stream
/// prefetcher has caught on.
const PREFETCH_LINES: usize = 16;

/// Rows scored ahead of which their memory is requested.
const PREFETCH_AHEAD: usize = 8;
