//! Small edits of a configuration that keep its comments and its order.

use std::io::Write as _;
use std::path::Path;

use anyhow::Context as _;

use crate::failure::Failure;

/// Sets `allocation_bp` of an experiment. The file is whole at any time.
pub(super) fn set_allocation(file: &Path, experiment: &str, bp: u32) -> anyhow::Result<()> {
    let wrong = || {
        Failure::new("the journal is written, but the configuration could not be brought in line")
            .next(format!(
                "set allocation_bp = {bp} in [experiment.{experiment}] by hand"
            ))
    };
    let text = fs_err::read_to_string(file).with_context(wrong)?;
    let mut document: toml_edit::DocumentMut = text.parse().with_context(wrong)?;
    let place = document
        .get_mut("experiment")
        .and_then(|all| all.get_mut(experiment))
        .and_then(|table| table.get_mut("allocation_bp"))
        .and_then(toml_edit::Item::as_value_mut);
    let Some(place) = place else {
        return Err(wrong().error());
    };
    let decor = place.decor().clone();
    *place = i64::from(bp).into();
    *place.decor_mut() = decor;
    let after = document.to_string();
    if after == text {
        return Ok(());
    }
    let folder = file
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    let mut whole = tempfile::NamedTempFile::new_in(folder).with_context(wrong)?;
    whole.write_all(after.as_bytes()).with_context(wrong)?;
    let permissions = fs_err::metadata(file).with_context(wrong)?.permissions();
    whole
        .as_file()
        .set_permissions(permissions)
        .with_context(wrong)?;
    whole.as_file().sync_all().with_context(wrong)?;
    whole.persist(file).with_context(wrong)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_edit_keeps_everything_else() {
        let text = "# why\n[experiment.'a.b'] # here\nallocation_bp  =  100 # tenth\nkind = 'ab'\n\n[experiment.c]\nallocation_bp = 7\n";
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("refrain.toml");
        fs_err::write(&file, text).expect("writable");
        set_allocation(&file, "a.b", 2000).expect("there");
        let after = fs_err::read_to_string(&file).expect("readable");
        assert_eq!(after, text.replace("100 #", "2000 #"));
        assert!(set_allocation(&file, "d", 1).is_err());
    }
}
