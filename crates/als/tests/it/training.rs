use crate::{grouped_log, oracle, small_hyper};
use refrain_als::{
    Confidence, Factors, FoldIn, FoldInScratch, Hyper, Interactions, ParentFactors, ParentRows,
    Progress, TrainError, Trainer, gram, train,
};
use std::sync::Mutex;

/// Every pass lowers the objective, finishing lowers it further, and the passes lead to where solving every
/// row exactly, in double precision and from the same start, leads.
#[test]
fn passes_lower_the_objective_as_exact_ones_do() {
    let data = grouped_log(80, 50, 1);
    for rank in [6, 32] {
        let hyper = Hyper {
            rank,
            ..small_hyper()
        };
        let objective =
            |factors: &Factors| oracle::objective(&hyper, &data, &factors.users, &factors.items);
        let mut trainer = Trainer::new(&data, &hyper, 1).unwrap();
        let mut exact = trainer.factors().clone();
        let mut last = f64::INFINITY;
        for pass in 1..=8 {
            trainer.step(&()).unwrap();
            let whole = objective(trainer.factors());
            assert!(
                whole <= last * (1.0 + 1e-6),
                "rank {rank}, pass {pass}: {whole} > {last}"
            );
            let finished = objective(&trainer.finished().unwrap());
            assert!(finished <= whole * (1.0 + 1e-6), "{finished} > {whole}");
            last = whole;
            oracle::pass(&hyper, &data, &mut exact);
            let ratio = finished / objective(&exact);
            assert!(
                (0.99..1.01).contains(&ratio),
                "rank {rank}, pass {pass}: {ratio} of exact passes"
            );
        }
    }
}

#[test]
fn user_rows_minimise_the_objective() {
    let data = grouped_log(30, 20, 2);
    let hyper = small_hyper();
    let factors = train(&data, &hyper, 1, &()).unwrap();
    for (user, row) in (0..).zip(factors.users.chunks_exact(hyper.rank)) {
        let (items, strengths) = data.user(user);
        let evidence: Vec<_> = items.iter().copied().zip(strengths.iter()).collect();
        let exact = oracle::solve(&hyper, &factors.items, &evidence);
        for (&x, &y) in row.iter().zip(&exact) {
            assert!(
                (f64::from(x) - y).abs() < 1e-4,
                "user {user}: {row:?} {exact:?}"
            );
        }
    }
}

#[test]
fn a_trained_user_equals_the_fold_in_of_their_history_bit_for_bit() {
    let data = grouped_log(300, 90, 3);
    for rank in [5, 16, 32, 64] {
        let hyper = Hyper {
            rank,
            ..small_hyper()
        };
        let factors = train(&data, &hyper, 2, &()).unwrap();
        let fold_in = FoldIn::new(rank, 90, gram(&factors.items, rank, 1), &hyper).unwrap();
        let (mut scratch, mut out) = (FoldInScratch::default(), Vec::new());
        for (user, row) in (0..).zip(factors.users.chunks_exact(rank)) {
            let (items, strengths) = data.user(user);
            let evidence: Vec<_> = items.iter().copied().zip(strengths.iter()).collect();
            fold_in
                .solve(&factors.items, &evidence, &mut scratch, &mut out)
                .unwrap();
            assert_eq!(out, row, "user {user} at rank {rank}");
        }
    }
}

#[test]
fn the_same_bits_at_any_thread_count() {
    let data = grouped_log(700, 300, 4);
    let hyper = Hyper {
        rank: 17,
        ..small_hyper()
    };
    let one = train(&data, &hyper, 1, &()).unwrap();
    for threads in [2, 3, 7] {
        assert_eq!(
            one,
            train(&data, &hyper, threads, &()).unwrap(),
            "{threads} threads"
        );
    }
    assert_ne!(
        one,
        train(&data, &Hyper { seed: 12, ..hyper }, 1, &()).unwrap()
    );
}

/// Pinned, so that every machine and every SIMD level (`REFRAIN_SIMD`) that runs this test proves
/// to compute the same bits. Linear confidence and an exponent of 1, because logarithms and powers
/// are the platform's own.
#[test]
fn the_same_bits_on_every_machine() {
    let hyper = Hyper {
        rank: 64,
        confidence: Confidence::Linear,
        frequency_exponent: 1.0,
        ..small_hyper()
    };
    let factors = train(&grouped_log(200, 120, 6), &hyper, 2, &()).unwrap();
    let digest = factors
        .users
        .iter()
        .chain(&factors.items)
        .fold(0u64, |digest, value| {
            (digest ^ u64::from(value.to_bits())).wrapping_mul(0x0000_0100_0000_01b3)
        });
    assert_eq!(digest, 6_994_796_636_614_361_123);
}

