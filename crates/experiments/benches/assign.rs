//! What an assignment costs, with many experiments loaded.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use refrain_experiments::{Config, Experiments, hash64};

criterion_group!(benches, assign, load);
criterion_main!(benches);

fn assign(c: &mut Criterion) {
    let experiments = compile(&many());
    let units: Vec<String> = (0..1024).map(|i| format!("listener-{i:08}")).collect();
    let mut next = 0;
    c.bench_function("assign, 250 experiments in 20 layers", |b| {
        b.iter(|| {
            next = (next + 1) % units.len();
            black_box(experiments.assign("surface 7", &units[next]))
        });
    });
    // All layers of one surface at once.
    let layers: Vec<_> = (0..20).map(|i| format!("'layer {i}'")).collect();
    let one = "[surface.default]\nlayer = 'layer 0'";
    let all = format!("[surface.default]\nlayer = [{}]", layers.join(", "));
    let text = many()
        .replace(one, &all)
        .replace("variant = 'balanced'\n", "");
    let experiments = compile(&text.replace("weight = 0.5\nvariant = 'plain'", "weight = 0.5"));
    c.bench_function("assign, 20 layers of one surface", |b| {
        b.iter(|| {
            next = (next + 1) % units.len();
            black_box(experiments.assign_further("", &units[next], &()))
        });
    });
    c.bench_function("hash64, 40 bytes", |b| {
        b.iter(|| hash64(black_box(b"E:experiment-number-7:1|listener-00000042")))
    });
}

fn load(c: &mut Criterion) {
    let text = many();
    c.bench_function("load 250 experiments in 20 layers", |b| {
        b.iter(|| compile(&text))
    });
}

fn compile(text: &str) -> Experiments {
    let config = Config::from_toml(text).expect("well-formed");
    Experiments::new(&config, &["plain", "balanced"]).expect("valid")
}

/// 20 layers, each with a surface, and 250 experiments that fill all but the last of them.
fn many() -> String {
    let mut text = String::from("[surface.default]\nlayer = 'layer 0'\nvariant = 'plain'\n");
    for i in 0..20 {
        text += &format!("[layer.'layer {i}']\nepoch = 1\n");
        text += &format!("[surface.'surface {i}']\nlayer = 'layer {i}'\nvariant = 'plain'\n");
    }
    for i in 0..250 {
        text += &format!(
            "[experiment.e{i}]\nkind = 'ab'\nlayer = 'layer {}'\nepoch = 1\nallocation_bp = 700\n",
            i % 20
        );
        for (name, variant) in [("control", "plain"), ("treatment", "balanced")] {
            text += &format!(
                "[[experiment.e{i}.arm]]\nname = '{name}'\nweight = 0.5\nvariant = '{variant}'\n"
            );
        }
    }
    text
}
