//! The store on a real S3-speaking server, which `tests/s3/run.py` of the repository starts, with a network
//! that fails and stalls in between. Without that server (`REFRAIN_TEST_S3` says where it is) these
//! tests say that they are skipped.

mod proxy;
mod s3;