#[test]
fn users_and_items_without_interactions_are_zero() {
    let data =
        Interactions::from_triplets(4, 5, vec![(1, 2, 3.0), (3, 0, 1.0), (3, 2, 1e9)]).unwrap();
    let factors = train(&data, &small_hyper(), 2, &()).unwrap();
    let is_zero = |rows: &[f32], row: usize| rows[row * 6..][..6].iter().all(|&x| x == 0.0);
    let zero_users: Vec<_> = (0..4).filter(|&u| is_zero(&factors.users, u)).collect();
    let zero_items: Vec<_> = (0..5).filter(|&i| is_zero(&factors.items, i)).collect();
    assert_eq!((zero_users, zero_items), (vec![0, 2], vec![1, 3, 4]));
    assert!(
        factors
            .users
            .iter()
            .chain(&factors.items)
            .all(|x| x.is_finite())
    );
}

#[test]
fn one_user_and_one_item_are_enough() {
    let data = Interactions::from_triplets(1, 1, vec![(0, 0, 1.0)]).unwrap();
    let hyper = Hyper {
        rank: 1,
        iterations: 20,
        ..small_hyper()
    };
    let factors = train(&data, &hyper, 1, &()).unwrap();
    assert!((factors.users[0] * factors.items[0]) > 0.5);
}

#[test]
fn errors_say_what_is_wrong() {
    let empty = Interactions::from_triplets(3, 3, vec![]).unwrap();
    assert!(matches!(
        train(&empty, &small_hyper(), 1, &()),
        Err(TrainError::Empty)
    ));
    let data = grouped_log(5, 8, 1);
    let hyper = Hyper {
        rank: 0,
        ..small_hyper()
    };
    assert!(matches!(
        train(&data, &hyper, 1, &()),
        Err(TrainError::Hyper(_))
    ));
    // Confidences beyond what even double precision can put beside the regularisation.
    let hyper = Hyper {
        alpha: 1e30,
        unobserved_weight: 0.0,
        regularization: 1e-30,
        frequency_exponent: 0.0,
        ..small_hyper()
    };
    let first = train(&data, &hyper, 1, &()).unwrap_err().to_string();
    assert!(
        first.starts_with("the normal equations of item "),
        "{first}"
    );
    assert_eq!(first, train(&data, &hyper, 3, &()).unwrap_err().to_string());
}

/// Also where every row is solved a second time, exactly, because single precision failed one.
#[test]
fn progress_ends_at_its_total() {
    struct Calls(Mutex<Vec<(u64, u64)>>);
    impl Progress for Calls {
        fn advance(&self, done: u64, total: u64) {
            self.0.lock().unwrap().push((done, total));
        }
    }
    let usual = (grouped_log(130, 70, 1), small_hyper());
    for (data, hyper) in [usual, beyond_single_precision()] {
        let calls = Calls(Mutex::new(Vec::new()));
        train(&data, &hyper, 2, &calls).unwrap();
        let calls = calls.0.into_inner().unwrap();
        // Three passes: the users of the first are those that end it.
        let (users, items) = (u64::from(data.users()), u64::from(data.items()));
        let total = 3 * (users + items);
        assert!(calls.iter().all(|&(done, t)| done <= t && t == total));
        assert_eq!(calls.iter().map(|call| call.0).max(), Some(total));
    }
}

/// Each confidence fits single precision, two of them do not.
fn beyond_single_precision() -> (Interactions, Hyper) {
    let triplets = (0..40)
        .flat_map(|user| (0..6).map(move |n| (user, (user * 7 + n * n) % 30, 1.0)))
        .collect();
    let hyper = Hyper {
        rank: 1,
        alpha: 3e38,
        confidence: Confidence::Linear,
        ..small_hyper()
    };
    (
        Interactions::from_triplets(40, 30, triplets).unwrap(),
        hyper,
    )
}

/// Between any two iterations a run may stop: the factors are all that it goes on from. Nor does it matter
/// whether somebody looked at what it would come to.
#[test]
fn a_resumed_run_ends_in_the_same_bytes() {
    let data = grouped_log(60, 40, 3);
    let hyper = Hyper {
        iterations: 5,
        ..small_hyper()
    };
    let whole = train(&data, &hyper, 2, &()).unwrap();
    for stop in 1..5 {
        let mut first = Trainer::new(&data, &hyper, 1).unwrap();
        while first.iteration() < stop {
            first.step(&()).unwrap();
        }
        let mut second = Trainer::new(&data, &hyper, 3).unwrap();
        let Factors { users, items, .. } = first.factors().clone();
        second.resume(stop, users, items).unwrap();
        while second.iteration() < hyper.iterations {
            second.step(&()).unwrap();
            second.finished().unwrap();
        }
        let ended = second.finish(None, &()).unwrap();
        assert_eq!(ended, whole, "stopped after {stop}");
    }
    let mut other = Trainer::new(&data, &hyper, 1).unwrap();
    let items = other.factors().items.clone();
    let wrong = other.resume(1, vec![0.0; 3], items).unwrap_err();
    assert!(matches!(wrong, TrainError::Shape { got: 3, .. }), "{wrong}");
}

