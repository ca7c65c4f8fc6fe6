//! The wire contract of Refrain: generated messages, clients and server traits of
//! [`v1`], and the descriptor set that reflection serves.
//!
//! A Rust client needs nothing else:
//!
//! ```no_run
//! # async fn f() -> Result<(), Box<dyn std::error::Error>> {
//! use refrain::v1::recommendation_service_client::RecommendationServiceClient;
//! use refrain::v1::{RecommendRequest, recommend_request::Subject};
//!
//! let mut client = RecommendationServiceClient::connect("http://127.0.0.1:7700").await?;
//! let answer = client
//!     .recommend(RecommendRequest {
//!         subject: Some(Subject::UserId("listener-1".into())),
//!         page_size: Some(10),
//!         ..Default::default()
//!     })
//!     .await?
//!     .into_inner();
//! for result in answer.results {
//!     println!("{} {}", result.item_id, result.score);
//! }
//! # Ok(())
//! # }
//! ```
//!
//! Other languages generate from `proto/refrain/v1`, or ask a running server through reflection.

mod codec;
mod filter;

/// Package `refrain.v1`: see the comments in `proto/refrain/v1`.
///
/// A request carries its filter encoded, `filter: Filter { .. }.into()`: on the wire that is the same, and a server
/// that was sent the same ten thousand ids before knows them by their bytes.
#[allow(
    missing_docs,
    unreachable_pub,
    unused_qualifications,
    missing_debug_implementations,
    elided_lifetimes_in_paths,
    clippy::allow_attributes_without_reason,
    clippy::large_enum_variant,
    clippy::pedantic,
    reason = "generated from proto/ by build.rs"
)]
pub mod v1 {
    pub use crate::filter::{Filter, Names};

    tonic::include_proto!("refrain.v1");

    /// Encoded `FileDescriptorSet` of the package and its imports, with comments; for reflection and
    /// for the test that guards the contract.
    pub const FILE_DESCRIPTOR_SET: &[u8] =
        include_bytes!(concat!(env!("OUT_DIR"), "/refrain.v1.bin"));
}
