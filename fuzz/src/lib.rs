//! What the targets share: a file to hand bytes over in, and damage done to sound bytes.

use std::cell::OnceCell;
use std::path::{Path, PathBuf};

/// A directory of this thread's own, in memory where the system has a place there.
fn directory() -> PathBuf {
    thread_local! {
        static OWN: OnceCell<tempfile::TempDir> = const { OnceCell::new() };
    }
    let memory = Path::new("/dev/shm");
    let make = || match memory.is_dir() {
        true => tempfile::tempdir_in(memory),
        false => tempfile::tempdir(),
    };
    OWN.with(|own| own.get_or_init(|| make().expect("a directory")).path().to_owned())
}

/// The bytes as a file of that name.
pub fn file(name: &str, bytes: &[u8]) -> PathBuf {
    let path = directory().join(name);
    std::fs::write(&path, bytes).expect("a file");
    path
}

/// Does to `bytes` what `script` says: four bytes a change, of which three are a place and one what is
/// put there; a last, shorter rest cuts the bytes off.
pub fn damage(bytes: &mut Vec<u8>, script: &[u8]) {
    let (changes, rest) = script.as_chunks::<4>();
    for [low, middle, high, value] in changes {
        if !bytes.is_empty() {
            let place = u32::from_le_bytes([*low, *middle, *high, 0]) as usize % bytes.len();
            bytes[place] = *value;
        }
    }
    if let [low, rest @ ..] = rest {
        let high = rest.first().copied().unwrap_or(0);
        let cut = usize::from(u16::from_le_bytes([*low, high]));
        bytes.truncate(bytes.len().saturating_sub(cut));
    }
}
