//! Manifests: any bytes, and the same with a seal that fits, so that what lies behind it is met as well.

#![no_main]

use libfuzzer_sys::fuzz_target;
use refrain_bundle::{Digest, Manifest};

fuzz_target!(|input: &[u8]| {
    let path = refrain_fuzz::file("manifest.json", input);
    let dir = path.parent().expect("a directory");
    let _ = Manifest::read(dir);
    if let Ok(text) = str::from_utf8(input) {
        let body = text.trim_end().trim_end_matches('}');
        let sealed = format!("{body},\n  \"seal\": \"{}\"\n}}\n", Digest::of(body.as_bytes()));
        refrain_fuzz::file("manifest.json", sealed.as_bytes());
        let _ = Manifest::read(dir);
    }
});
