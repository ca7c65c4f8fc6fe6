//! A deterministic generator of listening logs, for demos and tests.
//!
//! The world has *scenes*; an artist belongs to one; a track to an artist. Popularity of artists
//! in their scene, and of tracks of an artist, follows Zipf's law. A listener mixes one to three
//! scenes, has a few favourite artists in each, and listens in sessions, most of them in a
//! playlist of the scene or an album. Some listeners play the *sleep playlist*
//! ([`SLEEP_CONTEXT`]) at night, from a scene that has nothing to do with what they like: leaving
//! it out of their taste profile visibly changes what they are recommended.
//!
//! So who listens to what has structure that popularity alone does not see, and that factors do.
//!
//! The same preset gives the same log on every machine (see `rng`). O(events log events).

mod names;
mod preset;
pub(crate) mod rng;
mod world;
mod write;

pub use preset::{Preset, PresetError};
pub use write::{Format, WriteError, Written};

use crate::ingest::{Items, Log};
use rng::Rng;
use world::World;

/// The context of listens in the sleep playlist.
pub const SLEEP_CONTEXT: &str = "playlist:sleep";

/// A generated log and what there is to know about its items.
#[derive(Debug, Clone)]
pub struct Generated {
    /// The listens, oldest first.
    pub log: Log,
    /// Attributes of every track, heard or not.
    pub items: Items,
    /// Users who play the sleep playlist, by id, the most active first.
    pub sleepers: Vec<String>,
}

/// Generates the log of a preset.
///
/// # Errors
/// When the preset has a value out of range.
pub fn generate(preset: &Preset) -> Result<Generated, PresetError> {
    preset.check()?;
    let world = World::new(preset);
    let mut listens = Vec::with_capacity(preset.events as usize);
    let mut sleepers = Vec::new();
    let budgets = budgets(preset);
    for (user, &budget) in (0u32..).zip(&budgets) {
        let mut rng = Rng::new(preset.seed, purpose::LISTENER + u64::from(user));
        let listener = Listener::new(preset, &world, &mut rng);
        if listener.sleeps {
            sleepers.push(user);
        }
        listener.listen(preset, &world, user, budget, &mut rng, &mut listens);
    }
    listens.sort_unstable();
    sleepers.sort_by_key(|&user| (std::cmp::Reverse(budgets[user as usize]), user));
    Ok(Generated {
        log: log(preset, &world, &listens),
        items: world.items(preset),
        sleepers: sleepers
            .into_iter()
            .map(|user| user_id(preset, user))
            .collect(),
    })
}

/// What each stream of random numbers is for.
mod purpose {
    pub(super) const ARTISTS: u64 = 1;
    pub(super) const TRACKS: u64 = 2;
    pub(super) const BUDGETS: u64 = 3;
    pub(super) const SLEEP: u64 = 4;
    /// Plus the number of the listener.
    pub(super) const LISTENER: u64 = 1 << 32;
}

/// One listen; the order of the fields is the order of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Played {
    time_s: i64,
    user: u32,
    session: u32,
    track: u32,
    context: Option<Context>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Context {
    Playlist { scene: u32, kind: u32 },
    Album { artist: u32 },
    Sleep,
}

const PLAYLISTS: [&str; 3] = ["daily", "classics", "discoveries"];

/// How many listens each listener has: some listen a lot, most do not.
fn budgets(preset: &Preset) -> Vec<u32> {
    const FEWEST: u32 = 4;
    let mut rng = Rng::new(preset.seed, purpose::BUDGETS);
    let weights: Vec<f64> = (0..preset.users)
        .map(|_| {
            let u = rng.unit();
            0.2 + 0.8 * u + 6.0 * u * u * u * u * u * u
        })
        .collect();
    let total: f64 = weights.iter().sum();
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a share of a u32, not negative"
    )]
    let share = |weight: f64| (f64::from(preset.events) * weight / total).round() as u32;
    weights
        .into_iter()
        .map(|weight| share(weight).max(FEWEST))
        .collect()
}

/// What one listener likes.
struct Listener {
    /// Scenes with their weights, which sum to 1, and favourite artists.
    scenes: Vec<(u32, f64, Vec<u32>)>,
    sleeps: bool,
}

impl Listener {
    fn new(preset: &Preset, world: &World, rng: &mut Rng) -> Self {
        let count = (1 + rng.below(3)).min(preset.scenes);
        let mut scenes: Vec<(u32, f64, Vec<u32>)> = Vec::new();
        while scenes.len() < count as usize {
            let scene = rng.below(preset.scenes);
            if scenes.iter().all(|(known, ..)| *known != scene) {
                let artists = &world.scene_artists[scene as usize];
                let wanted = (rng.between(4, 10) as usize).min(artists.len());
                let mut favourites: Vec<u32> = Vec::new();
                // Popular artists are drawn again and again; the bound ends that.
                for _ in 0..20 * wanted {
                    let artist = artists[world.scene_zipf[scene as usize].draw(rng)];
                    if favourites.len() < wanted && !favourites.contains(&artist) {
                        favourites.push(artist);
                    }
                }
                scenes.push((scene, 0.0, favourites));
            }
        }
        let weights: &[f64] = match scenes.len() {
            1 => &[1.0],
            2 => &[0.7, 0.3],
            _ => &[0.6, 0.3, 0.1],
        };
        for ((_, weight, _), given) in scenes.iter_mut().zip(weights) {
            *weight = *given;
        }
        Self {
            scenes,
            sleeps: rng.chance(preset.sleepers),
        }
    }

