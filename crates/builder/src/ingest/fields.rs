//! The tables we read, the usual names of their columns, and finding them in a header.

use std::path::Path;

use super::error::{ColumnList, IngestError};
use super::options::{ColumnRef, Field, ReadOptions};

/// One column of a table.
#[derive(Debug)]
pub(crate) struct FieldSpec {
    pub(crate) field: Field,
    pub(crate) kind: Kind,
    pub(crate) required: bool,
    /// Usual names, lower case without punctuation, the most telling first.
    pub(crate) names: &'static [&'static str],
}

/// What the values of a column are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Text,
    Number,
    Time,
}

const fn spec(
    field: Field,
    kind: Kind,
    required: bool,
    names: &'static [&'static str],
) -> FieldSpec {
    FieldSpec {
        field,
        kind,
        required,
        names,
    }
}

const USER_NAMES: &[&str] = &[
    "userid",
    "user",
    "uid",
    "listener",
    "listenerid",
    "userkey",
    "username",
    "userhash",
    "visitorid",
    "visitor",
    "customerid",
    "memberid",
    "accountid",
];

/// `artist` comes last: it is the item only where nothing finer is.
const ITEM_NAMES: &[&str] = &[
    "itemid",
    "item",
    "trackid",
    "track",
    "songid",
    "song",
    "recordingid",
    "recordingmbid",
    "recordingmsid",
    "trackmbid",
    "clickarticleid",
    "articleid",
    "movieid",
    "productid",
    "videoid",
    "episodeid",
    "trackname",
    "songname",
    "artistid",
    "artistmbid",
    "artist",
    "artistname",
];

/// A listening log; cells come in this order.
pub(crate) const LISTENS: &[FieldSpec] = &[
    spec(Field::User, Kind::Text, true, USER_NAMES),
    spec(Field::Item, Kind::Text, true, ITEM_NAMES),
    spec(
        Field::Count,
        Kind::Number,
        false,
        &[
            "playcount",
            "plays",
            "count",
            "listens",
            "listencount",
            "playcounts",
            "weight",
            "frequency",
            "rating",
        ],
    ),
    spec(
        Field::Time,
        Kind::Time,
        false,
        &[
            "timestamp",
            "ts",
            "clicktimestamp",
            "playedat",
            "listenedat",
            "timestampms",
            "timestampus",
            "unixtime",
            "unixtimestamp",
            "datetime",
            "eventtime",
            "time",
            "createdat",
            "date",
        ],
    ),
    spec(
        Field::Context,
        Kind::Text,
        false,
        &[
            "contextid",
            "context",
            "playlistid",
            "playlist",
            "playlistname",
            "albumid",
            "album",
            "stationid",
            "station",
        ],
    ),
    spec(Field::Session, Kind::Text, false, &["sessionid", "session"]),
    spec(
        Field::Artist,
        Kind::Text,
        false,
        &["artistname", "artist", "artistid"],
    ),
    spec(
        Field::Title,
        Kind::Text,
        false,
        &[
            "title",
            "tracktitle",
            "songtitle",
            "trackname",
            "songname",
            "itemname",
            "name",
        ],
    ),
];

/// Item attributes; cells come in this order.
pub(crate) const ITEMS: &[FieldSpec] = &[
    spec(
        Field::Item,
        Kind::Text,
        true,
        &[
            "id",
            "itemid",
            "item",
            "trackid",
            "track",
            "songid",
            "song",
            "recordingid",
            "recordingmbid",
            "recordingmsid",
            "articleid",
            "movieid",
            "productid",
            "artistid",
            "artistmbid",
        ],
    ),
    spec(
        Field::Title,
        Kind::Text,
        false,
        &[
            "title",
            "name",
            "tracktitle",
            "songtitle",
            "trackname",
            "songname",
            "itemname",
        ],
    ),
    spec(
        Field::Artist,
        Kind::Text,
        false,
        &["artistname", "artist", "artistid"],
    ),
    spec(
        Field::Tags,
        Kind::Text,
        false,
        &["tags", "tag", "genres", "genre", "tagvalue"],
    ),
    spec(
        Field::ReleaseTime,
        Kind::Time,
        false,
        &[
            "releasetime",
            "releasedate",
            "releasedat",
            "released",
            "createdatts",
            "publishedat",
        ],
    ),
    spec(
        Field::Duration,
        Kind::Number,
        false,
        &["durationms", "lengthms", "trackdurationms"],
    ),
    spec(Field::Blocked, Kind::Text, false, &["blocked", "isblocked"]),
];

