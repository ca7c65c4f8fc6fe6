//! What a generated log is made of.

use jiff::civil::Date;
use serde::{Deserialize, Serialize};

/// Sizes and habits of a generated log; read from `datasets/generated/*.toml`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Preset {
    /// Its name.
    pub name: String,
    /// Same seed, same bytes.
    pub seed: u64,
    /// Listeners, 1 to 10 million.
    pub users: u32,
    /// Tracks of all scenes but the sleep scene, at least one an artist.
    pub tracks: u32,
    /// Artists, at least two a scene.
    pub artists: u32,
    /// Scenes, 2 to 1000.
    pub scenes: u32,
    /// Listens, up to 4 a session too many or too few for the smallest listeners.
    pub events: u32,
    /// First day of the log (UTC).
    #[serde(with = "day")]
    pub start: Date,
    /// How many weeks it covers, 1 to 520.
    pub weeks: u32,
    /// Share of listeners who play the sleep playlist at night, 0 to 1.
    pub sleepers: f64,
    /// Share of a sleeper's listens that are in the sleep playlist, 0 to 0.9.
    pub sleep_share: f64,
    /// Tracks in the sleep playlist.
    pub sleep_tracks: u32,
    /// Share of listens outside the listener's scenes, 0 to 1.
    pub strays: f64,
}

/// Why a preset cannot be generated.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PresetError {
    /// No preset of this name comes with the program.
    #[error("there is no preset '{name}'; the presets are small and demo")]
    Unknown {
        /// What was asked for.
        name: String,
    },
    /// Not TOML, or not a preset.
    #[error("the preset is not valid: {source}")]
    Parse {
        /// Names line and key.
        source: toml::de::Error,
    },
    /// A value out of range.
    #[error("preset '{name}': {key} is {value}, it must be {allowed}")]
    Range {
        /// The preset.
        name: String,
        /// The key.
        key: &'static str,
        /// Its value.
        value: String,
        /// What is allowed.
        allowed: &'static str,
    },
}

impl Preset {
    /// The presets that come with the program, by name.
    ///
    /// # Errors
    /// When there is none of this name.
    pub fn named(name: &str) -> Result<Self, PresetError> {
        match name {
            "small" => Self::from_toml(include_str!("../../../../datasets/generated/small.toml")),
            "demo" => Self::from_toml(include_str!("../../../../datasets/generated/demo.toml")),
            _ => Err(PresetError::Unknown {
                name: name.to_owned(),
            }),
        }
    }

    /// Reads a preset.
    ///
    /// # Errors
    /// When it is not one, or a value is out of range.
    pub fn from_toml(text: &str) -> Result<Self, PresetError> {
        let preset: Self = toml::from_str(text).map_err(|source| PresetError::Parse { source })?;
        preset.check()?;
        Ok(preset)
    }

    /// Whether every value is in range.
    ///
    /// # Errors
    /// Names the first value that is not.
    pub fn check(&self) -> Result<(), PresetError> {
        let error = |key, value: &dyn ToString, allowed| {
            Err(PresetError::Range {
                name: self.name.clone(),
                key,
                value: value.to_string(),
                allowed,
            })
        };
        if !(1..=10_000_000).contains(&self.users) {
            return error("users", &self.users, "1 to 10000000");
        }
        if !(2..=1000).contains(&self.scenes) {
            return error("scenes", &self.scenes, "2 to 1000");
        }
        if self.artists < 2 * self.scenes || self.artists > 1_000_000 {
            return error("artists", &self.artists, "two a scene to 1000000");
        }
        if self.tracks < self.artists || self.tracks > 10_000_000 {
            return error("tracks", &self.tracks, "one an artist to 10000000");
        }
        if self.events < self.users || self.events > 1_000_000_000 {
            return error("events", &self.events, "one a user to 1000000000");
        }
        if !(1..=520).contains(&self.weeks) {
            return error("weeks", &self.weeks, "1 to 520");
        }
        if !(1990..=2100).contains(&self.start.year()) {
            return error("start", &self.start, "a day of the years 1990 to 2100");
        }
        if !(1..=100_000).contains(&self.sleep_tracks) {
            return error("sleep_tracks", &self.sleep_tracks, "1 to 100000");
        }
        for (key, share) in [("sleepers", self.sleepers), ("strays", self.strays)] {
            if !(0.0..=1.0).contains(&share) {
                return error(key, &share, "0 to 1");
            }
        }
        if !(0.0..=0.9).contains(&self.sleep_share) {
            return error("sleep_share", &self.sleep_share, "0 to 0.9");
        }
        Ok(())
    }
}

/// A day as `YYYY-MM-DD`.
mod day {
    use jiff::civil::Date;
    use serde::{Deserialize, Deserializer, Serializer, de};

    pub(super) fn serialize<S: Serializer>(day: &Date, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(day)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Date, D::Error> {
        String::deserialize(from)?
            .parse()
            .map_err(de::Error::custom)
    }
}
