//! Sample-ratio mismatch: fixed, sequential, and the search for its cause.

use refrain_analysis::methods::srm::{self, Cell};

use crate::support::close;

#[test]
fn chi_square_of_known_cases() {
    let kohavi = srm::fixed(&[821_588, 815_482], &[0.5, 0.5]).expect("valid");
    close(kohavi.chi_square, 22.774369, 5e-7);
    close(kohavi.p, 1.821793e-6, 5e-13);
    let three = srm::fixed(&[5000, 5100, 4800], &[1.0, 1.0, 1.0]).expect("valid");
    close(three.chi_square, 9.395973, 5e-7);
    close(three.p, 0.009113608, 5e-10);
    let two = srm::fixed(&[10_112, 9898], &[1.0, 1.0]).expect("valid");
    close(two.chi_square, 2.288656, 5e-7);
    close(two.p, 0.130323, 5e-7);
}

#[test]
fn e_value_of_known_cases() {
    let kohavi = srm::sequential(&[821_588, 815_482], &[0.5, 0.5]).expect("valid");
    close(kohavi.ln_e, 6.879465, 5e-7);
    close(kohavi.p, 1.028694e-3, 5e-9);
    let small = srm::sequential(&[5200, 4800], &[0.5, 0.5]).expect("valid");
    close(small.ln_e, 5.878780, 5e-7);
    close(small.p, 2.798197e-3, 5e-9);
    let fair = srm::sequential(&[5000, 5000], &[0.5, 0.5]).expect("valid");
    assert!(fair.ln_e < 0.0 && fair.p == 1.0);
}

#[test]
fn the_search_names_the_cell_that_lost_units() {
    let cell = |attribute: &str, value: &str, counts: [u64; 2]| Cell {
        attribute: attribute.into(),
        value: value.into(),
        counts: counts.to_vec(),
    };
    let cells = [
        cell("platform", "ios", [10_020, 9980]),
        cell("platform", "android", [20_040, 18_600]),
        cell("platform", "watch", [2, 1]),
        cell("country", "SE", [15_010, 14_300]),
        cell("country", "DE", [15_052, 14_281]),
    ];
    let suspects = srm::search_cause(&cells, &[0.5, 0.5]).expect("valid");
    assert_eq!(suspects[0].cell.value, "android");
    assert!(suspects[0].p_adjusted < 1e-9 && suspects[0].p_without > 0.1);
    close(suspects[0].excess[0], 720.0, 1e-9);
    // Both countries are off by the same share: neither explains the alarm away.
    let se = suspects
        .iter()
        .find(|s| s.cell.value == "SE")
        .expect("tested");
    assert!(se.p_without < 1e-4);
    assert_eq!(suspects.len(), 4, "a cell of three units says nothing");
}

#[test]
fn bad_input_is_refused() {
    assert!(srm::fixed(&[10], &[1.0]).is_err());
    assert!(srm::fixed(&[10, 10], &[1.0]).is_err());
    assert!(srm::fixed(&[0, 0], &[1.0, 1.0]).is_err());
    assert!(srm::fixed(&[10, 10], &[1.0, 0.0]).is_err());
    assert!(srm::sequential(&[10, 10], &[1.0, f64::NAN]).is_err());
}
