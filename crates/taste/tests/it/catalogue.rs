//! A small catalogue: items `i0`, `i1`, … with artists and tags by rule.

use refrain_taste::Catalogue;

/// `items` items; item n has artist `a{n % 3}` (every fifth has none) and the tags of [`tags_of`].
pub(crate) struct Small {
    artists: Vec<String>,
    items: u32,
}

impl Small {
    pub(crate) fn new(items: u32) -> Self {
        Self {
            artists: (0..3).map(|artist| format!("a{artist}")).collect(),
            items,
        }
    }
}

/// Tags of an item: `t0` for even ones, `t1` for multiples of three, `t2` for both halves.
pub(crate) fn tags_of(ordinal: u32) -> Vec<&'static str> {
    let mut tags = vec!["t2"];
    if ordinal.is_multiple_of(2) {
        tags.push("t0");
    }
    if ordinal.is_multiple_of(3) {
        tags.push("t1");
    }
    if ordinal % 7 == 1 {
        tags.clear();
    }
    tags
}

impl Catalogue for Small {
    fn items(&self) -> u32 {
        self.items
    }

    fn ordinal(&self, item: &str) -> Option<u32> {
        let ordinal = item.strip_prefix('i')?.parse().ok()?;
        (ordinal < self.items).then_some(ordinal)
    }

    fn artist_of(&self, ordinal: u32) -> Option<&str> {
        let artist = &self.artists[(ordinal % 3) as usize];
        (!ordinal.is_multiple_of(5)).then_some(artist)
    }

    fn for_each_tag(&self, ordinal: u32, f: &mut dyn FnMut(&str)) {
        tags_of(ordinal).into_iter().for_each(f);
    }

    fn for_each_of_artist(&self, artist: &str, f: &mut dyn FnMut(u32)) {
        (0..self.items)
            .filter(|&item| self.artist_of(item) == Some(artist))
            .for_each(f);
    }

    fn for_each_with_tag(&self, tag: &str, f: &mut dyn FnMut(u32)) {
        (0..self.items)
            .filter(|&item| tags_of(item).contains(&tag))
            .for_each(f);
    }
}
