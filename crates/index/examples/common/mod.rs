//! What several examples need.

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