    fn listen(
        &self,
        preset: &Preset,
        world: &World,
        user: u32,
        budget: u32,
        rng: &mut Rng,
        out: &mut Vec<Played>,
    ) {
        let mut left = budget;
        let mut session = 0;
        while left > 0 {
            let night = self.sleeps && rng.chance(preset.sleep_share);
            let length = rng.between(4, 14).min(left);
            let day = i64::from(rng.below(preset.weeks * 7));
            let hour = if night {
                22 + rng.below(4)
            } else {
                self.hour(rng)
            };
            let second = i64::from(hour) * 3600 + i64::from(rng.below(3600));
            let mut time_s = world.start_s + day * 86_400 + second;
            let (scene, favourites) = self.scene(rng);
            let context = if night {
                Some(Context::Sleep)
            } else {
                context(scene, favourites, rng)
            };
            for _ in 0..length {
                let track = self.track(preset, world, scene, favourites, context, time_s, rng);
                out.push(Played {
                    time_s,
                    user,
                    session,
                    track,
                    context,
                });
                time_s += i64::from(world.tracks[track as usize].duration_ms / 1000);
            }
            session += 1;
            left -= length;
        }
    }

    /// Mornings, and twice as much in the evenings.
    fn hour(&self, rng: &mut Rng) -> u32 {
        if rng.chance(0.33) {
            rng.between(7, 11)
        } else {
            rng.between(14, 21)
        }
    }

    fn scene(&self, rng: &mut Rng) -> (u32, &[u32]) {
        let mut at = rng.unit();
        for (scene, weight, favourites) in &self.scenes {
            if at < *weight {
                return (*scene, favourites);
            }
            at -= weight;
        }
        self.scenes
            .first()
            .map_or((0, &[]), |(scene, _, favourites)| (*scene, favourites))
    }

    #[expect(clippy::too_many_arguments, reason = "one draw depends on all of them")]
    fn track(
        &self,
        preset: &Preset,
        world: &World,
        scene: u32,
        favourites: &[u32],
        context: Option<Context>,
        time_s: i64,
        rng: &mut Rng,
    ) -> u32 {
        // Nothing is heard before it is out; a few tries nearly always find something.
        const TRIES: usize = 8;
        let mut track = 0;
        for _ in 0..TRIES {
            track = match context {
                Some(Context::Sleep) => preset.tracks + rng.below(preset.sleep_tracks),
                Some(Context::Album { artist }) => world.track_of(artist, rng),
                _ if rng.chance(preset.strays) => {
                    let stray = rng.below(preset.scenes) as usize;
                    world.track_of(world.popular_artist(stray, rng), rng)
                }
                _ if !favourites.is_empty() && rng.chance(0.7) => {
                    world.track_of(*rng.pick(favourites), rng)
                }
                _ => world.track_of(world.popular_artist(scene as usize, rng), rng),
            };
            if world.tracks[track as usize].release_time_s <= time_s {
                return track;
            }
        }
        // The oldest track of the same artist is out before the log begins.
        world.oldest_of(track)
    }
}

fn context(scene: u32, favourites: &[u32], rng: &mut Rng) -> Option<Context> {
    match rng.below(10) {
        0..6 => {
            let kind = rng.below(3);
            Some(Context::Playlist { scene, kind })
        }
        6 | 7 if !favourites.is_empty() => Some(Context::Album {
            artist: *rng.pick(favourites),
        }),
        _ => None,
    }
}

/// The listens as a log, its ordinals in order of first appearance, as if it had been read.
fn log(preset: &Preset, world: &World, listens: &[Played]) -> Log {
    let mut log = Log {
        time_us: Some(Vec::with_capacity(listens.len())),
        context: Some(Vec::with_capacity(listens.len())),
        session: Some(Vec::with_capacity(listens.len())),
        ..Log::default()
    };
    for listen in listens {
        let user = user_id(preset, listen.user);
        // A dictionary is never full here: the preset's limits are far below.
        let session = log.sessions.insert(&format!("{user}-{}", listen.session));
        log.user.push(log.users.insert(&user).unwrap_or(Log::NONE));
        let item = log.items.insert(&world.tracks[listen.track as usize].id);
        log.item.push(item.unwrap_or(Log::NONE));
        log.count.push(1.0);
        let context = listen.context.map(|context| match context {
            Context::Playlist { scene, kind } => format!(
                "playlist:{}-{}",
                slug(&names::scene(scene as usize)),
                PLAYLISTS[kind as usize % PLAYLISTS.len()],
            ),
            Context::Album { artist } => format!("album:{}", slug(&world.artists[artist as usize])),
            Context::Sleep => SLEEP_CONTEXT.to_owned(),
        });
        let context = context.and_then(|context| log.contexts.insert(&context));
        if let (Some(times), Some(contexts), Some(sessions)) =
            (&mut log.time_us, &mut log.context, &mut log.session)
        {
            times.push(listen.time_s * 1_000_000);
            contexts.push(context.unwrap_or(Log::NONE));
            sessions.push(session.unwrap_or(Log::NONE));
        }
    }
    log.report.rows = listens.len() as u64;
    log
}

