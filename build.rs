//! Compiles `proto/` to Rust with a compiler written in Rust: there is no `protoc` to install.

use std::path::PathBuf;

use prost::Message as _;

const PROTOS: [&str; 6] = [
    "refrain/v1/common.proto",
    "refrain/v1/recommendation.proto",
    "refrain/v1/taste_profile.proto",
    "refrain/v1/experiment.proto",
    "refrain/v1/feedback.proto",
    "refrain/v1/index.proto",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Without these lines any edit of any tracked file would rebuild every dependent.
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=proto");

    let descriptors = protox::compile(PROTOS, ["proto"])?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    fs_err::write(out.join("refrain.v1.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure()
        .extern_path(".refrain.v1.Filter", "crate::filter::Filter")
        .codec_path("crate::codec::Codec")
        .compile_fds(descriptors)?;
    Ok(())
}
