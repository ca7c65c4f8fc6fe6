//! How files are to be read: column mapping, delimiter, limits.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::error::IngestError;

/// How to read; the default recognises everything by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct ReadOptions {
    /// Which column is what, where the usual names do not tell.
    pub columns: BTreeMap<Field, ColumnRef>,
    /// What separates columns; sniffed by default.
    pub delimiter: Option<Delimiter>,
    /// Whether the first line names the columns; recognised by default.
    pub header: Option<bool>,
    /// Whether lines are `user item item …`; recognised by default.
    pub adjacency: Option<bool>,
    /// Whether `"` quotes fields; recognised by default.
    pub quotes: Option<bool>,
    /// How many bad rows are tolerated, over all files.
    pub max_bad_rows: u64,
    /// The longest line, or quoted record over several lines, in bytes.
    pub max_line_bytes: usize,
}

impl Default for ReadOptions {
    fn default() -> Self {
        Self {
            columns: BTreeMap::new(),
            delimiter: None,
            header: None,
            adjacency: None,
            quotes: None,
            max_bad_rows: 0,
            max_line_bytes: 1 << 20,
        }
    }
}

impl ReadOptions {
    /// Reads options from TOML, for instance
    ///
    /// ```toml
    /// delimiter = "tab"
    /// [columns]
    /// user = "uid"
    /// item = 2
    /// ```
    ///
    /// # Errors
    /// When the file cannot be read or has a key or value that is not known.
    pub fn from_toml(path: &Path) -> Result<Self, IngestError> {
        let text = fs_err::read_to_string(path).map_err(|source| IngestError::Open { source })?;
        toml::from_str(&text).map_err(|source| IngestError::Mapping {
            path: path.to_owned(),
            source,
        })
    }

    /// Maps a column, as given on a command line: `user=uid`, `item=2` or `time=none`.
    ///
    /// # Errors
    /// When the argument is not `FIELD=COLUMN` with a known field.
    pub fn map_column(&mut self, argument: &str) -> Result<(), MappingError> {
        let (field, column) = argument.split_once('=').ok_or_else(|| MappingError::Form {
            argument: argument.to_owned(),
        })?;
        self.columns
            .insert(field.trim().parse()?, column.trim().parse()?);
        Ok(())
    }
}

/// Why a column mapping is not one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MappingError {
    /// Not `FIELD=COLUMN`.
    #[error("'{argument}' is not FIELD=COLUMN, for instance user=uid or item=2")]
    Form {
        /// What was given.
        argument: String,
    },
    /// Not a field.
    #[error("'{field}' is not a field; the fields are {}", all_fields())]
    Field {
        /// What was given.
        field: String,
    },
    /// Not a name or a position from 1.
    #[error("'{column}' is not a column name or a position from 1")]
    Column {
        /// What was given.
        column: String,
    },
    /// Not a delimiter.
    #[error("'{delimiter}' is not a delimiter; give tab, comma, semicolon, bar or space")]
    Delimiter {
        /// What was given.
        delimiter: String,
    },
}

macro_rules! fields {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        /// What a column can be.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
        #[non_exhaustive]
        pub enum Field {
            $($(#[$doc])* #[serde(rename = $name)] $variant,)*
        }

        impl Field {
            /// Every field.
            pub const ALL: &'static [Field] = &[$(Field::$variant,)*];

            /// As it is written in options and messages.
            pub fn as_str(self) -> &'static str {
                match self { $(Field::$variant => $name,)* }
            }
        }
    };
}

