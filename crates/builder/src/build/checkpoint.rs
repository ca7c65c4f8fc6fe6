//! What a killed build goes on from: the graph as far as it was linked.
//!
//! A section file that appears whole or not at all. It belongs to one input and one setting; one of
//! another is passed over, a damaged one too: to begin again is always right.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use refrain_bundle::{OpenMode, SectionFile, SectionWriter};
use refrain_index::{BuildParams, Checkpoints, Saved, Saving};

use super::Input;
use crate::evaluation::hash;

/// The files of a build's checkpoints.
pub const FILES: [&str; 2] = ["graph.rfs", "graph.tmp"];

/// The checkpoint of one build.
pub(super) struct Checkpoint<'a> {
    dir: &'a Path,
    every: Duration,
    digest: u64,
    last: Mutex<Instant>,
}

impl<'a> Checkpoint<'a> {
    /// In a directory, which is made. `parent` names the bundle whose graph is started from.
    pub(super) fn new(
        dir: &'a Path,
        every: Duration,
        input: &Input<'_>,
        params: &BuildParams,
        parent: Option<&str>,
    ) -> io::Result<Self> {
        fs_err::create_dir_all(dir)?;
        Ok(Self {
            dir,
            every,
            digest: digest(input, params, parent),
            last: Mutex::new(Instant::now()),
        })
    }

    fn path(&self) -> PathBuf {
        self.dir.join(FILES[0])
    }
}

impl Checkpoints for Checkpoint<'_> {
    fn load(&self) -> Option<Saved> {
        let file = SectionFile::open(&self.path(), OpenMode::Map).ok()?;
        file.verify().ok()?;
        let column = |name: &str| Some(file.column::<u32>(name).ok()?.as_slice().to_vec());
        let head = file.column::<u64>("head").ok()?;
        let &[digest, linked] = head.as_slice() else {
            return None;
        };
        (digest == self.digest).then_some(())?;
        Some(Saved {
            linked,
            links: column("links")?,
            nav_links: column("nav_links")?,
        })
    }

    fn due(&self) -> bool {
        let last = self
            .last
            .lock()
            .map_or_else(|at| *at.into_inner(), |at| *at);
        last.elapsed() >= self.every
    }

    fn save(&self, state: Saving<'_>) -> io::Result<()> {
        let staging = self.dir.join(FILES[1]);
        SectionWriter::write(&staging, |file| {
            file.add_array("head", &[self.digest, state.linked])?;
            file.add_array("links", state.links)?;
            file.add_array("nav_links", state.nav_links)
        })
        .map_err(io::Error::other)?;
        fs_err::File::open(&staging)?.sync_all()?;
        fs_err::rename(&staging, self.path())?;
        fs_err::File::open(self.dir)?.sync_all()?;
        // Counted from the end: a slow disk does not take all of the time.
        if let Ok(mut last) = self.last.lock() {
            *last = Instant::now();
        }
        Ok(())
    }
}

/// Of everything that the graph depends on.
fn digest(input: &Input<'_>, params: &BuildParams, parent: Option<&str>) -> u64 {
    let BuildParams {
        metric,
        m,
        ef_construction,
        seed,
        threads: _,
    } = params;
    let text = format!(
        "{metric} {m} {ef_construction} {seed} {} {parent:?}",
        input.dim
    );
    let sum = text
        .bytes()
        .fold(1, |sum, byte| hash(sum, u32::from(byte), 1));
    let values = input.vectors.iter();
    values.fold(sum, |sum, value| hash(sum, value.to_bits(), 2))
}
