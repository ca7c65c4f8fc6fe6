//! Scenes, artists and tracks.

use super::names::{self, Names, SLEEP_SCENE};
use super::rng::{Rng, Zipf};
use super::{Preset, digits, purpose};
use crate::ingest::Items;

/// The artist of the sleep playlist.
const SLEEP_ARTIST: &str = "Soft Static";

pub(super) struct World {
    /// Midnight of the first day, seconds since 1970 UTC.
    pub(super) start_s: i64,
    /// Names, by artist.
    pub(super) artists: Vec<String>,
    /// Artists of each scene, the most popular first.
    pub(super) scene_artists: Vec<Vec<u32>>,
    /// How popular they are.
    pub(super) scene_zipf: Vec<Zipf>,
    /// All tracks; those of the sleep playlist come last.
    pub(super) tracks: Vec<Track>,
    /// Tracks of each artist, the most popular first.
    artist_tracks: Vec<Vec<u32>>,
    artist_zipf: Vec<Zipf>,
}

pub(super) struct Track {
    pub(super) id: String,
    title: String,
    /// `None` for the sleep playlist.
    artist: Option<u32>,
    scene: String,
    pub(super) release_time_s: i64,
    pub(super) duration_ms: u32,
}

impl World {
    pub(super) fn new(preset: &Preset) -> Self {
        let midnight = preset.start.to_datetime(jiff::civil::Time::midnight());
        let start_s = jiff::tz::Offset::UTC
            .to_timestamp(midnight)
            .map_or(0, |timestamp| timestamp.as_second());

        let mut rng = Rng::new(preset.seed, purpose::ARTISTS);
        let mut names = Names::default();
        let artists: Vec<String> = (0..preset.artists)
            .map(|_| names.artist(&mut rng))
            .collect();
        let mut scene_artists = vec![Vec::new(); preset.scenes as usize];
        for artist in 0..preset.artists {
            // Two of each scene first, so that no scene is empty; then the larger ones grow.
            let scene = if artist < 2 * preset.scenes {
                artist % preset.scenes
            } else {
                rng.below(preset.scenes).min(rng.below(2 * preset.scenes))
            };
            scene_artists[scene as usize].push(artist);
        }
        for scene in &mut scene_artists {
            rng.shuffle(scene);
        }
        let scene_zipf = scene_artists
            .iter()
            .map(|artists| Zipf::new(artists.len(), 2))
            .collect();

        let mut world = Self {
            start_s,
            artists,
            scene_artists,
            scene_zipf,
            tracks: Vec::with_capacity((preset.tracks + preset.sleep_tracks) as usize),
            artist_tracks: vec![Vec::new(); preset.artists as usize],
            artist_zipf: Vec::new(),
        };
        world.record_tracks(preset);
        world
    }

    /// A track of an artist, by popularity.
    pub(super) fn track_of(&self, artist: u32, rng: &mut Rng) -> u32 {
        let artist = artist as usize;
        self.artist_tracks[artist][self.artist_zipf[artist].draw(rng)]
    }

    /// An artist of a scene, by popularity.
    pub(super) fn popular_artist(&self, scene: usize, rng: &mut Rng) -> u32 {
        self.scene_artists[scene][self.scene_zipf[scene].draw(rng)]
    }

    /// The oldest track of the artist of `track`.
    pub(super) fn oldest_of(&self, track: u32) -> u32 {
        let artist = self.tracks[track as usize].artist;
        let tracks = artist.map(|artist| &self.artist_tracks[artist as usize]);
        let oldest = tracks.and_then(|tracks| {
            tracks
                .iter()
                .min_by_key(|&&track| (self.tracks[track as usize].release_time_s, track))
        });
        oldest.copied().unwrap_or(track)
    }

    /// What there is to know about every track.
    pub(super) fn items(&self, _: &Preset) -> Items {
        let mut items = Items::default();
        for track in &self.tracks {
            // Never full: the preset's limits are far below.
            let Some(item) = items.entry(&track.id) else {
                break;
            };
            item.title.clone_from(&track.title);
            match track.artist {
                Some(artist) => {
                    item.artist.clone_from(&self.artists[artist as usize]);
                    item.tags = vec![track.scene.clone()];
                }
                None => {
                    SLEEP_ARTIST.clone_into(&mut item.artist);
                    item.tags = vec![track.scene.clone(), "sleep".to_owned()];
                }
            }
            item.release_time_s = Some(track.release_time_s);
            item.duration_ms = Some(track.duration_ms);
        }
        items
    }

    fn record_tracks(&mut self, preset: &Preset) {
        let mut rng = Rng::new(preset.seed, purpose::TRACKS);
        let mut scene_of = vec![0usize; preset.artists as usize];
        for (scene, artists) in self.scene_artists.iter().enumerate() {
            for &artist in artists {
                scene_of[artist as usize] = scene;
            }
        }
        let width = digits(preset.tracks + preset.sleep_tracks);
        for number in 0..preset.tracks {
            // Every artist has one track that was out before the log began.
            let first = number < preset.artists;
            let artist = if first {
                number
            } else {
                rng.below(preset.artists)
            };
            self.artist_tracks[artist as usize].push(number);
            self.tracks.push(Track {
                id: format!("t{number:0width$}"),
                title: Names::track(&mut rng, false),
                artist: Some(artist),
                scene: names::scene(scene_of[artist as usize]),
                release_time_s: self.release_time_s(preset, first, &mut rng),
                duration_ms: rng.between(120_000, 360_000),
            });
        }
        let mut rng = Rng::new(preset.seed, purpose::SLEEP);
        for number in preset.tracks..preset.tracks + preset.sleep_tracks {
            self.tracks.push(Track {
                id: format!("t{number:0width$}"),
                title: Names::track(&mut rng, true),
                artist: None,
                scene: SLEEP_SCENE.to_owned(),
                release_time_s: self.release_time_s(preset, true, &mut rng),
                duration_ms: rng.between(90_000, 240_000),
            });
        }
        for tracks in &mut self.artist_tracks {
            rng.shuffle(tracks);
        }
        self.artist_zipf = self
            .artist_tracks
            .iter()
            .map(|tracks| Zipf::new(tracks.len(), 2))
            .collect();
    }

    /// Some time in the ten years before the log; one track of ten comes out while it runs.
    fn release_time_s(&self, preset: &Preset, old: bool, rng: &mut Rng) -> i64 {
        const DAY_S: i64 = 86_400;
        if !old && rng.chance(0.1) {
            self.start_s + i64::from(rng.below(preset.weeks * 7)) * DAY_S
        } else {
            self.start_s - i64::from(rng.between(1, 3650)) * DAY_S
        }
    }
}
