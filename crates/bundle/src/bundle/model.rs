//! What a server needs to solve a user's vector from their events.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::column::Column;
use crate::corruption::Corruption;
use crate::digest::FileDigest;
use crate::section::{OpenError, SectionFile, SectionSpec, SectionWriter, WriteError};

/// The fold-in model, mapped.
#[derive(Debug, Clone)]
pub struct Model {
    rank: usize,
    items: u32,
    gram: Column<f32>,
    factors: Column<f32>,
    user_gram: Option<Column<f32>>,
    hyper: serde_json::Value,
}

impl Model {
    /// The model in `file`. O(1) in the number of items.
    ///
    /// # Errors
    /// [`OpenError`] when a section is missing, unknown or of the wrong shape.
    pub fn open(file: &SectionFile) -> Result<Self, OpenError> {
        file.require_known(&["params", "hyper", "gram", "factors", USER_GRAM])?;
        let Params { rank, items } = file.record("params", PARAMS_VERSION)?;
        let hyper = file.section("hyper").ok_or_else(|| file.missing("hyper"))?;
        let hyper = serde_json::from_slice(&hyper).map_err(|error| OpenError::Record {
            file: file.path().to_owned(),
            section: "hyper".into(),
            reason: error.to_string(),
        })?;
        let rule = "the model has rank x rank and items x rank values";
        let (wide, rows) = (u64::from(rank), u64::from(items));
        let gram = file.column::<f32>("gram")?;
        if rank == 0 || gram.len() as u64 != wide * wide {
            return Err(file.broken("gram", 0, rule, gram.len() as u64).into());
        }
        let factors = file.column::<f32>("factors")?;
        if factors.len() as u64 != rows * wide {
            return Err(file.broken("factors", 0, rule, factors.len() as u64).into());
        }
        let user_gram = match file.section(USER_GRAM) {
            None => None,
            Some(_) => Some(file.column::<f32>(USER_GRAM)?),
        };
        if let Some(gram) = &user_gram
            && gram.len() as u64 != wide * wide
        {
            return Err(file.broken(USER_GRAM, 0, rule, gram.len() as u64).into());
        }
        Ok(Self {
            rank: rank as usize,
            items,
            gram,
            factors,
            user_gram,
            hyper,
        })
    }

    /// Values of a factor row.
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// Items that have factors.
    pub fn items(&self) -> u32 {
        self.items
    }

    /// The items' Gram matrix YᵀY, rank x rank.
    pub fn gram(&self) -> &[f32] {
        self.gram.as_slice()
    }

    /// The items' factors, row after row of rank values: what the index's vectors were coded from.
    pub fn factors(&self) -> &[f32] {
        self.factors.as_slice()
    }

    /// The users' Gram matrix XᵀX, rank x rank, which folds items in; `None` in versions that were
    /// built without.
    pub fn user_gram(&self) -> Option<&[f32]> {
        self.user_gram.as_ref().map(Column::as_slice)
    }

    /// The hyper-parameters it was trained with, as the trainer writes them.
    pub fn hyper(&self) -> &serde_json::Value {
        &self.hyper
    }

    /// Checks every value: O(n).
    pub(crate) fn check(&self, file: &SectionFile) -> Result<(), Corruption> {
        for (name, values) in [
            ("gram", self.gram()),
            ("factors", self.factors()),
            (USER_GRAM, self.user_gram().unwrap_or_default()),
        ] {
            if let Some(at) = values.iter().position(|value| !value.is_finite()) {
                return Err(file.broken(name, at as u64 * 4, "values are finite", at as u64));
            }
        }
        Ok(())
    }
}

/// A model to be written.
#[derive(Debug, Clone, Copy)]
pub struct NewModel<'a> {
    /// Values of a factor row, 1 or more.
    pub rank: u32,
    /// Items that have factors.
    pub items: u32,
    /// YᵀY, rank x rank.
    pub gram: &'a [f32],
    /// items x rank.
    pub factors: &'a [f32],
    /// XᵀX of the users' factors, rank x rank, where they are known.
    pub user_gram: Option<&'a [f32]>,
    /// The trainer's hyper-parameters.
    pub hyper: &'a serde_json::Value,
}

/// Writes a model to a new file.
///
/// # Errors
/// [`WriteError::BadValue`] when the lengths do not agree; see [`WriteError`].
pub fn write_model(path: &Path, model: &NewModel<'_>) -> Result<FileDigest, WriteError> {
    let NewModel {
        rank,
        items,
        gram,
        factors,
        user_gram,
        hyper,
    } = *model;
    let is = |values: &[f32], rows: u32| values.len() as u64 == u64::from(rows) * u64::from(rank);
    if rank == 0
        || !is(gram, rank)
        || !user_gram.is_none_or(|gram| is(gram, rank))
        || !is(factors, items)
    {
        let rule = "it has rank x rank and items x rank values";
        return Err(WriteError::BadValue {
            what: "model",
            at: 0,
            rule,
        });
    }
    let params = Params { rank, items };
    SectionWriter::write(path, |writer| {
        writer.add_record("params", PARAMS_VERSION, &params)?;
        writer.add_array("hyper", hyper.to_string().as_bytes())?;
        writer.add_array("gram", gram)?;
        writer.add_array("factors", factors)?;
        // Optional: readers of before do not need it to fold listeners in.
        let section = SectionSpec {
            optional: true,
            ..SectionSpec::new(USER_GRAM).of::<f32>()
        };
        user_gram.map_or(Ok(()), |gram| {
            writer.add(section, bytemuck::cast_slice(gram))
        })
    })
}

#[derive(Serialize, Deserialize)]
struct Params {
    rank: u32,
    items: u32,
}

const PARAMS_VERSION: u8 = 2;
const USER_GRAM: &str = "user_gram";
