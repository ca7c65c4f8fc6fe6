use proptest::prelude::*;
use prost::Message as _;
use refrain_ranking::Model as _;

use super::*;
use crate::onnx::{
    AttributeProto, Dimension, GraphProto, ModelProto, NodeProto, TensorShape, TensorType,
    TypeProto, ValueInfoProto,
};

fn attribute(name: &str) -> AttributeProto {
    AttributeProto {
        name: name.to_owned(),
        ..AttributeProto::default()
    }
}

fn floats(name: &str, floats: &[f32]) -> AttributeProto {
    AttributeProto {
        floats: floats.to_vec(),
        ..attribute(name)
    }
}

fn ints(name: &str, ints: &[i64]) -> AttributeProto {
    AttributeProto {
        ints: ints.to_vec(),
        ..attribute(name)
    }
}

fn text(name: &str, text: &str) -> AttributeProto {
    AttributeProto {
        s: text.as_bytes().to_vec(),
        ..attribute(name)
    }
}

fn texts(name: &str, texts: &[&str]) -> AttributeProto {
    AttributeProto {
        strings: texts.iter().map(|text| text.as_bytes().to_vec()).collect(),
        ..attribute(name)
    }
}

/// A node that takes `x{at}` and gives `x{at + 1}`, a classifier the label before.
fn node(at: usize, operator: &str, attribute: Vec<AttributeProto>) -> NodeProto {
    let mut output = vec![format!("x{}", at + 1)];
    if operator.ends_with("Classifier") {
        output.insert(0, "label".to_owned());
    }
    NodeProto {
        input: vec![format!("x{at}")],
        output,
        op_type: operator.to_owned(),
        attribute,
    }
}

fn value(name: &str, element: i32, width: Option<i64>) -> ValueInfoProto {
    let dim = vec![Dimension { value: None }, Dimension { value: width }];
    ValueInfoProto {
        name: name.to_owned(),
        kind: Some(TypeProto {
            tensor: Some(TensorType {
                element,
                shape: Some(TensorShape { dim }),
            }),
        }),
    }
}

/// A chain of these operators.
fn model(width: i64, operators: Vec<(&str, Vec<AttributeProto>)>) -> ModelProto {
    let last = format!("x{}", operators.len());
    let nodes = operators.into_iter().enumerate();
    ModelProto {
        graph: Some(GraphProto {
            node: nodes
                .map(|(at, (operator, attributes))| node(at, operator, attributes))
                .collect(),
            input: vec![value("x0", 1, Some(width))],
            output: vec![value(&last, 1, None)],
        }),
    }
}

fn predict(model: &ModelProto, width: usize, rows: &[f32]) -> Vec<f32> {
    let model = OnnxModel::read(&model.encode_to_vec(), width).expect("a model");
    let mut values = Vec::new();
    model.predict(rows, &mut values);
    values
}

fn refusal(model: &ModelProto, width: usize) -> String {
    let read = OnnxModel::read(&model.encode_to_vec(), width);
    read.expect_err("refused").to_string()
}

fn close(values: &[f32], expected: &[f32]) {
    assert_eq!(values.len(), expected.len());
    for (value, expected) in values.iter().zip(expected) {
        assert!((value - expected).abs() < 1e-6, "{values:?}");
    }
}

/// Two trees over two features. The first asks for `x0 <= 0.5`, then for `x1 > 2`; the second is a leaf.
fn trees(prefix: &str, ids: &[i64; 4]) -> Vec<AttributeProto> {
    vec![
        ints("nodes_treeids", &[0, 0, 0, 0, 0, 1]),
        ints("nodes_nodeids", &[0, 1, 2, 3, 4, 0]),
        texts(
            "nodes_modes",
            &["BRANCH_LEQ", "LEAF", "BRANCH_GT", "LEAF", "LEAF", "LEAF"],
        ),
        ints("nodes_featureids", &[0, 0, 1, 0, 0, 0]),
        floats("nodes_values", &[0.5, 0.0, 2.0, 0.0, 0.0, 0.0]),
        ints("nodes_truenodeids", &[1, 0, 3, 0, 0, 0]),
        ints("nodes_falsenodeids", &[2, 0, 4, 0, 0, 0]),
        ints("nodes_missing_value_tracks_true", &[1, 0, 0, 0, 0, 0]),
        ints(&format!("{prefix}_treeids"), &[0, 0, 0, 1]),
        ints(&format!("{prefix}_nodeids"), &[1, 3, 4, 0]),
        ints(&format!("{prefix}_ids"), ids),
        floats(&format!("{prefix}_weights"), &[1.0, 2.0, -4.0, 0.25]),
    ]
}

