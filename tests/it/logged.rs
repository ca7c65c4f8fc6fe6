//! What a server left in its log, read as anybody would read it.

use std::collections::BTreeMap;
use std::path::Path;

use arrow_array::RecordBatch;
use arrow_array::cast::AsArray as _;
use arrow_array::types::UInt64Type;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

/// All rows of one table.
pub(crate) struct Logged {
    batches: Vec<RecordBatch>,
    /// Rows dropped, as the files' own metadata say.
    pub(crate) dropped: u64,
}

/// One line of `loss.jsonl`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Account {
    pub(crate) attempted: u64,
    pub(crate) written: u64,
    pub(crate) lost: u64,
    pub(crate) crashed: bool,
}

impl Logged {
    pub(crate) fn read(log: &Path, table: &str) -> Self {
        let mut logged = Self {
            batches: Vec::new(),
            dropped: 0,
        };
        let days = fs_err::read_dir(log.join(table)).expect("the table's folder");
        let days = days.map(|day| day.expect("an entry").path());
        for day in days.filter(|day| day.is_dir()) {
            for file in fs_err::read_dir(day).expect("a day") {
                let file = fs_err::File::open(file.expect("an entry").path()).expect("a file");
                let reader =
                    ParquetRecordBatchReaderBuilder::try_new(file.into_file()).expect("Parquet");
                logged.dropped += dropped(&reader);
                let batches = reader.build().expect("readable");
                logged.batches.extend(batches.map(|b| b.expect("readable")));
            }
        }
        logged
    }

    /// The column of a text.
    pub(crate) fn texts(&self, column: &str) -> Vec<String> {
        let columns = self.columns(column);
        let texts = columns.flat_map(|c| c.as_string::<i32>().iter().collect::<Vec<_>>());
        texts.map(|t| t.unwrap_or_default().to_owned()).collect()
    }

    /// The ids of the exposures, as answers have them.
    pub(crate) fn exposure_ids(&self) -> Vec<String> {
        let columns = self.columns("exposure_id");
        let ids = columns.flat_map(|c| c.as_fixed_size_binary().iter().collect::<Vec<_>>());
        let digits = |id: &[u8]| id.iter().map(|byte| format!("{byte:02x}")).collect();
        ids.map(|id| digits(id.expect("never null"))).collect()
    }

    /// Writer and place in its sequence of every row.
    pub(crate) fn places(&self) -> Vec<(String, u64)> {
        let numbers = self.columns("seq");
        let numbers = numbers.flat_map(|c| c.as_primitive::<UInt64Type>().values().to_vec());
        self.texts("writer").into_iter().zip(numbers).collect()
    }

    fn columns(&self, name: &str) -> impl Iterator<Item = &arrow_array::ArrayRef> {
        let column = move |batch: &'_ RecordBatch| batch.schema().index_of(name).expect("there");
        self.batches
            .iter()
            .map(move |batch| batch.column(column(batch)))
    }
}

fn dropped<R>(reader: &ParquetRecordBatchReaderBuilder<R>) -> u64
where
    R: parquet::file::reader::ChunkReader + 'static,
{
    let metadata = reader.metadata().file_metadata().key_value_metadata();
    let mut entries = metadata.into_iter().flatten();
    let entry = entries.find(|entry| entry.key == "refrain.dropped");
    let text = entry.and_then(|entry| entry.value.clone()).expect("told");
    let by_arm: BTreeMap<String, BTreeMap<String, u64>> =
        serde_json::from_str(&text).expect("counts by experiment and arm");
    by_arm.values().flat_map(BTreeMap::values).sum()
}

/// The accounts of a table's writers, by writer.
pub(crate) fn accounts(log: &Path, table: &str) -> BTreeMap<String, Account> {
    let text = fs_err::read_to_string(log.join("loss.jsonl")).expect("the accounts");
    let mut accounts = BTreeMap::new();
    for line in text.lines() {
        let line: serde_json::Value = serde_json::from_str(line).expect("an object");
        if line["log"] == table {
            let count = |key: &str| line[key].as_u64().expect("a count");
            let account = Account {
                attempted: count("attempted"),
                written: count("written"),
                lost: count("lost"),
                crashed: line["crashed"] == true,
            };
            let writer = line["writer"].as_str().expect("a writer").to_owned();
            assert_eq!(accounts.insert(writer, account), None, "a second account");
        }
    }
    accounts
}
