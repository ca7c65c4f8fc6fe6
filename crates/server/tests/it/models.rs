//! A variant that ranks by a model from a file.

use refrain::v1;
use refrain::v1::experiment_service_client::ExperimentServiceClient;
use refrain_server::Config;

use crate::dark::ask;
use crate::fixture::{Running, World};

/// A field of a protobuf message: bytes of any length below 128, with their number before them.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let length = u8::try_from(bytes.len()).expect("short");
    assert!(length < 128 && number < 16);
    [&[number << 3 | 2, length], bytes].concat()
}

/// `LinearRegressor` without an intercept, in ONNX.
fn linear(coefficients: &[f32]) -> Vec<u8> {
    let values: Vec<u8> = coefficients
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect();
    let attribute = [field(1, b"coefficients"), field(7, &values)].concat();
    let node = [
        field(1, b"x"),
        field(2, b"y"),
        field(4, b"LinearRegressor"),
        field(5, &attribute),
    ]
    .concat();
    // A tensor of elements of type 1, single precision.
    let kind = field(1, &[1 << 3, 1]);
    let input = [field(1, b"x"), field(2, &kind)].concat();
    let graph = [
        field(1, &node),
        field(11, &input),
        field(12, &field(1, b"y")),
    ]
    .concat();
    field(7, &graph)
}

const VARIANTS: &str = "
[variant.plain]
score = 'similarity'
[variant.judged]
score = '2 * model'
model = 'judge.onnx'
model_features = ['similarity', 'popularity']
[variant.by_hand]
score = '2 * (similarity + 5 * popularity)'
";

#[tokio::test]
async fn a_model_ranks_as_the_same_sum_does() {
    let world = World::new();
    world.publish(1);
    let at = |name: &str| world.dir.path().join(name);
    fs_err::write(at("refrain.toml"), VARIANTS).expect("writable");
    fs_err::write(at("judge.onnx"), linear(&[1.0, 5.0])).expect("writable");
    let read = Config::load(&at("refrain.toml")).expect("valid");
    let mut config = world.config();
    config.variants = read.variants;
    config.experiments = read.experiments;
    let server = Running::start(config).await;
    let mut client = ExperimentServiceClient::new(server.channel.clone());
    let request = v1::CompareVariantsRequest {
        request: Some(ask(3, "")),
        variants: ["by_hand", "judged", "plain"].map(str::to_owned).to_vec(),
    };
    let answer = client.compare_variants(request).await.expect("an answer");
    let answer = answer.into_inner();
    let [by_hand, judged, plain] = answer.variants.as_slice() else {
        panic!("{answer:?}");
    };
    assert_eq!((judged.overlap, judged.moves.len()), (1.0, 0));
    assert!(judged.missing_features.is_empty() && judged.degraded.is_empty());
    for (a, b) in by_hand.results.iter().zip(&judged.results) {
        assert_eq!(a.item_id, b.item_id);
        assert!((a.score - b.score).abs() < 1e-5, "{a:?} {b:?}");
    }
    let ids = |of: &v1::VariantResult| -> Vec<String> {
        of.results
            .iter()
            .map(|result| result.item_id.clone())
            .collect()
    };
    assert_ne!(ids(plain), ids(judged), "or there would be nothing to see");
    server.stop().await.expect("stops");
}

#[test]
fn a_model_that_does_not_hold_is_refused_on_its_line() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name);
    fs_err::write(at("refrain.toml"), VARIANTS).expect("writable");
    let load = || Config::load(&at("refrain.toml"));
    let refused = |words: &str| {
        let error = load().expect_err("refused").to_string();
        for words in ["refrain.toml", "line 6: variant.judged.model: ", words] {
            assert!(error.contains(words), "no {words:?} in {error}");
        }
    };
    refused("judge.onnx");
    fs_err::write(at("judge.onnx"), &linear(&[1.0, 0.5])[..40]).expect("writable");
    refused("not a model in ONNX");
    fs_err::write(at("judge.onnx"), linear(&[1.0, 0.5, 0.25])).expect("writable");
    refused("coefficients: 3 values, not 2 features times 1");
    // What is ranked with is in the digest, under whatever name.
    let digest = |coefficients: &[f32]| {
        fs_err::write(at("judge.onnx"), linear(coefficients)).expect("writable");
        load().expect("valid").variants.canonical()
    };
    assert_ne!(digest(&[1.0, 0.5]), digest(&[1.0, 0.25]));
}
