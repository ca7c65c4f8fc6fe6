//! The gate's report, sealed in the manifest.

use std::path::Path;

use serde_json::Value;

use super::write::SealError;
use crate::durable;
use crate::manifest::{MANIFEST, Manifest};

/// Where the gate's report stands in [`Manifest::report`].
const GATE: &str = "gate";

/// Seals a gate's report into the manifest of the bundle at `dir`, in place of one that is there: the
/// manifest is replaced in one step, and its last line covers the report like everything else. The version
/// keeps its id, which is that of its files.
///
/// # Errors
/// [`SealError`] when the manifest cannot be read or replaced, as in a store, where versions never change.
pub fn seal_gate_report(dir: &Path, report: &Value) -> Result<Manifest, SealError> {
    let mut manifest = Manifest::read(dir)?;
    match &mut manifest.report {
        Value::Object(members) => {
            members.insert(GATE.to_owned(), report.clone());
        }
        other => *other = serde_json::json!({ GATE: report }),
    }
    let bytes = manifest.to_bytes().map_err(|source| SealError::Json {
        path: dir.to_owned(),
        source,
    })?;
    durable::replace_with(&dir.join(MANIFEST), &bytes)?;
    Ok(Manifest::read(dir)?)
}

impl Manifest {
    /// The gate's report, if a gate was passed or failed.
    pub fn gate_report(&self) -> Option<&Value> {
        self.report.get(GATE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::tests::example;

    #[test]
    fn a_report_is_sealed_and_replaced_and_the_version_stays() {
        let dir = tempfile::tempdir().unwrap();
        let manifest = Manifest {
            report: Value::Null,
            ..example()
        };
        let path = dir.path().join(MANIFEST);
        fs_err::write(&path, manifest.to_bytes().unwrap()).unwrap();
        for passed in [false, true] {
            let report = serde_json::json!({ "passed": passed });
            let sealed = seal_gate_report(dir.path(), &report).unwrap();
            assert_eq!(sealed.gate_report(), Some(&report));
            assert_eq!(sealed.version, manifest.version);
            assert_eq!(Manifest::read(dir.path()).unwrap(), sealed);
        }
        // Nobody turns a no into a yes with an editor.
        let text = fs_err::read_to_string(&path).unwrap();
        fs_err::write(&path, text.replace("\"passed\": true", "\"passed\": false")).unwrap();
        assert!(Manifest::read(dir.path()).is_err());
    }
}
