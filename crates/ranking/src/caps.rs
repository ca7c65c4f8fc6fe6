//! How many items of one artist, and of one scene, a list may hold.

use std::collections::VecDeque;

use rustc_hash::FxHashMap;

/// The caps of a list. Items without artist, or without scene, are not capped by it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Caps {
    /// At most so many items of one artist. `None`: no cap.
    pub artist: Option<u32>,
    /// At most so many items of one scene. `None`: no cap.
    pub scene: Option<u32>,
}

/// What caps count of an item.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Kin {
    pub(crate) artist: Option<u32>,
    pub(crate) scene: Option<u32>,
}

/// What a list has room for.
#[derive(Debug, Default)]
pub(crate) struct Room {
    caps: Caps,
    artists: FxHashMap<u32, u32>,
    scenes: FxHashMap<u32, u32>,
}

/// What became full.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Full {
    pub(crate) artist: Option<u32>,
    pub(crate) scene: Option<u32>,
}

impl Room {
    pub(crate) fn clear(&mut self, caps: Caps) {
        self.caps = caps;
        self.artists.clear();
        self.scenes.clear();
    }

    pub(crate) fn fits(&self, kin: Kin) -> bool {
        let below = |of: Option<u32>, cap: Option<u32>, counts: &FxHashMap<u32, u32>| {
            let (Some(of), Some(cap)) = (of, cap) else {
                return true;
            };
            counts.get(&of).is_none_or(|&count| count < cap)
        };
        below(kin.artist, self.caps.artist, &self.artists)
            && below(kin.scene, self.caps.scene, &self.scenes)
    }

    /// Takes an item that fits.
    pub(crate) fn take(&mut self, kin: Kin) -> Full {
        fn count(
            of: Option<u32>,
            cap: Option<u32>,
            counts: &mut FxHashMap<u32, u32>,
        ) -> Option<u32> {
            let (of, cap) = (of?, cap?);
            let count = counts.entry(of).or_insert(0);
            *count += 1;
            (*count >= cap).then_some(of)
        }
        Full {
            artist: count(kin.artist, self.caps.artist, &mut self.artists),
            scene: count(kin.scene, self.caps.scene, &mut self.scenes),
        }
    }
}

impl Full {
    pub(crate) fn holds(self, kin: Kin) -> bool {
        (self.artist.is_some() && self.artist == kin.artist)
            || (self.scene.is_some() && self.scene == kin.scene)
    }
}

impl Caps {
    /// Whether taking items one by one can end before as many are taken as the caps allow: an item
    /// may use up an artist that an item of an emptier scene needed.
    pub(crate) fn conflict(self) -> bool {
        self.artist.is_some() && self.scene.is_some()
    }
}

/// Adds items to a selection under two caps until there are `k` or no larger selection exists.
///
/// Artists and scenes are the two sides of a graph, items its edges, and a selection a matching with
/// capacities: along a shortest augmenting path some items leave and one more come in (Berge 1957;
/// Ford and Fulkerson 1956 for capacities). The paths try items in the order of `items`, so that
/// better ones come in first. O(k · n).
pub(crate) fn augment(items: &[Kin], caps: Caps, selected: &mut [bool], k: usize) {
    let graph = Graph::new(items, caps);
    let mut count = selected.iter().filter(|&&is| is).count();
    while count < k && graph.augment(selected) {
        count += 1;
    }
}

struct Graph {
    /// Artist side and scene side of every item, as nodes. An uncapped side is a node of its own.
    ends: Vec<(usize, usize)>,
    /// Items of a node, ascending.
    of_artist: Vec<Vec<usize>>,
    of_scene: Vec<Vec<usize>>,
    artist_room: Vec<u32>,
    scene_room: Vec<u32>,
}

impl Graph {
    fn new(items: &[Kin], caps: Caps) -> Self {
        let (artists, of_artist) = side(items.iter().map(|item| item.artist));
        let (scenes, of_scene) = side(items.iter().map(|item| item.scene));
        let (artist_cap, scene_cap) = (
            caps.artist.unwrap_or(u32::MAX),
            caps.scene.unwrap_or(u32::MAX),
        );
        Self {
            ends: artists.into_iter().zip(scenes).collect(),
            artist_room: vec![artist_cap; of_artist.len()],
            scene_room: vec![scene_cap; of_scene.len()],
            of_artist,
            of_scene,
        }
    }

