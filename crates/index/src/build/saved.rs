//! What a killed build goes on from.

use std::io;

use super::{BuildError, Draft, insert::BATCH};

/// A graph under construction: enough to go on from, with the same vectors, parameters and parent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Saved {
    /// Items that are linked, in the order of linking.
    pub linked: u64,
    /// Links of the base layer, row after row.
    pub links: Vec<u32>,
    /// Links of the layers above.
    pub nav_links: Vec<u32>,
}

/// A [`Saved`] that is being written.
#[derive(Clone, Copy, Debug)]
pub struct Saving<'a> {
    /// Items that are linked.
    pub linked: u64,
    /// Links of the base layer.
    pub links: &'a [u32],
    /// Links of the layers above.
    pub nav_links: &'a [u32],
}

/// Keeps the state of a build, so that a killed one can go on. Who keeps it knows which build it is of:
/// what is loaded was saved by one of the same vectors, parameters and parent, and is whole.
pub trait Checkpoints: Sync {
    /// What was saved last, if anything was.
    fn load(&self) -> Option<Saved>;

    /// Whether it is time to save. Asked between batches, from one thread.
    fn due(&self) -> bool;

    /// Keeps a state in place of the one before.
    ///
    /// # Errors
    /// When it cannot be written; the build ends.
    fn save(&self, state: Saving<'_>) -> io::Result<()>;
}

/// Nothing is kept.
impl Checkpoints for () {
    fn load(&self) -> Option<Saved> {
        None
    }

    fn due(&self) -> bool {
        false
    }

    fn save(&self, _state: Saving<'_>) -> io::Result<()> {
        Ok(())
    }
}

impl Draft {
    /// Takes on what was saved of a graph of the same form; returns how many of `items` are linked in
    /// it. Passes over what cannot be of this build.
    pub(super) fn go_on(&mut self, checkpoints: &dyn Checkpoints, items: usize) -> usize {
        let Some(saved) = checkpoints.load() else {
            return 0;
        };
        let linked = usize::try_from(saved.linked).unwrap_or(usize::MAX);
        let whole = linked == items || linked.is_multiple_of(BATCH);
        if linked > items
            || !whole
            || saved.links.len() != self.links.len()
            || saved.nav_links.len() != self.nav_links.len()
        {
            return 0;
        }
        self.links.copy_from_slice(&saved.links);
        self.nav_links = saved.nav_links;
        linked
    }

    /// Has the state kept, where that is due.
    pub(super) fn keep(
        &self,
        checkpoints: &dyn Checkpoints,
        linked: usize,
    ) -> Result<(), BuildError> {
        if !checkpoints.due() {
            return Ok(());
        }
        let state = Saving {
            linked: linked as u64,
            links: &self.links,
            nav_links: &self.nav_links,
        };
        let saved = checkpoints.save(state);
        saved.map_err(|source| BuildError::Checkpoint { source })
    }
}
