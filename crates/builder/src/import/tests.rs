use std::sync::Arc;

use arrow_array::builder::{Float32Builder, Int32Builder, ListBuilder, StringBuilder};
use arrow_array::{ArrayRef, RecordBatch};
use parquet::arrow::ArrowWriter;
use proptest::prelude::*;

use super::*;

fn vectors(rows: &[Option<&[f32]>]) -> ArrayRef {
    let mut lists = ListBuilder::new(Float32Builder::new());
    for row in rows {
        match row {
            Some(values) => {
                lists.values().append_slice(values);
                lists.append(true);
            }
            None => lists.append(false),
        }
    }
    Arc::new(lists.finish())
}

fn numbers(ids: &[i32]) -> ArrayRef {
    let mut column = Int32Builder::new();
    column.append_slice(ids);
    Arc::new(column.finish())
}

fn texts(ids: &[&str]) -> ArrayRef {
    let mut column = StringBuilder::new();
    ids.iter().for_each(|id| column.append_value(id));
    Arc::new(column.finish())
}

fn parquet(ids: (&str, ArrayRef), vectors: (&str, ArrayRef)) -> Vec<u8> {
    let batch = RecordBatch::try_from_iter([ids, vectors]).unwrap();
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut bytes, batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    bytes
}

fn files(factors: &Path) -> FactorFiles {
    FactorFiles {
        factors: factors.to_owned(),
        ids: None,
    }
}

/// The layout of `ALSModel.save`: parts in any number, beside files that are not data.
#[test]
fn a_model_that_spark_saved() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    for side in ["metadata", "itemFactors", "userFactors"] {
        fs_err::create_dir(at(side)).unwrap();
        fs_err::write(at(side).join("_SUCCESS"), b"").unwrap();
        fs_err::write(at(side).join(".part-00000.crc"), b"crc").unwrap();
    }
    let write = |name: &str, ids: &[i32], rows: &[Option<&[f32]>]| {
        fs_err::write(
            at(name),
            parquet(("id", numbers(ids)), ("features", vectors(rows))),
        )
        .unwrap();
    };
    write(
        "itemFactors/part-00001.parquet",
        &[10, 30],
        &[Some(&[5.0, 6.0]), Some(&[7.0, 8.0])],
    );
    write(
        "itemFactors/part-00000.parquet",
        &[20],
        &[Some(&[1.0, 2.0])],
    );
    write(
        "userFactors/part-00000.parquet",
        &[7],
        &[Some(&[0.5, 0.25])],
    );
    let (items, users) = spark(dir.path()).unwrap();
    fs_err::write(at("names.csv"), "number,id\n10,ten\n20,twenty\n30,thirty\n").unwrap();
    let mut log = Log::default();
    for (user, item) in [("a", "ten"), ("b", "ten"), ("a", "ten"), ("a", "unknown")] {
        log.user.push(log.users.insert(user).unwrap());
        log.item.push(log.items.insert(item).unwrap());
        log.count.push(2.0);
    }
    let model = import(&Import {
        items: FactorFiles {
            factors: items,
            ids: Some(at("names.csv")),
        },
        users: Some(files(&users)),
        listens: Some(&log),
        attributes: &Items::default(),
        hyper: Hyper::default(),
        command: "refrain import".into(),
    })
    .unwrap();
    assert_eq!(
        model.items.iter().collect::<Vec<_>>(),
        ["twenty", "ten", "thirty"]
    );
    assert_eq!(model.item_factors, [1.0, 2.0, 5.0, 6.0, 7.0, 8.0]);
    assert_eq!(model.users.iter().collect::<Vec<_>>(), ["7"]);
    assert_eq!(
        (model.item_listeners, model.item_plays),
        (vec![0, 2, 0], vec![0.0, 6.0, 0.0])
    );
    assert_eq!(model.info.rank, 2);
    assert!(spark(&at("metadata")).is_err());
}

