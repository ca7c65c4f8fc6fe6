//! What a killed build goes on from: the graph as far as it was linked.

use std::io;
use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use refrain_index::{BuildParams, Checkpoints, Saved, Saving};

use super::Input;
use crate::checkpoint::{self, Place};
use crate::evaluation::hash;

const GRAPH: &str = "graph.rfs";

/// Removes the checkpoint of a build that is done from `dir`, and `dir` when it is then empty.
pub fn discard(dir: &Path) {
    checkpoint::discard(dir, &[GRAPH]);
}

/// The checkpoint of one build.
pub(super) struct Checkpoint {
    place: Place,
    every: Duration,
    last: Mutex<Instant>,
}

impl Checkpoint {
    /// In a directory, which is made. `parent` names the bundle whose graph is started from.
    pub(super) fn new(
        dir: &Path,
        every: Duration,
        input: &Input<'_>,
        params: &BuildParams,
        parent: Option<&str>,
    ) -> io::Result<Self> {
        Ok(Self {
            place: Place::new(dir, GRAPH, digest(input, params, parent))?,
            every,
            last: Mutex::new(Instant::now()),
        })
    }
}

impl Checkpoints for Checkpoint {
    fn load(&self) -> Option<Saved> {
        let (file, linked) = self.place.load()?;
        let column = |name: &str| Some(file.column::<u32>(name).ok()?.as_slice().to_vec());
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
        self.place.save(state.linked, |file| {
            file.add_array("links", state.links)?;
            file.add_array("nav_links", state.nav_links)
        })?;
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
    let sum = checkpoint::digest(&format!(
        "{metric} {m} {ef_construction:?} {seed} {} {parent:?}",
        input.dim
    ));
    let values = input.vectors.iter();
    values.fold(sum, |sum, value| hash(sum, value.to_bits(), 2))
}
