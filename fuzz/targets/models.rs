//! Files of models: refused, or they give a number for every row.

#![no_main]

use libfuzzer_sys::fuzz_target;
use refrain_models::OnnxModel;
use refrain_ranking::Model as _;

fuzz_target!(|bytes: &[u8]| {
    let width = 1 + bytes.first().map_or(0, |byte| usize::from(byte % 4));
    if let Ok(model) = OnnxModel::read(bytes, width) {
        let mut values = Vec::new();
        model.predict(&vec![0.5; 3 * width], &mut values);
        assert_eq!(values.len(), 3);
    }
});
