//! Composite Gauss–Legendre quadrature.

/// Nodes and weights of the eight-point rule on −1..1 (Abramowitz and Stegun, table 25.4).
const NODES: [f64; 4] = [
    0.183_434_642_495_649_8,
    0.525_532_409_916_329,
    0.796_666_477_413_626_7,
    0.960_289_856_497_536_3,
];
const WEIGHTS: [f64; 4] = [
    0.362_683_783_378_362,
    0.313_706_645_877_887_27,
    0.222_381_034_453_374_48,
    0.101_228_536_290_376_26,
];

/// Nodes and weights over `low..high`, ascending, in equal panels no wider than `panel`. Exact to
/// rounding for what varies on the scale of `panel`, such as a normal density of that deviation.
pub(super) fn gauss_legendre(low: f64, high: f64, panel: f64) -> Vec<(f64, f64)> {
    let panels = ((high - low) / panel).ceil().max(1.0);
    let half = 0.5 * (high - low) / panels;
    let mut nodes = Vec::new();
    let mut i = 0.0;
    while i < panels {
        let centre = low + (2.0 * i + 1.0) * half;
        for (x, w) in NODES.iter().zip(&WEIGHTS).rev() {
            nodes.push((centre - half * x, half * w));
        }
        for (x, w) in NODES.iter().zip(&WEIGHTS) {
            nodes.push((centre + half * x, half * w));
        }
        i += 1.0;
    }
    nodes
}
