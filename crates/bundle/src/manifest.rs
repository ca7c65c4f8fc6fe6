//! `manifest.json`: what a bundle is, what made it, and the length and digest of every file.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::digest::{Digest, FileDigest};
use crate::time;

/// The major format of bundles; a reader refuses any other. Fields may be added within a format.
pub const BUNDLE_FORMAT: u32 = 1;

/// The name of the manifest in a bundle's directory.
pub const MANIFEST: &str = "manifest.json";

/// What a bundle is. A file that it does not list does not exist.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// [`BUNDLE_FORMAT`].
    pub format: u32,
    /// The version's id: [`version_id`] of the time and the files.
    pub version: String,
    /// The version this one was made from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
    /// When it was built, to the second.
    #[serde(with = "time::text")]
    pub create_time: Timestamp,
    /// Items in the index.
    pub items: u32,
    /// Users the model was trained on; 0 when there is no model.
    pub users: u64,
    /// Values of a vector.
    pub dim: u32,
    /// `ip`, `cosine` or `l2`.
    pub metric: String,
    /// The latest listen in the training data.
    #[serde(
        default,
        with = "time::option",
        skip_serializing_if = "Option::is_none"
    )]
    pub data_watermark: Option<Timestamp>,
    /// The latest exclusion that the training honoured.
    #[serde(
        default,
        with = "time::option",
        skip_serializing_if = "Option::is_none"
    )]
    pub exclusion_watermark: Option<Timestamp>,
    /// The index: how it was built and how to search it.
    pub index: IndexInfo,
    /// The model that user vectors are folded in with, when there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<ModelInfo>,
    /// The command that built it.
    pub command: String,
    /// The seed it was built with.
    pub seed: u64,
    /// Every file of the bundle but the manifest.
    pub files: BTreeMap<String, FileDigest>,
    /// What was measured when it was trained, built and gated.
    #[serde(default)]
    pub report: serde_json::Value,
}

/// How the index was built, and how well it does.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct IndexInfo {
    /// Links of a node.
    pub m: u32,
    /// Pool size while building.
    pub ef_construction: u32,
    /// Pool size to search with unless a request says otherwise.
    pub ef_search: u32,
    /// Share of the exact top 10 found at `ef_search`, over held-out queries, 0 to 1; absent when
    /// there was nothing to ask.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recall_at_10: Option<f64>,
    /// Recall at the pool sizes that were tried.
    #[serde(default)]
    pub calibration: Vec<RecallPoint>,
}

/// Recall against exact search at one pool size.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct RecallPoint {
    /// Pool size.
    pub ef_search: u32,
    /// Mean share of the exact answer found, 0 to 1.
    pub recall: f64,
}

/// The model behind the vectors.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelInfo {
    /// Values of a factor row.
    pub rank: u32,
    /// Hyper-parameters of the training, as the trainer writes them.
    pub hyper: serde_json::Value,
}

/// A manifest could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ManifestError {
    /// The system refused: the message has the path.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// Not JSON, or not a manifest: the source has line and column.
    #[error("{}: {source}", file.display())]
    Json {
        /// The file.
        file: PathBuf,
        /// What is wrong, and where.
        source: serde_json::Error,
    },
    /// A major format that this build does not read.
    #[error("{}: bundle format {found} is not supported, only {BUNDLE_FORMAT}", file.display())]
    Format {
        /// The file.
        file: PathBuf,
        /// Its format.
        found: u64,
    },
    /// A field that breaks a rule.
    #[error("{}: {field}: {rule}", file.display())]
    Field {
        /// The file.
        file: PathBuf,
        /// The field's path.
        field: String,
        /// The rule.
        rule: &'static str,
    },
    /// The last line does not seal the bytes before it: the file was changed after it was written.
    #[error(
        "{}: the seal in its last line is not that of the bytes before it: expected {expected}, got {got:?}",
        file.display()
    )]
    Seal {
        /// The file.
        file: PathBuf,
        /// The digest of the bytes before the seal.
        expected: Digest,
        /// What stands there.
        got: String,
    },
    /// Longer than any manifest.
    #[error("{}: longer than {MAX_MANIFEST_BYTES} bytes", file.display())]
    TooLong {
        /// The file.
        file: PathBuf,
    },
}

