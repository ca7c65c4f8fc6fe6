//! Offline jobs: ingest, train, evaluate, build.