#[test]
fn a_reference_of_another_shape_is_refused() {
    let data = grouped_log(120, 60, 4);
    let hyper = small_hyper();
    let trainer = Trainer::new(&data, &hyper, 1).unwrap();
    let Factors { users, items, .. } = trainer.factors().clone();
    let (one_less, as_many) = (all(data.items() - 1), all(data.users()));
    let wrong = ParentRows::new(&one_less, &items);
    let error = trainer.finish(Some(wrong), &()).unwrap_err();
    assert!(
        matches!(error, TrainError::Shape { got: 59, .. }),
        "{error}"
    );
    let users = ParentRows::new(&as_many, &users);
    let known_factors = ParentFactors {
        users,
        items: wrong,
    };
    let error = Trainer::warm(&data, &hyper, 1, &known_factors).unwrap_err();
    assert!(
        matches!(error, TrainError::Shape { got: 59, .. }),
        "{error}"
    );
}

/// Places of as many rows of a parent, none of them new.
fn all(rows: u32) -> Vec<Option<u32>> {
    (0..rows).map(Some).collect()
}

/// Rows so heavy that single precision cannot carry them are solved exactly instead.
#[test]
fn a_row_beyond_single_precision_is_solved_all_the_same() {
    let (data, hyper) = beyond_single_precision();
    let mut trainer = Trainer::new(&data, &hyper, 2).unwrap();
    let mut exact = trainer.factors().clone();
    oracle::pass(&hyper, &data, &mut exact);
    trainer.step(&()).unwrap();
    assert!(trainer.moved().is_nan(), "single precision was enough");
    let factors = trainer.finish(None, &()).unwrap();
    let pairs = [
        (&factors.users, &exact.users),
        (&factors.items, &exact.items),
    ];
    for (ours, exact) in pairs {
        for (x, y) in ours.iter().zip(exact) {
            assert!((x - y).abs() <= 1e-4 * y.abs(), "{x}, exact {y}");
        }
    }
}

/// How far a pass moved the items falls as training settles, is the same at any thread count and after a
/// stop, and at rank 1, where turning is nothing, by the definition.
#[test]
fn passes_move_the_items_less_and_less() {
    let data = grouped_log(120, 60, 4);
    for rank in [1, 6] {
        let hyper = Hyper {
            rank,
            ..small_hyper()
        };
        let mut one = Trainer::new(&data, &hyper, 1).unwrap();
        let mut many = Trainer::new(&data, &hyper, 3).unwrap();
        let mut moved = Vec::new();
        for pass in 0..8 {
            let before = one.factors().clone();
            one.step(&()).unwrap();
            let pairs = || before.items.iter().zip(&one.factors().items);
            let difference: f64 = pairs()
                .map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2))
                .sum();
            let norm: f64 = pairs().map(|(_, b)| f64::from(*b).powi(2)).sum();
            let expected = (difference / norm).sqrt();
            assert!(rank > 1 || (one.moved() - expected).abs() < 1e-9 * expected);
            if pass == 4 {
                many = Trainer::new(&data, &hyper, 2).unwrap();
                many.resume(pass, before.users, before.items).unwrap();
            }
            many.step(&()).unwrap();
            assert_eq!(one.moved().to_bits(), many.moved().to_bits(), "pass {pass}");
            moved.push(one.moved());
        }
        assert!(moved[7] < 0.2 * moved[1], "{moved:?}");
    }
}

