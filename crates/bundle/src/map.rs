//! The memory map: the only `unsafe` of this crate.
#![expect(
    unsafe_code,
    reason = "mapping a file is unsafe by nature; everything above sees `Bytes`"
)]

use std::io::{self, Read as _};
use std::path::Path;

use bytes::Bytes;
use memmap2::{MmapMut, MmapOptions};

use crate::section::OpenMode;

/// Maps the whole of `path` read-only, or copies it. The bytes live until the last clone or slice is
/// dropped.
///
/// An empty file cannot be mapped and gives an error of kind `InvalidInput`.
pub(crate) fn map(path: &Path, mode: OpenMode) -> io::Result<Bytes> {
    let file = fs_err::File::open(path)?;
    let mut options = MmapOptions::new();
    match mode {
        OpenMode::Map => {}
        OpenMode::Populate => {
            options.populate();
        }
        OpenMode::Copy => return copy(file),
    }
    // SAFETY: the bytes of a map must not change while `&[u8]` to them exist. Every file of a
    // bundle is written under a temporary name, renamed into place when complete and never opened
    // for writing again (`durable` has no other way to write); published files are read-only. A
    // replacement is a new inode, so a live map keeps its own. Someone who truncates or overwrites
    // a published file from outside breaks this rule, as with any mapped file: docs/format.md says so.
    let map = unsafe { options.map(file.file()) }.map_err(|error| {
        io::Error::new(
            error.kind(),
            format!("cannot map {}: {error}", path.display()),
        )
    })?;
    Ok(Bytes::from_owner(map))
}

fn copy(mut file: fs_err::File) -> io::Result<Bytes> {
    let len = usize::try_from(file.metadata()?.len()).map_err(io::Error::other)?;
    if len == 0 {
        // As mapping it would be.
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut map = MmapMut::map_anon(len)?;
    // A wish: where it cannot be granted, small pages do as well, slower.
    #[cfg(target_os = "linux")]
    let _granted = map.advise(memmap2::Advice::HugePage);
    file.read_exact(&mut map)?;
    Ok(Bytes::from_owner(map.make_read_only()?))
}
