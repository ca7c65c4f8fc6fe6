//! Deltas: a sound one, damaged, and any bytes.

#![no_main]

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use refrain_bundle::{DeltaFile, Item, NewDelta, write_delta};

fn sound() -> &'static [u8] {
    static SOUND: OnceLock<Vec<u8>> = OnceLock::new();
    SOUND.get_or_init(|| {
        let items: Vec<Item<'_>> = ["a", "b", "c"]
            .map(|id| Item {
                id,
                ..Item::default()
            })
            .into();
        let path = refrain_fuzz::file("sound", &[]);
        std::fs::remove_file(&path).expect("was just made");
        let delta = NewDelta {
            version: "v20260101T000000Z-01234567",
            number: 1,
            parent: None,
            dim: 2,
            items: &items,
            vectors: &[0.5; 6],
            factors: None,
            tombstones: &["d"],
            command: "fuzz",
        };
        write_delta(&path, &delta).expect("a delta");
        std::fs::read(&path).expect("just written")
    })
}

fuzz_target!(|input: &[u8]| {
    let [whole, script @ ..] = input else {
        return;
    };
    let bytes = if whole % 4 == 0 {
        script.to_vec()
    } else {
        let mut bytes = sound().to_vec();
        refrain_fuzz::damage(&mut bytes, script);
        bytes
    };
    let Ok(delta) = DeltaFile::open(&refrain_fuzz::file("delta", &bytes)) else {
        return;
    };
    let _ = delta.verify();
    let info = delta.info();
    assert!(delta.vectors().len() <= bytes.len());
    assert!(delta.tombstones().count() <= bytes.len());
    for ordinal in 0..info.items.min(64) {
        let _ = delta.items().id(ordinal);
    }
});