    /// Adds one item to the selection, exchanging others; false when none can be added.
    fn augment(&self, selected: &mut [bool]) -> bool {
        let used = |nodes: &[Vec<usize>], node: usize, selected: &[bool]| {
            let items = nodes.get(node).map_or(&[][..], Vec::as_slice);
            items
                .iter()
                .filter(|&&item| selected.get(item) == Some(&true))
                .count()
        };
        // Item by which an artist or a scene was reached.
        let mut to_artist = vec![None; self.of_artist.len()];
        let mut to_scene = vec![None; self.of_scene.len()];
        let mut start = vec![false; self.of_artist.len()];
        let mut queue = VecDeque::new();
        for (artist, &room) in self.artist_room.iter().enumerate() {
            if used(&self.of_artist, artist, selected) < room as usize {
                start[artist] = true;
                queue.push_back(artist);
            }
        }
        while let Some(artist) = queue.pop_front() {
            for &item in &self.of_artist[artist] {
                let scene = self.ends[item].1;
                if selected[item] || to_scene[scene].is_some() {
                    continue;
                }
                to_scene[scene] = Some(item);
                if used(&self.of_scene, scene, selected) < self.scene_room[scene] as usize {
                    self.exchange(scene, &to_scene, &to_artist, &start, selected);
                    return true;
                }
                for &inside in &self.of_scene[scene] {
                    let other = self.ends[inside].0;
                    if selected[inside] && !start[other] && to_artist[other].is_none() {
                        to_artist[other] = Some(inside);
                        queue.push_back(other);
                    }
                }
            }
        }
        false
    }

    /// Walks the path back from its last scene.
    fn exchange(
        &self,
        last: usize,
        to_scene: &[Option<usize>],
        to_artist: &[Option<usize>],
        start: &[bool],
        selected: &mut [bool],
    ) {
        let mut scene = last;
        while let Some(item) = to_scene[scene] {
            selected[item] = true;
            let artist = self.ends[item].0;
            if start[artist] {
                return;
            }
            let Some(inside) = to_artist[artist] else {
                return;
            };
            selected[inside] = false;
            scene = self.ends[inside].1;
        }
    }
}

/// Numbers the nodes of one side; `None` is a node of its own for each item.
fn side(of: impl Iterator<Item = Option<u32>>) -> (Vec<usize>, Vec<Vec<usize>>) {
    let mut known: FxHashMap<u32, usize> = FxHashMap::default();
    let (mut ends, mut items): (Vec<usize>, Vec<Vec<usize>>) = (Vec::new(), Vec::new());
    for (item, of) in of.enumerate() {
        let node = match of {
            Some(of) => *known.entry(of).or_insert(items.len()),
            None => items.len(),
        };
        if node == items.len() {
            items.push(Vec::new());
        }
        if let Some(list) = items.get_mut(node) {
            list.push(item);
        }
        ends.push(node);
    }
    (ends, items)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn one_item_makes_way_for_two() {
        let kin = |artist, scene| Kin {
            artist: Some(artist),
            scene: Some(scene),
        };
        let items = [kin(1, 1), kin(1, 2), kin(2, 1)];
        let caps = Caps {
            artist: Some(1),
            scene: Some(1),
        };
        let mut selected = [true, false, false];
        augment(&items, caps, &mut selected, 3);
        assert_eq!(selected, [false, true, true]);
    }

    proptest! {
        /// No selection that keeps to the caps is larger, by trying all of them.
        #[test]
        fn no_larger_selection_exists(
            items in prop::collection::vec((prop::option::of(0_u32..3), prop::option::of(0_u32..3)), 0..11),
            artist in 1_u32..3,
            scene in 1_u32..3,
            k in 0_usize..12,
        ) {
            let items: Vec<Kin> =
                items.into_iter().map(|(artist, scene)| Kin { artist, scene }).collect();
            let caps = Caps { artist: Some(artist), scene: Some(scene) };
            let keeps = |selected: &dyn Fn(usize) -> bool| {
                let mut room = Room::default();
                room.clear(caps);
                items.iter().enumerate().filter(|&(i, _)| selected(i)).all(|(_, &kin)| {
                    room.fits(kin) && { room.take(kin); true }
                })
            };
            let largest = (0_usize..1 << items.len())
                .filter(|set| keeps(&|i| set >> i & 1 == 1))
                .map(|set| set.count_ones() as usize)
                .max()
                .unwrap_or(0);
            // Start from what a greedy pass takes.
            let (mut room, mut taken) = (Room::default(), 0);
            room.clear(caps);
            let mut selected: Vec<bool> = items
                .iter()
                .map(|&kin| {
                    let fits = taken < k && room.fits(kin);
                    if fits {
                        room.take(kin);
                        taken += 1;
                    }
                    fits
                })
                .collect();
            augment(&items, caps, &mut selected, k);
            prop_assert!(keeps(&|i| selected[i]));
            prop_assert_eq!(selected.iter().filter(|&&is| is).count(), largest.min(k));
        }
    }
}