fn forest(more: Vec<AttributeProto>) -> ModelProto {
    let mut attributes = trees("target", &[0; 4]);
    attributes.extend(more);
    model(2, vec![("TreeEnsembleRegressor", attributes)])
}

#[test]
fn linear_models_are_sums() {
    let regressor = vec![
        floats("coefficients", &[2.0, -1.0]),
        floats("intercepts", &[0.5]),
    ];
    let plain = model(2, vec![("LinearRegressor", regressor.clone())]);
    close(&predict(&plain, 2, &[1.0, 1.0, 3.0, 0.5]), &[1.5, 6.0]);
    // (x - offset) * scale, one scale for all.
    let scaled = model(
        2,
        vec![
            (
                "Scaler",
                vec![floats("offset", &[1.0, 2.0]), floats("scale", &[0.5])],
            ),
            ("LinearRegressor", regressor),
        ],
    );
    close(&predict(&scaled, 2, &[3.0, 4.0]), &[1.5]);

    let one = |x: f32| 1.0 / (1.0 + (-x).exp());
    let classes = ints("classlabels_ints", &[0, 1]);
    let two = vec![
        floats("coefficients", &[-1.0, 2.0]),
        floats("intercepts", &[0.0, 0.0]),
        text("post_transform", "LOGISTIC"),
        classes.clone(),
    ];
    let chain = model(
        1,
        vec![
            ("LinearClassifier", two),
            ("Normalizer", vec![text("norm", "L1")]),
            ("ZipMap", vec![]),
        ],
    );
    let (a, b) = (one(-0.7), one(1.4));
    close(&predict(&chain, 1, &[0.7]), &[b / (a + b)]);
    let single = vec![
        floats("coefficients", &[2.0]),
        text("post_transform", "SOFTMAX"),
        classes,
    ];
    let single = model(1, vec![("LinearClassifier", single)]);
    close(&predict(&single, 1, &[0.7]), &[one(1.4)]);
}

#[test]
fn trees_are_walked_and_added_up() {
    let rows = [0.5, 9.0, 0.6, 2.1, 0.6, 2.0, f32::NAN, 0.0];
    let sums = [1.25, 2.25, -3.75, 1.25];
    close(&predict(&forest(vec![]), 2, &rows), &sums);
    let based = forest(vec![floats("base_values", &[10.0])]);
    close(&predict(&based, 2, &rows), &sums.map(|sum| sum + 10.0));
    for (name, expected) in [
        ("AVERAGE", [0.625, 1.125, -1.875, 0.625]),
        ("MIN", [0.25, 0.25, -4.0, 0.25]),
        ("MAX", [1.0, 2.0, 0.25, 1.0]),
    ] {
        let forest = forest(vec![text("aggregate_function", name)]);
        close(&predict(&forest, 2, &rows), &expected);
    }
}

#[test]
fn the_probability_of_the_second_class_is_meant() {
    let one = |x: f32| 1.0 / (1.0 + (-x).exp());
    let classifier = |ids: [i64; 4], more: Vec<AttributeProto>| {
        let mut attributes = trees("class", &ids);
        attributes.push(ints("classlabels_int64s", &[0, 1]));
        attributes.extend(more);
        let model = model(2, vec![("TreeEnsembleClassifier", attributes)]);
        predict(&model, 2, &[0.5, 9.0, 0.6, 2.0])
    };
    // All leaves speak for one class: boosting, by the logistic function of the sum.
    let boosted = vec![
        text("post_transform", "LOGISTIC"),
        floats("base_values", &[0.5]),
    ];
    close(&classifier([0; 4], boosted), &[one(1.75), one(-3.25)]);
    // Each class has its own: a forest of shares.
    close(&classifier([0, 1, 0, 1], vec![]), &[0.25, 0.25]);
    let softmax = vec![text("post_transform", "SOFTMAX")];
    close(&classifier([0, 1, 0, 1], softmax), &[one(-0.75), one(4.25)]);
}

