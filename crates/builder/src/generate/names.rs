//! Invented names of scenes, artists, tracks and playlists.

use std::collections::HashSet;

use super::rng::Rng;

const SCENES: &[&str] = &[
    "night drive",
    "harbour folk",
    "glass techno",
    "desert blues",
    "paper pop",
    "river dub",
    "winter choir",
    "brass street",
    "tape punk",
    "orchard soul",
    "neon samba",
    "slow metal",
    "attic jazz",
    "signal trance",
    "field rap",
    "velvet disco",
    "island swing",
    "static rock",
    "lantern house",
    "mountain fado",
    "copper funk",
    "harvest country",
    "north wave",
    "garden indie",
    "iron ska",
    "salt reggae",
    "opal ambient",
    "tundra step",
    "chalk grunge",
    "meadow bossa",
    "cobalt garage",
    "amber gospel",
];

/// The scene of the playlist that is played at night.
pub(super) const SLEEP_SCENE: &str = "rain and white noise";

const ONSETS: &[&str] = &[
    "b", "br", "c", "d", "dr", "f", "g", "h", "j", "k", "l", "m", "n", "p", "r", "s", "sh", "st",
    "t", "tr", "v", "w", "y", "z",
];
const VOWELS: &[&str] = &["a", "e", "i", "o", "u", "ae", "ia", "ou", "ea"];
const CODAS: &[&str] = &["", "", "", "l", "n", "r", "s", "th", "m", "nd", "ck"];
const BANDS: &[&str] = &[
    "Engines", "Rivers", "Parade", "Club", "Society", "Lights", "Brothers", "Ensemble", "Machine",
    "Choir", "Letters", "Orchard", "Signals", "Unit",
];
const FIRST_WORDS: &[&str] = &[
    "Silver", "Late", "Hollow", "Burning", "Quiet", "Seven", "Broken", "Golden", "Northern",
    "Second", "Paper", "Endless", "Electric", "Little", "Distant", "Sunday", "Crooked", "Open",
    "Lost", "Blue", "Borrowed", "Sudden", "Gentle", "Wild",
];
const LAST_WORDS: &[&str] = &[
    "Morning", "Window", "River", "Summer", "Letter", "Station", "Dancer", "Garden", "Highway",
    "Shadow", "Ocean", "Signal", "Mirror", "Kingdom", "Weather", "Heart", "Tide", "Road", "Fire",
    "Harbour", "Ghost", "Bells", "Ceiling", "Season", "Promise",
];
const SLEEP_WORDS: &[&str] = &[
    "Rain on a Tent",
    "Ocean at Night",
    "Fan Noise",
    "Brown Noise",
    "Distant Thunder",
    "Forest Stream",
    "Slow Waves",
    "Air Conditioner",
    "Train Cabin",
    "Womb Sounds",
];

/// The name of scene `index`; they do not run out.
pub(super) fn scene(index: usize) -> String {
    let name = SCENES[index % SCENES.len()];
    match index / SCENES.len() {
        0 => name.to_owned(),
        round => format!("{name} {}", round + 1),
    }
}

/// Names that were given, so that none is given twice.
#[derive(Debug, Default)]
pub(super) struct Names {
    given: HashSet<String>,
}

impl Names {
    /// An artist.
    pub(super) fn artist(&mut self, rng: &mut Rng) -> String {
        self.distinct(rng, |rng| match rng.below(4) {
            0 => format!("The {} {}", word(rng), rng.pick(BANDS)),
            1 => format!("{} {}", word(rng), word(rng)),
            2 => format!("{} {}", rng.pick(FIRST_WORDS), rng.pick(BANDS)),
            _ => word(rng),
        })
    }

    /// A track; titles may repeat over artists, as they do.
    pub(super) fn track(rng: &mut Rng, sleep: bool) -> String {
        if sleep {
            return format!("{} ({} Hz)", rng.pick(SLEEP_WORDS), rng.between(40, 480));
        }
        match rng.below(5) {
            0 => (*rng.pick(LAST_WORDS)).to_owned(),
            1 => format!("{} of {}", rng.pick(LAST_WORDS), word(rng)),
            2 => format!("{}'s {}", word(rng), rng.pick(LAST_WORDS)),
            _ => format!("{} {}", rng.pick(FIRST_WORDS), rng.pick(LAST_WORDS)),
        }
    }

    fn distinct(&mut self, rng: &mut Rng, name: impl Fn(&mut Rng) -> String) -> String {
        loop {
            let mut name = name(rng);
            // Short names run out; a number always ends the search.
            if self.given.contains(&name) && rng.chance(0.5) {
                name = format!("{name} {}", rng.between(2, 99));
            }
            if self.given.insert(name.clone()) {
                return name;
            }
        }
    }
}

fn word(rng: &mut Rng) -> String {
    let mut word = String::new();
    for _ in 0..rng.between(2, 3) {
        word.push_str(rng.pick::<&str>(ONSETS));
        word.push_str(rng.pick::<&str>(VOWELS));
    }
    word.push_str(rng.pick::<&str>(CODAS));
    let mut letters = word.chars();
    letters.next().map_or(String::new(), |first| {
        first.to_uppercase().chain(letters).collect()
    })
}
