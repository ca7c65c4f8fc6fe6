//! HNSW graph: deterministic parallel build, search, filters, exact search.
