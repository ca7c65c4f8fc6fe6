//! What people write: variants, expressions, experiments, and the journal that the server keeps.

#![no_main]

use libfuzzer_sys::fuzz_target;
use refrain_experiments::{Config, Journal};
use refrain_ranking::{Expression, Variants};

fuzz_target!(|input: &[u8]| {
    let Ok(text) = str::from_utf8(input) else {
        return;
    };
    let _ = Variants::from_toml(text);
    let _ = Config::from_toml(text);
    let _ = Journal::parse(text);
    if let Ok(expression) = Expression::parse(text) {
        // Bounded: whatever the features, no panic.
        for value in [0.0, -1.0, f32::MAX, f32::NAN] {
            let _ = expression.eval(&|_| value);
        }
    }
});