/// A list of ids: of items, or of users where there is no item column.
pub(crate) const IDS: &[FieldSpec] = &[spec(
    Field::Item,
    Kind::Text,
    true,
    &[
        "id", "itemid", "item", "trackid", "track", "songid", "song", "userid", "user", "artistid",
    ],
)];

/// Exclusion rules; cells come in this order.
pub(crate) const EXCLUSIONS: &[FieldSpec] = &[
    spec(Field::User, Kind::Text, true, USER_NAMES),
    spec(Field::Scope, Kind::Text, true, &["scope", "kind"]),
    spec(Field::Value, Kind::Text, true, &["value", "target"]),
    spec(Field::Strength, Kind::Number, false, &["strength"]),
    spec(Field::Action, Kind::Text, false, &["action"]),
    spec(
        Field::Created,
        Kind::Time,
        false,
        &["created", "createtime"],
    ),
    spec(Field::Watermark, Kind::Time, false, &["watermark"]),
];

/// Case and punctuation of column names do not matter.
pub(crate) fn normalised(name: &str) -> String {
    name.chars()
        .filter(|c| c.is_alphanumeric())
        .flat_map(char::to_lowercase)
        .collect()
}

/// Which column each field of `table` is, `None` where it is absent.
pub(crate) fn resolve(
    path: &Path,
    table: &[FieldSpec],
    header: &[String],
    options: &ReadOptions,
) -> Result<Vec<Option<usize>>, IngestError> {
    let names: Vec<String> = header.iter().map(|name| normalised(name)).collect();
    let mut columns = mapped(table, header.len(), options, &|wanted| {
        let exact = header.iter().position(|name| name.trim() == wanted);
        exact.or_else(|| names.iter().position(|name| *name == normalised(wanted)))
    })
    .map_err(|(field, wanted)| IngestError::UnknownColumn {
        path: path.to_owned(),
        field,
        wanted,
        found: ColumnList(header.to_vec()),
    })?;
    for (slot, spec) in table.iter().enumerate() {
        if columns[slot].is_some() || options.columns.contains_key(&spec.field) {
            continue;
        }
        let free = |column: &usize| !columns.contains(&Some(*column));
        columns[slot] = spec
            .names
            .iter()
            .find_map(|usual| names.iter().position(|name| name == usual).filter(free));
    }
    required(path, table, &columns, header)?;
    Ok(columns)
}

/// The same for a table without a header of `width` columns: positions, then what is asked for.
pub(crate) fn resolve_positions(
    path: &Path,
    table: &[FieldSpec],
    width: usize,
    options: &ReadOptions,
    usual: &[(Field, usize)],
) -> Result<Vec<Option<usize>>, IngestError> {
    let header: Vec<String> = (1..=width).map(|position| position.to_string()).collect();
    let mut columns = mapped(table, width, options, &|_| None).map_err(|(field, wanted)| {
        IngestError::UnknownColumn {
            path: path.to_owned(),
            field,
            wanted,
            found: ColumnList(header.clone()),
        }
    })?;
    for &(field, column) in usual {
        let Some(slot) = table.iter().position(|spec| spec.field == field) else {
            continue;
        };
        let asked = options.columns.contains_key(&field);
        if !asked && column < width && !columns.contains(&Some(column)) {
            columns[slot] = Some(column);
        }
    }
    required(path, table, &columns, &header)?;
    Ok(columns)
}

fn mapped(
    table: &[FieldSpec],
    width: usize,
    options: &ReadOptions,
    by_name: &dyn Fn(&str) -> Option<usize>,
) -> Result<Vec<Option<usize>>, (Field, ColumnRef)> {
    table
        .iter()
        .map(|spec| match options.columns.get(&spec.field) {
            None | Some(ColumnRef::None) => Ok(None),
            Some(wanted @ ColumnRef::Name(name)) => by_name(name)
                .map(Some)
                .ok_or_else(|| (spec.field, wanted.clone())),
            Some(wanted @ ColumnRef::Position(position)) => position
                .checked_sub(1)
                .filter(|&column| column < width)
                .map(Some)
                .ok_or_else(|| (spec.field, wanted.clone())),
        })
        .collect()
}

fn required(
    path: &Path,
    table: &[FieldSpec],
    columns: &[Option<usize>],
    header: &[String],
) -> Result<(), IngestError> {
    let missing = table
        .iter()
        .zip(columns)
        .find(|(spec, column)| spec.required && column.is_none());
    match missing {
        None => Ok(()),
        Some((spec, _)) => Err(IngestError::MissingColumn {
            path: path.to_owned(),
            field: spec.field,
            found: ColumnList(header.to_vec()),
        }),
    }
}