impl Manifest {
    /// Reads and checks the manifest of the bundle at `dir`.
    ///
    /// # Errors
    /// See [`ManifestError`].
    pub fn read(dir: &Path) -> Result<Self, ManifestError> {
        let file = dir.join(MANIFEST);
        let mut bytes = Vec::new();
        fs_err::File::open(&file)?
            .take(MAX_MANIFEST_BYTES + 1)
            .read_to_end(&mut bytes)?;
        if bytes.len() as u64 > MAX_MANIFEST_BYTES {
            return Err(ManifestError::TooLong { file });
        }
        Self::parse(&file, &bytes)
    }

    /// The bytes of the file: pretty JSON whose last field seals all that stands before it.
    pub(crate) fn to_bytes(&self) -> serde_json::Result<Vec<u8>> {
        Ok(sealed(serde_json::to_string_pretty(self)?).into_bytes())
    }

    pub(crate) fn parse(path: &Path, bytes: &[u8]) -> Result<Self, ManifestError> {
        let file = || path.to_owned();
        let json = |source| ManifestError::Json {
            file: file(),
            source,
        };
        // The format first: another one may have any other fields.
        let FormatOnly { format } = serde_json::from_slice(bytes).map_err(json)?;
        if format != u64::from(BUNDLE_FORMAT) {
            return Err(ManifestError::Format {
                file: file(),
                found: format,
            });
        }
        let manifest: Self = serde_json::from_slice(bytes).map_err(json)?;
        // After the fields, whose errors say more; before their rules, which a changed byte may keep.
        let body = &bytes[..bytes.len().saturating_sub(seal(&Digest::of(b"")).len())];
        let (expected, got) = (seal(&Digest::of(body)), &bytes[body.len()..]);
        if got != expected.as_bytes() {
            return Err(ManifestError::Seal {
                file: file(),
                expected: Digest::of(body),
                got: String::from_utf8_lossy(got).into_owned(),
            });
        }
        manifest
            .check()
            .map_err(|(field, rule)| ManifestError::Field {
                file: file(),
                field,
                rule,
            })?;
        Ok(manifest)
    }

    /// The first field that breaks a rule, and the rule.
    fn check(&self) -> Result<(), (String, &'static str)> {
        let version = |field: &str, id: &str| {
            if is_version_id(id) {
                Ok(())
            } else {
                Err((field.to_owned(), VERSION_RULE))
            }
        };
        version("version", &self.version)?;
        self.parent
            .as_deref()
            .map_or(Ok(()), |parent| version("parent", parent))?;
        if !matches!(&*self.metric, "ip" | "cosine" | "l2") {
            return Err(("metric".into(), "a metric is ip, cosine or l2"));
        }
        if self.dim == 0 {
            return Err(("dim".into(), "vectors have at least one value"));
        }
        match self.files.keys().find(|name| !is_file_name(name)) {
            Some(name) => Err((format!("files.{name}"), FILE_RULE)),
            None => Ok(()),
        }
    }
}

/// `json`, an object, with one more field that holds the digest of everything before it.
fn sealed(json: String) -> String {
    let body = json.strip_suffix("\n}").unwrap_or(&json);
    format!("{body}{}", seal(&Digest::of(body.as_bytes())))
}

/// The end of a manifest: always of one length.
fn seal(digest: &Digest) -> String {
    format!(",\n  \"seal\": \"{digest}\"\n}}\n")
}

/// The id of a version: its time and the first eight digits of a digest over the names, lengths
/// and digests of its files. Sorts by time; the same files at the same time have the same id.
pub fn version_id(create_time: Timestamp, files: &BTreeMap<String, FileDigest>) -> String {
    let mut text = String::new();
    for (name, FileDigest { bytes, digest }) in files {
        text += &format!("{name}\t{bytes}\t{digest}\n");
    }
    let time = create_time.strftime("%Y%m%dT%H%M%SZ");
    format!("v{time}-{}", Digest::of(text.as_bytes()).short(8))
}

/// Whether `id` has the form `v20261122T194500Z-1a2b3c4d`. Ids become names of directories, so
/// nothing else is let through.
pub fn is_version_id(id: &str) -> bool {
    let pattern = b"vDDDDDDDDTDDDDDDZ-HHHHHHHH";
    id.len() == pattern.len()
        && id.bytes().zip(pattern).all(|(byte, class)| match class {
            b'D' => byte.is_ascii_digit(),
            b'H' => matches!(byte, b'0'..=b'9' | b'a'..=b'f'),
            literal => byte == *literal,
        })
}