#[test]
fn what_is_wrong_is_told_with_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("factors");
    let good: &[f32] = &[1.0, 2.0];
    let read = |bytes: Vec<u8>| {
        fs_err::write(&path, bytes).unwrap();
        read_factors(&files(&path)).map_err(|error| error.to_string())
    };
    let of =
        |ids: ArrayRef, rows: &[Option<&[f32]>]| parquet(("id", ids), ("features", vectors(rows)));
    assert_eq!(
        read(of(texts(&["a", "b"]), &[Some(good), Some(good)]))
            .unwrap()
            .ids,
        ["a", "b"]
    );
    for (bytes, expected) in [
        (
            of(texts(&["a", "b"]), &[Some(good), None]),
            "row 2: the vector is missing",
        ),
        (
            of(texts(&["a", "b"]), &[Some(good), Some(&[1.0])]),
            "row 2: 1 values, where the first vector has 2",
        ),
        (
            of(texts(&["a", "b"]), &[Some(good), Some(&[1.0, f32::NAN])]),
            "row 2: value 1 is NaN",
        ),
        (
            of(texts(&["a", "a"]), &[Some(good), Some(good)]),
            "row 2: id \"a\" was in row 1",
        ),
        (
            of(texts(&["a", ""]), &[Some(good), Some(good)]),
            "row 2: an id has 1 to 128 bytes",
        ),
        (
            of(texts(&["a"]), &[Some(&[])]),
            "row 1: vectors have 1 to 4096 values",
        ),
        (of(numbers(&[]), &[]), "there are no factors"),
        (
            of(numbers(&[1]), &[Some(&[0.0; 600])]),
            "rank 600, but at most 512",
        ),
        (
            parquet(("x", texts(&["a"])), ("y", texts(&["b"]))),
            "no column of ids",
        ),
        (
            parquet(("id", texts(&["a"])), ("y", texts(&["b"]))),
            "no column of vectors",
        ),
        (b"PAR1 and no more".to_vec(), "row 0"),
    ] {
        let error = read(bytes).unwrap_err();
        assert!(
            error.contains(expected),
            "{error:?} does not say {expected:?}"
        );
    }
    let names = dir.path().join("names");
    for (text, expected) in [
        ("1;a", "line 1: expected a number, a comma"),
        ("1,a\nx,b", "line 2: expected a whole number"),
        ("1,a\n1,b", "line 2: the number was on a line before"),
        ("2,a", "number 1 has no name"),
    ] {
        fs_err::write(&names, text).unwrap();
        fs_err::write(&path, of(numbers(&[1]), &[Some(good)])).unwrap();
        let files = FactorFiles {
            factors: path.clone(),
            ids: Some(names.clone()),
        };
        let error = read_factors(&files).unwrap_err().to_string();
        assert!(
            error.contains(expected),
            "{error:?} does not say {expected:?}"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// A file that was cut or changed anywhere is read or refused; nothing panics.
    #[test]
    fn a_damaged_file_is_factors_or_an_error(
        cut in any::<prop::sample::Index>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        whole in any::<bool>(),
    ) {
        let rows: Vec<Vec<f32>> = (0..20u8).map(|at| vec![f32::from(at), 1.0]).collect();
        let rows: Vec<Option<&[f32]>> = rows.iter().map(|row| Some(row.as_slice())).collect();
        let ids: Vec<i32> = (0..20).collect();
        let mut bytes = parquet(("id", numbers(&ids)), ("features", vectors(&rows)));
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if !whole {
            bytes.truncate(cut.index(bytes.len()));
        }
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("factors");
        fs_err::write(&path, bytes).unwrap();
        if let Ok(set) = read_factors(&files(&path)) {
            prop_assert_eq!(set.values.len(), set.ids.len() * set.dim);
            prop_assert!(set.values.iter().all(|value| value.is_finite()));
        }
    }

    #[test]
    fn any_bytes_are_factors_or_an_error(
        start in prop::sample::select(vec![&b"PAR1"[..], b"\x93NUMPY", b""]),
        bytes in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("factors");
        fs_err::write(&path, [start, &bytes].concat()).unwrap();
        let _ = read_factors(&files(&path));
    }
}
