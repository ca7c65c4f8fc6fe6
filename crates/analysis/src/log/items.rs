//! The lists that were shown: the column `items` of the exposures.

use arrow_array::cast::AsArray as _;
use arrow_array::types::{Float64Type, Int64Type};
use arrow_array::{Array as _, Float64Array, Int64Array, ListArray, RecordBatch, StringArray};
use arrow_cast::CastOptions;
use arrow_schema::{ArrowError, DataType};

/// Name of the column.
pub(crate) const ITEMS: &str = "items";

/// The items of a batch of exposures, best first in each row.
pub(crate) struct Items {
    lists: ListArray,
    item: StringArray,
    team: Option<Int64Array>,
    propensity: Option<Float64Array>,
}

/// One shown item.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shown<'a> {
    /// Its id; `None` where the log has null.
    pub(crate) item: Option<&'a str>,
    /// Team of an interleaved list: 0 or 1.
    pub(crate) team: Option<i64>,
    /// Probability of the item at its place given those above it, where it was drawn.
    pub(crate) propensity: Option<f64>,
}

impl Items {
    /// The column of a batch: `Ok(None)` where it is not there.
    ///
    /// # Errors
    /// A column that is no list of structures with a text `item`.
    pub(crate) fn of(batch: &RecordBatch) -> Result<Option<Self>, ArrowError> {
        let Some(array) = batch.column_by_name(ITEMS) else {
            return Ok(None);
        };
        let wrong = || {
            ArrowError::CastError(format!(
                "column `{ITEMS}` is {}, must be a list of structures with a text `item`",
                array.data_type()
            ))
        };
        let lists = array.as_list_opt::<i32>().ok_or_else(wrong)?;
        let fields = lists.values().as_struct_opt().ok_or_else(wrong)?;
        let strict = CastOptions {
            safe: false,
            ..CastOptions::default()
        };
        let field = |name: &str, to: &DataType| {
            fields
                .column_by_name(name)
                .map(|column| arrow_cast::cast_with_options(column, to, &strict))
                .transpose()
        };
        let item = field("item", &DataType::Utf8)?.ok_or_else(wrong)?;
        Ok(Some(Self {
            lists: lists.clone(),
            item: item.as_string::<i32>().clone(),
            team: field("team", &DataType::Int64)?
                .map(|column| column.as_primitive::<Int64Type>().clone()),
            propensity: field("propensity", &DataType::Float64)?
                .map(|column| column.as_primitive::<Float64Type>().clone()),
        }))
    }

    /// What a row showed, best first.
    pub(crate) fn row(&self, row: usize) -> impl Iterator<Item = Shown<'_>> {
        let offsets = self.lists.value_offsets();
        let range = if self.lists.is_valid(row) {
            usize::try_from(offsets[row]).unwrap_or(0)
                ..usize::try_from(offsets[row + 1]).unwrap_or(0)
        } else {
            0..0
        };
        range.map(|at| Shown {
            item: self.item.is_valid(at).then(|| self.item.value(at)),
            team: self
                .team
                .as_ref()
                .filter(|team| team.is_valid(at))
                .map(|team| team.value(at)),
            propensity: self
                .propensity
                .as_ref()
                .filter(|propensity| propensity.is_valid(at))
                .map(|propensity| propensity.value(at)),
        })
    }
}