/// Longest manifest that is read.
pub(crate) const MAX_MANIFEST_BYTES: u64 = 16 << 20;
const VERSION_RULE: &str = "a version id looks like v20261122T194500Z-1a2b3c4d";
const FILE_RULE: &str =
    "file names are 1 to 64 of a-z, 0-9, '_', '-', '.', starting with a letter, not the manifest's";

#[derive(Deserialize)]
struct FormatOnly {
    format: u64,
}

/// Names that cannot leave the directory.
pub(crate) fn is_file_name(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && name != MANIFEST
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name
            .bytes()
            .all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' | b'.'))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    pub(crate) fn example() -> Manifest {
        Manifest {
            format: BUNDLE_FORMAT,
            version: "v20261122T194500Z-1a2b3c4d".into(),
            parent: None,
            create_time: "2026-11-22T19:45:00Z".parse().unwrap(),
            items: 3,
            users: 0,
            dim: 2,
            metric: "ip".into(),
            data_watermark: Some("2026-11-21T00:00:00Z".parse().unwrap()),
            exclusion_watermark: None,
            index: IndexInfo {
                m: 16,
                ef_construction: 200,
                ef_search: 64,
                recall_at_10: Some(0.99),
                calibration: vec![RecallPoint {
                    ef_search: 64,
                    recall: 0.99,
                }],
            },
            model: None,
            command: "refrain build".into(),
            seed: 1,
            files: [("items.rfs".into(), FileDigest::of(b"x"))].into(),
            report: serde_json::json!({ "n": 1 }),
        }
    }

    /// An edited manifest with the seal that it would have, had it been written so.
    pub(crate) fn resealed(text: &str) -> String {
        let body = &text[..text.len() - seal(&Digest::of(b"")).len()];
        sealed(format!("{body}\n}}"))
    }

    #[test]
    fn json_and_back() {
        let manifest = example();
        let bytes = manifest.to_bytes().unwrap();
        assert_eq!(Manifest::parse(Path::new("m"), &bytes).unwrap(), manifest);
    }

    #[test]
    fn every_changed_bit_is_found() {
        let good = example().to_bytes().unwrap();
        for at in 0..good.len() {
            for bit in 0..8 {
                let mut bytes = good.clone();
                bytes[at] ^= 1 << bit;
                let parsed = Manifest::parse(Path::new("m"), &bytes);
                assert!(parsed.is_err(), "byte {at}, bit {bit}");
            }
            assert!(
                Manifest::parse(Path::new("m"), &good[..at]).is_err(),
                "cut to {at}"
            );
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        let says = |edit: &dyn Fn(&mut serde_json::Value), expect: &str| {
            let mut json = serde_json::to_value(example()).unwrap();
            edit(&mut json);
            let json = sealed(serde_json::to_string_pretty(&json).unwrap());
            let error = Manifest::parse(Path::new("m.json"), json.as_bytes());
            let error = error.unwrap_err().to_string();
            assert!(
                error.starts_with("m.json: ") && error.contains(expect),
                "{error}"
            );
        };
        says(
            &|m| m["format"] = 2.into(),
            "bundle format 2 is not supported",
        );
        says(
            &|m| m["version"] = "../../etc".into(),
            "version: a version id",
        );
        says(&|m| m["parent"] = "v1".into(), "parent: a version id");
        says(&|m| m["metric"] = "dot".into(), "metric: a metric is");
        says(&|m| m["dim"] = 0.into(), "dim: vectors");
        says(&|m| m["items"] = (-1).into(), "invalid value");
        says(&|m| m["create_time"] = "yesterday".into(), "yesterday");
        says(
            &|m| m["files"]["../x"] = m["files"]["items.rfs"].clone(),
            "files.../x: file names",
        );
        says(
            &|m| m["files"]["manifest.json"] = m["files"]["items.rfs"].clone(),
            "file names",
        );
        says(
            &|m| m["files"]["items.rfs"]["digest"] = "md5".into(),
            "a digest is",
        );
    }

    #[test]
    fn version_ids() {
        let files = example().files;
        let id = version_id("2026-11-22T19:45:00Z".parse().unwrap(), &files);
        assert!(
            id.starts_with("v20261122T194500Z-") && is_version_id(&id),
            "{id}"
        );
        for bad in [
            "",
            "v",
            "v20261122T194500Z-1A2B3C4D",
            "v20261122T194500Z-1a2b3c4d/",
            "stable",
        ] {
            assert!(!is_version_id(bad), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_manifest_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = Manifest::parse(Path::new("m"), &bytes);
        }
    }
}
