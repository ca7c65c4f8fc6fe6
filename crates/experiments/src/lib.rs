//! Layers, buckets and assignment: pure, small and fast.
