//! Compiles `proto/` to Rust with a compiler written in Rust: there is no `protoc` to install.

use std::path::PathBuf;

use prost::Message as _;
use prost_types::FileDescriptorSet;
use prost_types::field_descriptor_proto::{Label, Type};

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

    let mut descriptors = protox::compile(PROTOS, ["proto"])?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    fs_err::write(out.join("refrain.v1.bin"), descriptors.encode_to_vec())?;
    let filters = encoded(&mut descriptors, ".refrain.v1.Filter");
    let config = filters
        .iter()
        .fold(tonic_prost_build::configure(), |config, path| {
            config.bytes(path)
        });
    config
        .extern_path(".refrain.v1.Filter", "crate::filter::Filter")
        .codec_path("crate::codec::Codec")
        .compile_fds(descriptors)?;
    Ok(())
}

/// Has every field of that message type generated as its bytes, which on the wire it is. They are a list, since a message
/// that comes in several parts is to be read as one of all. The paths of the fields.
fn encoded(descriptors: &mut FileDescriptorSet, message_type: &str) -> Vec<String> {
    let mut paths = Vec::new();
    for file in &mut descriptors.file {
        for message in &mut file.message_type {
            for field in &mut message.field {
                if field.type_name.as_deref() == Some(message_type) {
                    field.type_name = None;
                    field.set_type(Type::Bytes);
                    field.set_label(Label::Repeated);
                    let (package, message) = (file.package.as_deref(), message.name.as_deref());
                    let path =
                        [package, message, field.name.as_deref()].map(Option::unwrap_or_default);
                    paths.push(format!(".{}", path.join(".")));
                }
            }
        }
    }
    paths
}
