//! What a version is on disk: sections, checksums, manifest, memory map; the store and its labels.
