//! What was served and what came of it is in the log, for others to read.

use std::collections::BTreeSet;
use std::path::Path;

use arrow_array::RecordBatch;
use arrow_array::cast::AsArray as _;
use arrow_array::types::Float64Type;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use refrain::v1;
use refrain::v1::feedback_service_client::FeedbackServiceClient;
use refrain::v1::recommendation_service_client::RecommendationServiceClient;
use tonic::Code;

use crate::fixture::{Running, World, item};

fn outcome(unit: &str, event: &str, value: f64) -> v1::Outcome {
    v1::Outcome {
        unit_id: unit.into(),
        event: event.into(),
        value,
        event_time: Some(prost_types::Timestamp {
            seconds: 1_790_000_000,
            nanos: 0,
        }),
        ..v1::Outcome::default()
    }
}

pub(crate) fn recommend(user: &str, request: &str) -> v1::RecommendRequest {
    v1::RecommendRequest {
        request_id: request.into(),
        subject: Some(v1::recommend_request::Subject::UserId(user.into())),
        page_size: Some(5),
        ..v1::RecommendRequest::default()
    }
}

/// The files of a table, opened.
fn files(log: &Path, table: &str) -> Vec<ParquetRecordBatchReaderBuilder<std::fs::File>> {
    let mut files = Vec::new();
    for day in fs_err::read_dir(log.join(table)).expect("a folder") {
        for file in fs_err::read_dir(day.expect("an entry").path()).expect("a day") {
            let file = fs_err::File::open(file.expect("an entry").path()).expect("a file");
            files
                .push(ParquetRecordBatchReaderBuilder::try_new(file.into_file()).expect("Parquet"));
        }
    }
    files
}

pub(crate) fn read(log: &Path, table: &str) -> Vec<RecordBatch> {
    let readers = files(log, table).into_iter();
    let readers = readers.map(|file| file.build().expect("readable"));
    readers
        .flat_map(|reader| reader.map(|batch| batch.expect("readable")))
        .collect()
}

/// What the footers of a table's files say under a key.
pub(crate) fn footers(log: &Path, table: &str, key: &str) -> Vec<String> {
    let values = files(log, table).into_iter().flat_map(|file| {
        let pairs = file.metadata().file_metadata().key_value_metadata();
        pairs.cloned().unwrap_or_default()
    });
    let values = values.filter(|pair| pair.key == key);
    values.filter_map(|pair| pair.value).collect()
}

pub(crate) fn texts(batches: &[RecordBatch], column: &str) -> Vec<String> {
    let columns = batches
        .iter()
        .map(|b| b.column_by_name(column).expect("there").as_string::<i32>());
    columns
        .flat_map(|c| c.iter().map(|text| text.unwrap_or_default().to_owned()))
        .collect()
}

#[tokio::test]
async fn served_answers_and_reported_outcomes_are_in_the_log() {
    let world = World::new();
    world.publish(1);
    let log = world.dir.path().join("log");
    let mut config = world.config();
    config.exposures.path = Some(log.clone());
    let server = Running::start(config.clone()).await;
    let mut client = RecommendationServiceClient::new(server.channel.clone());
    let mut answers = Vec::new();
    for i in 0..40 {
        let request = recommend(&format!("u{i}"), &format!("r{i}"));
        answers.push(
            client
                .recommend(request)
                .await
                .expect("answers")
                .into_inner(),
        );
    }
    // The same request again is another row of the same exposure.
    client
        .recommend(recommend("u0", "r0"))
        .await
        .expect("answers");
    // What fails is no exposure.
    client
        .recommend(v1::RecommendRequest::default())
        .await
        .expect_err("no subject");

    let mut feedback = FeedbackServiceClient::new(server.channel.clone());
    let report = v1::ReportOutcomesRequest {
        outcomes: vec![
            outcome("u1", "click", 1.0),
            outcome("u1", "listen_minutes", 3.5),
            outcome("u1", "click", 1.0),
        ],
    };
    let first = feedback
        .report_outcomes(report.clone())
        .await
        .expect("durable")
        .into_inner();
    assert_eq!((first.accepted, first.duplicates), (2, 1));
    let again = feedback
        .report_outcomes(report)
        .await
        .expect("durable")
        .into_inner();
    assert_eq!((again.accepted, again.duplicates), (0, 3));
    let bad = v1::ReportOutcomesRequest {
        outcomes: vec![outcome("u1", "", f64::NAN)],
    };
    let refused = feedback.report_outcomes(bad).await.expect_err("is wrong");
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert!(
        refused.message().contains("outcomes[0]"),
        "{}",
        refused.message()
    );
    server.stop().await.expect("stops");

    let exposures = read(&log, "exposures");
    let units = texts(&exposures, "unit_id");
    assert_eq!(units.len(), 41);
    let (arms, reasons) = (texts(&exposures, "variant"), texts(&exposures, "reason"));
    let requests = texts(&exposures, "request_id");
    for (at, answer) in answers.iter().enumerate() {
        let row = requests
            .iter()
            .position(|r| *r == format!("r{at}"))
            .expect("logged");
        let served_by = answer.served_by.clone().expect("said");
        assert_eq!(
            (units[row].as_str(), &arms[row]),
            (format!("u{at}").as_str(), &served_by.arm)
        );
        // Nobody has a profile here: popularity answered, which is no evidence for an arm.
        assert_eq!(reasons[row], "DEGRADED");
    }
    let ids: BTreeSet<Vec<u8>> = exposures
        .iter()
        .flat_map(|b| {
            let ids = b
                .column_by_name("exposure_id")
                .expect("there")
                .as_fixed_size_binary();
            ids.iter().flatten().map(<[u8]>::to_vec).collect::<Vec<_>>()
        })
        .collect();
    assert_eq!(ids.len(), 40, "a retry has the id of the first");
    let first_id: Vec<u8> = (0..16)
        .map(|i| u8::from_str_radix(&answers[0].exposure_id[2 * i..2 * i + 2], 16).expect("hex"))
        .collect();
    assert!(ids.contains(&first_id));
    let items = exposures[0]
        .column_by_name("items")
        .expect("there")
        .as_list::<i32>();
    assert_eq!(items.value(0).len(), 5);
    assert!(!item(0).is_empty());

    let outcomes = read(&log, "outcomes");
    let events: BTreeSet<String> = texts(&outcomes, "event").into_iter().collect();
    assert_eq!(
        events,
        BTreeSet::from(["click".to_owned(), "listen_minutes".to_owned()])
    );
    let values = outcomes[0]
        .column_by_name("value")
        .expect("there")
        .as_primitive::<Float64Type>();
    assert_eq!(values.values().iter().sum::<f64>(), 4.5);
    assert_eq!(refrain_server::seen_events(&log).expect("reads"), events);
}

#[tokio::test]
async fn without_a_log_outcomes_are_refused() {
    let world = World::new();
    world.publish(1);
    let server = world.serve().await;
    let mut feedback = FeedbackServiceClient::new(server.channel.clone());
    let report = v1::ReportOutcomesRequest {
        outcomes: vec![outcome("u1", "click", 1.0)],
    };
    let refused = feedback
        .report_outcomes(report)
        .await
        .expect_err("nowhere to go");
    assert_eq!(refused.code(), Code::FailedPrecondition);
    server.stop().await.expect("stops");
}