#[test]
fn what_is_no_such_model_is_refused_with_its_place() {
    let good = forest(vec![]);
    let change = |change: &dyn Fn(&mut GraphProto)| {
        let mut changed = good.clone();
        change(changed.graph.as_mut().expect("there"));
        refusal(&changed, 2)
    };
    let put = |new: AttributeProto| {
        change(&|graph| {
            let attributes = &mut graph.node[0].attribute;
            attributes.retain(|old| old.name != new.name);
            attributes.push(new.clone());
        })
    };
    let cases = [
        (refusal(&good, 3), "takes 2 inputs, model_features names 3"),
        (refusal(&ModelProto { graph: None }, 2), "there is no graph"),
        (
            change(&|graph| graph.node[0].op_type = "Gemm".to_owned()),
            "node 0: operator Gemm is none of LinearRegressor, ",
        ),
        (
            change(&|graph| graph.node[0].input.push("w".to_owned())),
            "node 0: operator TreeEnsembleRegressor",
        ),
        (
            change(&|graph| graph.input.push(value("y", 1, None))),
            "2 inputs, not one",
        ),
        (
            change(&|graph| graph.input[0] = value("x0", 11, None)),
            "single precision",
        ),
        (change(&|graph| graph.output.clear()), "no output"),
        (
            change(&|graph| graph.output[0].name = "y".to_owned()),
            "nothing gives \"y\"",
        ),
        (
            change(&|graph| graph.node[0].input[0] = "x1".to_owned()),
            "more than 16 nodes",
        ),
        (
            put(ints("nodes_featureids", &[0, 0, 2, 0, 0, 0])),
            "node 0 (TreeEnsembleRegressor), nodes_featureids: node 2 asks for 2 of 2",
        ),
        (
            put(ints("nodes_truenodeids", &[1, 0, 7, 0, 0, 0])),
            "nodes_truenodeids: tree 0 has no node 7",
        ),
        (
            put(ints("nodes_truenodeids", &[1, 0, 0, 0, 0, 0])),
            "do not form trees",
        ),
        (
            put(ints("nodes_falsenodeids", &[1, 0, 4, 0, 0, 0])),
            "do not form trees",
        ),
        (
            put(ints("nodes_nodeids", &[0, 1, 2, 3, 3, 0])),
            "tree 0 has node 3 twice",
        ),
        (
            put(floats("nodes_values", &[0.5])),
            "nodes_values: 1 values for 6 nodes",
        ),
        (
            put(floats("target_weights", &[1.0, f32::NAN, 0.0, 0.0])),
            "target_weights: value 1 is not finite",
        ),
        (
            put(ints("target_nodeids", &[1, 3, 2, 0])),
            "target_weights: value 2: node 2 of tree 0 is no leaf",
        ),
        (put(ints("target_ids", &[0, 0, 1, 0])), "value 2 is 1"),
        (
            put(texts(
                "nodes_modes",
                &["LEAF", "LEAF", "LEAF", "LEAF", "LEAF", "MEMBER"],
            )),
            "node 5 is \"MEMBER\"",
        ),
        (
            put(text("aggregate_function", "MEDIAN")),
            "none of SUM, AVERAGE",
        ),
        (put(text("post_transform", "PROBIT")), "none of NONE"),
        (
            put(floats("nodes_values_as_tensor", &[])),
            "double precision",
        ),
        (
            put(floats("base_values", &[1.0, 2.0])),
            "2 values do not fit",
        ),
    ];
    for (message, expected) in cases {
        assert!(message.contains(expected), "no {expected:?} in {message:?}");
    }
    let classes = vec![
        floats("coefficients", &[1.0, 1.0]),
        ints("classlabels_ints", &[0, 1, 2]),
    ];
    let message = refusal(&model(1, vec![("LinearClassifier", classes)]), 1);
    assert!(message.contains("3 classes"), "{message}");
    let wide = vec![floats("coefficients", &[1.0, 1.0, 1.0])];
    let message = refusal(&model(2, vec![("LinearRegressor", wide)]), 2);
    assert!(message.contains("coefficients: 3 values"), "{message}");
}

#[test]
fn a_file_is_read_whole_or_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("model.onnx");
    let bytes = forest(vec![]).encode_to_vec();
    fs_err::write(&file, &bytes).expect("writable");
    let loaded = load(&file, 2).expect("a model");
    assert_eq!(loaded.digest.len(), 64);
    for cut in 0..bytes.len() {
        assert!(OnnxModel::read(&bytes[..cut], 2).is_err(), "{cut}");
    }
    let error = load(&folder.path().join("none"), 2).expect_err("missing");
    assert!(error.to_string().contains("none"), "{error}");
    let large = fs_err::File::create(&file).expect("writable");
    large.set_len(MAX_BYTES + 1).expect("sparse");
    assert!(matches!(load(&file, 2), Err(ModelError::TooLarge)));
}

proptest! {
    /// Whatever is in a file: it is refused, or gives a number for every row.
    #[test]
    fn damaged_files_do_no_harm(
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        row in prop::collection::vec(any::<f32>(), 2),
    ) {
        let mut bytes = forest(vec![floats("base_values", &[1.0])]).encode_to_vec();
        for (at, byte) in flips {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Ok(model) = OnnxModel::read(&bytes, 2) {
            let mut values = Vec::new();
            model.predict(&row, &mut values);
            prop_assert_eq!(values.len(), 1);
        }
    }
}