/// The first pass from a parent leaves its users as they are, whatever they have heard since, and solves who is new to it by
/// its items, exactly; who has heard nothing becomes zero. Where listens were taken away it improves all. What a pass turns
/// leaves products of users what they are.
#[test]
fn the_first_pass_from_a_parent_solves_who_is_new_to_it() {
    let data = grouped_log(120, 60, 4);
    let hyper = small_hyper();
    let rank = hyper.rank;
    let parent = train(&data, &hyper, 1, &()).unwrap();
    let (new, silent) = ([5, 77], 9);
    let mut users = parent.users.clone();
    for user in new {
        users[user * rank..][..rank].fill(0.0);
    }
    // Nobody would come to this of themselves: whoever improves the users takes it back.
    users[..rank].copy_from_slice(&parent.users[rank..2 * rank]);
    let triplets = (0..data.users()).filter(|&user| user != silent);
    let triplets = triplets.flat_map(|user| {
        let (items, strengths) = data.user(user);
        let pairs = items.iter().zip(strengths.iter());
        pairs.map(move |(&item, strength)| (user, item, strength))
    });
    let data = Interactions::from_triplets(data.users(), data.items(), triplets.collect()).unwrap();
    let mut known = all(data.users());
    for user in new {
        known[user] = None;
    }
    let known_items = all(data.items());
    let known_factors = ParentFactors {
        users: ParentRows::new(&known, &users),
        items: ParentRows::new(&known_items, &parent.items),
    };
    let start = || Trainer::warm(&data, &hyper, 2, &known_factors).unwrap();
    let mut child = start();
    child.step(&()).unwrap();
    // In a model, who is new is the exact solution already.
    let mut expected = users.clone();
    for user in new {
        expected[user * rank..][..rank].copy_from_slice(&parent.users[user * rank..][..rank]);
    }
    expected[silent as usize * rank..][..rank].fill(0.0);
    let product = |users: &[f32], one: usize, other: usize| -> f32 {
        let (x, y) = (&users[one * rank..][..rank], &users[other * rank..][..rank]);
        x.iter().zip(y).map(|(a, b)| a * b).sum()
    };
    for one in [0, 1, 5, 9, 40, 77] {
        for other in [0, 5, 77, 119] {
            let now = product(&child.factors().users, one, other);
            let expected = product(&expected, one, other);
            let slack = 1e-4 * (1.0 + expected.abs());
            assert!(
                (now - expected).abs() < slack,
                "{one} {other}: {now} {expected}"
            );
        }
    }
    let mut forgetting = start().forgetting();
    forgetting.step(&()).unwrap();
    let (now, of_another) = (
        product(&forgetting.factors().users, 0, 0),
        product(&expected, 0, 0),
    );
    assert!(
        (now - of_another).abs() > 0.05 * of_another,
        "{now} {of_another}"
    );
}

/// A child of a few passes fits as well as a training from nothing, its vectors lie near the parent's,
/// and turning them there changes no score.
#[test]
fn a_warm_start_is_soon_as_good_and_stays_where_the_parent_was() {
    let data = grouped_log(120, 60, 4);
    let hyper = Hyper {
        iterations: 12,
        ..small_hyper()
    };
    let rank = hyper.rank;
    let parent = train(&data, &hyper, 1, &()).unwrap();
    // Ten items and seven users are new to the child.
    let (mut users, mut items) = (all(data.users()), all(data.items()));
    users[..7].fill(None);
    items[..10].fill(None);
    let users = ParentRows::new(&users, &parent.users);
    let known = ParentRows::new(&items, &parent.items);
    let known_factors = ParentFactors {
        users,
        items: known,
    };
    let mut child = Trainer::warm(&data, &hyper, 1, &known_factors).unwrap();
    child.step(&()).unwrap();
    child.step(&()).unwrap();
    let before = child.finished().unwrap();
    let after = child.finish(Some(known), &()).unwrap();
    let objective =
        |factors: &Factors| oracle::objective(&hyper, &data, &factors.users, &factors.items);
    let (cold, warm) = (objective(&parent), objective(&after));
    assert!(warm < 1.02 * cold, "{warm} against {cold}");
    let score = |factors: &Factors, user: usize, item: usize| -> f32 {
        let (x, y) = (
            &factors.users[user * rank..][..rank],
            &factors.items[item * rank..][..rank],
        );
        x.iter().zip(y).map(|(a, b)| a * b).sum()
    };
    for (user, item) in [(0, 0), (3, 17), (119, 59)] {
        let (a, b) = (score(&before, user, item), score(&after, user, item));
        assert!((a - b).abs() < 1e-3, "{a} {b}");
    }
    let distance = |items: &[f32]| -> f32 {
        let pairs = items[10 * rank..].iter().zip(&parent.items[10 * rank..]);
        pairs.map(|(a, b)| (a - b) * (a - b)).sum::<f32>().sqrt()
    };
    let size = parent
        .items
        .iter()
        .map(|value| value * value)
        .sum::<f32>()
        .sqrt();
    assert!(distance(&after.items) <= distance(&before.items));
    assert!(
        distance(&after.items) < 0.3 * size,
        "{} of {size}",
        distance(&after.items)
    );
    // One training from nothing with another seed lies anywhere.
    let mut stranger = Trainer::new(&data, &Hyper { seed: 99, ..hyper }, 1).unwrap();
    (0..12).for_each(|_| stranger.step(&()).unwrap());
    let apart = distance(&stranger.factors().items);
    let places = all(data.items());
    let reference = ParentRows::new(&places, &parent.items);
    let turned = stranger.finish(Some(reference), &()).unwrap();
    assert!(distance(&turned.items) < 0.8 * apart);
}