fn user_id(preset: &Preset, user: u32) -> String {
    format!("u{user:0width$}", width = digits(preset.users))
}

fn digits(count: u32) -> usize {
    count.saturating_sub(1).max(1).ilog10() as usize + 1
}

fn slug(name: &str) -> String {
    name.to_lowercase().replace(' ', "-")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tiny() -> Preset {
        Preset {
            users: 60,
            tracks: 300,
            artists: 40,
            scenes: 4,
            events: 2_000,
            ..Preset::named("small").unwrap()
        }
    }

    #[test]
    fn the_same_preset_gives_the_same_bytes_for_ever() {
        let generated = generate(&tiny()).unwrap();
        let again = generate(&tiny()).unwrap();
        assert!(generated.log.same_listens(&again.log) && generated.items == again.items);
        let directory = tempfile::tempdir().unwrap();
        let written = generated.write(directory.path(), Format::Csv).unwrap();
        let crc = |path| crc32(&fs_err::read(path).unwrap());
        assert_eq!(
            (crc(written.listens), crc(written.items)),
            (LISTENS_CRC, ITEMS_CRC)
        );
        let other = generate(&Preset { seed: 2, ..tiny() }).unwrap();
        assert!(!generated.log.same_listens(&other.log));
    }

    // These change only when generated logs change, which is a change users must be told.
    const LISTENS_CRC: u32 = 3_775_284_203;
    const ITEMS_CRC: u32 = 3_777_408_818;

    fn crc32(bytes: &[u8]) -> u32 {
        let mut crc = flate2::Crc::new();
        crc.update(bytes);
        crc.sum()
    }

    #[test]
    fn presets_have_the_sizes_they_say() {
        let preset = Preset::named("small").unwrap();
        let Generated {
            log,
            items,
            sleepers,
        } = generate(&preset).unwrap();
        assert_eq!(log.users.len(), preset.users as usize);
        assert!(
            log.len().abs_diff(preset.events as usize) < 2_000,
            "{}",
            log.len()
        );
        assert_eq!(items.len(), (preset.tracks + preset.sleep_tracks) as usize);
        assert!(
            log.items.len() * 10 > items.len() * 8,
            "{}",
            log.items.len()
        );
        assert!(sleepers.len().abs_diff(400) < 80, "{}", sleepers.len());
        Preset::named("demo").unwrap();
        assert!(matches!(
            Preset::named("huge"),
            Err(PresetError::Unknown { .. })
        ));
    }

    #[test]
    fn nothing_is_heard_before_it_is_out() {
        let Generated { log, items, .. } = generate(&tiny()).unwrap();
        for listen in log.listens() {
            let item = items.get(log.items.get(listen.item).unwrap()).unwrap();
            assert!(item.release_time_s.unwrap() * 1_000_000 <= listen.time_us.unwrap());
        }
        assert!(log.time_us.as_ref().unwrap().is_sorted());
    }

    #[test]
    fn the_sleep_playlist_is_far_from_the_taste_of_those_who_play_it() {
        let Generated {
            log,
            items,
            sleepers,
        } = generate(&tiny()).unwrap();
        let mut asleep = 0;
        for listen in log.listens() {
            let context = listen.context.and_then(|context| log.contexts.get(context));
            let item = items.get(log.items.get(listen.item).unwrap()).unwrap();
            let noise = item.tags.iter().any(|tag| tag == "sleep");
            assert_eq!(noise, context == Some(SLEEP_CONTEXT));
            if noise {
                asleep += 1;
                let user = log.users.get(listen.user).unwrap();
                assert!(sleepers.iter().any(|sleeper| sleeper == user));
            }
        }
        assert!(asleep > 50, "{asleep}");
    }

    #[test]
    fn out_of_range_presets_are_refused_by_key() {
        for (preset, key) in [
            (Preset { users: 0, ..tiny() }, "users"),
            (
                Preset {
                    scenes: 1,
                    ..tiny()
                },
                "scenes",
            ),
            (
                Preset {
                    artists: 7,
                    ..tiny()
                },
                "artists",
            ),
            (
                Preset {
                    tracks: 39,
                    ..tiny()
                },
                "tracks",
            ),
            (
                Preset {
                    events: 59,
                    ..tiny()
                },
                "events",
            ),
            (Preset { weeks: 0, ..tiny() }, "weeks"),
            (
                Preset {
                    strays: f64::NAN,
                    ..tiny()
                },
                "strays",
            ),
            (
                Preset {
                    sleep_share: 1.0,
                    ..tiny()
                },
                "sleep_share",
            ),
        ] {
            let message = generate(&preset).unwrap_err().to_string();
            assert!(message.contains(&format!(": {key} is")), "{message}");
        }
    }
}
