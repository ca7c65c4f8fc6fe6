//! Distances, norms and batch scoring; every SIMD intrinsic of the workspace lives here.
