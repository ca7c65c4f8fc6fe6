//! What several examples need.

use refrain_index::{BuiltIndex, Index};

/// A `.npy` of two dimensions, little-endian float32, version 1.
pub(crate) fn npy(path: &str) -> (Vec<f32>, usize) {
    let bytes = fs_err::read(path).expect("a file that can be read");
    let header = 10 + usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    let text = String::from_utf8_lossy(&bytes[10..header]);
    assert!(text.contains("'<f4'"), "{path}: not of float32");
    let shape = text
        .split_once("(")
        .and_then(|(_, rest)| rest.split_once(")"));
    let mut sizes = shape.expect("a shape").0.split(',').map(str::trim);
    let dim = sizes.nth(1).and_then(|dim| dim.parse().ok());
    let values = bytes[header..].as_chunks::<4>().0.iter();
    let values = values.map(|bytes| f32::from_le_bytes(*bytes)).collect();
    (values, dim.expect("two dimensions"))
}

/// What was built, opened.
pub(crate) fn opened(built: BuiltIndex) -> Index {
    let sections = built.into_sections();
    let section = |name: &str| {
        let found = sections.iter().find(|section| section.name == name);
        found.map(|section| section.bytes.clone())
    };
    Index::open(&section).expect("just built")
}