fields! {
    /// User id.
    User = "user",
    /// Item id.
    Item = "item",
    /// Plays, or another positive weight.
    Count = "count",
    /// When it was played.
    Time = "time",
    /// Playlist, album or station it was heard in.
    Context = "context",
    /// Listening session.
    Session = "session",
    /// Artist of the item.
    Artist = "artist",
    /// Name of the item for people.
    Title = "title",
    /// Tags of the item, separated by `|`, or one a row.
    Tags = "tags",
    /// When the item came out.
    ReleaseTime = "release_time",
    /// Length in milliseconds.
    Duration = "duration_ms",
    /// Whether the item is never recommended.
    Blocked = "blocked",
    /// Scope of an exclusion: item, context, session, artist, tag or window.
    Scope = "scope",
    /// What the scope covers.
    Value = "value",
    /// Strength of an exclusion, above 0 to 1.
    Strength = "strength",
    /// What an exclusion does: exclude, or include to carve out of another.
    Action = "action",
    /// When an exclusion was made: among like ones the newest wins.
    Created = "created",
    /// Up to when a list of exclusions is complete.
    Watermark = "watermark",
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Field {
    type Err = MappingError;

    fn from_str(text: &str) -> Result<Self, MappingError> {
        let known = Self::ALL.iter().find(|field| field.as_str() == text);
        known.copied().ok_or_else(|| MappingError::Field {
            field: text.to_owned(),
        })
    }
}

fn all_fields() -> String {
    let names: Vec<&str> = Field::ALL.iter().map(|field| field.as_str()).collect();
    names.join(", ")
}

/// A column, by name or position.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "RawColumnRef", into = "RawColumnRef")]
pub enum ColumnRef {
    /// By its name in the header; case and punctuation do not matter.
    Name(String),
    /// By its position from 1.
    Position(usize),
    /// Not read at all, even if a column of a usual name is there.
    None,
}

impl fmt::Display for ColumnRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Position(position) => write!(f, "{position}"),
            Self::None => f.write_str("none"),
        }
    }
}

impl FromStr for ColumnRef {
    type Err = MappingError;

    fn from_str(text: &str) -> Result<Self, MappingError> {
        match text.parse::<usize>() {
            Ok(position) if position > 0 => Ok(Self::Position(position)),
            Err(_) if text == "none" => Ok(Self::None),
            Err(_) if !text.is_empty() => Ok(Self::Name(text.to_owned())),
            Ok(_) | Err(_) => Err(MappingError::Column {
                column: text.to_owned(),
            }),
        }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum RawColumnRef {
    Position(usize),
    Name(String),
}

impl TryFrom<RawColumnRef> for ColumnRef {
    type Error = MappingError;

    fn try_from(raw: RawColumnRef) -> Result<Self, MappingError> {
        match raw {
            RawColumnRef::Position(position) => position.to_string().parse(),
            RawColumnRef::Name(name) => name.parse(),
        }
    }
}

impl From<ColumnRef> for RawColumnRef {
    fn from(column: ColumnRef) -> Self {
        match column {
            ColumnRef::Position(position) => Self::Position(position),
            ColumnRef::Name(name) => Self::Name(name),
            ColumnRef::None => Self::Name("none".to_owned()),
        }
    }
}

/// What separates the columns of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Delimiter {
    /// `\t`
    Tab,
    /// `,`
    Comma,
    /// `;`
    Semicolon,
    /// `|`
    Bar,
    /// One or more spaces.
    Space,
}

impl Delimiter {
    /// Every delimiter, the most telling first.
    pub const ALL: [Self; 5] = [
        Self::Tab,
        Self::Comma,
        Self::Semicolon,
        Self::Bar,
        Self::Space,
    ];

    /// As it is written in options.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tab => "tab",
            Self::Comma => "comma",
            Self::Semicolon => "semicolon",
            Self::Bar => "bar",
            Self::Space => "space",
        }
    }

    pub(crate) fn byte(self) -> u8 {
        match self {
            Self::Tab => b'\t',
            Self::Comma => b',',
            Self::Semicolon => b';',
            Self::Bar => b'|',
            Self::Space => b' ',
        }
    }
}

impl fmt::Display for Delimiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Delimiter {
    type Err = MappingError;

    /// Reads the word or the character itself.
    fn from_str(text: &str) -> Result<Self, MappingError> {
        let known = Self::ALL
            .into_iter()
            .find(|delimiter| text == delimiter.as_str() || text.as_bytes() == [delimiter.byte()]);
        known.ok_or_else(|| MappingError::Delimiter {
            delimiter: text.to_owned(),
        })
    }
}
