//! Scoring expressions: a small, bounded language over features.
//!
//! ```text
//! sum     = product (("+" | "-") product)*
//! product = unary (("*" | "/") unary)*
//! unary   = "-" unary | atom
//! atom    = NUMBER | FEATURE | PARAMETER | ("min" | "max") "(" sum "," sum ")" | "(" sum ")"
//! ```
//! An expression is kept as a program for a stack machine. Its size, its stack and the parser's
//! recursion are bounded, so no text from a configuration can exhaust a thread's stack or make a
//! request slow.

use std::collections::BTreeMap;
use std::fmt;

use crate::feature::Feature;

/// A parsed scoring expression. Equal expressions are equal programs: redundant parentheses and
/// spaces leave no trace.
#[derive(Debug, Clone, PartialEq)]
pub struct Expression {
    /// In postfix order; never underflows or overflows the stack and leaves exactly one value.
    program: Box<[Op]>,
    features: Box<[Feature]>,
}

impl Expression {
    /// Longest text, in bytes.
    pub const MAX_BYTES: usize = 1024;
    /// Most numbers, features and operators.
    pub const MAX_OPERATIONS: usize = 128;
    /// Deepest nesting of parentheses, calls and minus signs.
    pub const MAX_DEPTH: usize = 32;

    /// Parses a text such as `similarity + 0.15 * popularity`. O(length).
    ///
    /// # Errors
    /// [`ParseError`] with the column, for what is not an expression, an unknown name, a number that
    /// is not finite, or an expression beyond the bounds.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        Self::parse_with(text, &BTreeMap::new())
    }

    /// As [`parse`](Self::parse), with named parameters: each name stands for its value, so that the
    /// expression equals the one with the numbers written out.
    ///
    /// # Errors
    /// As [`parse`](Self::parse).
    pub fn parse_with(text: &str, parameters: &BTreeMap<&str, f32>) -> Result<Self, ParseError> {
        let mut parser = Parser {
            parameters,
            text,
            at: 0,
            depth: 0,
            program: Vec::new(),
        };
        if text.len() > Self::MAX_BYTES {
            return Err(parser.error(0, Problem::TooLong { bytes: text.len() }));
        }
        parser.sum()?;
        if let Some(found) = parser.peek() {
            return Err(parser.error(
                parser.at,
                Problem::Unexpected {
                    found,
                    wanted: "an operator or the end",
                },
            ));
        }
        let mut features: Vec<_> = parser
            .program
            .iter()
            .filter_map(|op| op.feature())
            .collect();
        features.sort_unstable();
        features.dedup();
        Ok(Self {
            program: parser.program.into(),
            features: features.into(),
        })
    }

    /// The value for a candidate, in single precision, left to right. It need not be finite: a
    /// division by zero follows IEEE 754. O(operations), allocates nothing.
    pub fn eval(&self, feature: &dyn Fn(Feature) -> f32) -> f32 {
        let mut stack = Stack {
            values: [0.0; STACK],
            len: 0,
        };
        for op in &self.program {
            match *op {
                Op::Number(value) => stack.push(value),
                Op::Feature(name) => stack.push(feature(name)),
                Op::Negate => {
                    let value = stack.pop();
                    stack.push(-value);
                }
                Op::Binary(operator) => {
                    let right = stack.pop();
                    let left = stack.pop();
                    stack.push(operator.apply(left, right));
                }
            }
        }
        stack.pop()
    }

    /// The value for every candidate, as [`eval`](Self::eval) gives it, put into `out`. Works on
    /// blocks of candidates an operation at a time. O(operations · candidates).
    pub(crate) fn eval_all<C>(
        &self,
        candidates: &[C],
        feature: &dyn Fn(Feature, &C) -> f32,
        out: &mut Vec<f32>,
    ) {
        out.clear();
        out.reserve(candidates.len());
        let mut stack = [[0.0_f32; BLOCK]; STACK];
        for block in candidates.chunks(BLOCK) {
            let mut depth = 0;
            for op in &self.program {
                match *op {
                    Op::Number(value) => {
                        if let Some(top) = stack.get_mut(depth) {
                            top.fill(value);
                        }
                        depth += 1;
                    }
                    Op::Feature(name) => {
                        if let Some(top) = stack.get_mut(depth) {
                            for (value, candidate) in top.iter_mut().zip(block) {
                                *value = feature(name, candidate);
                            }
                        }
                        depth += 1;
                    }
                    Op::Negate => {
                        if let Some(top) = stack.get_mut(depth.wrapping_sub(1)) {
                            for value in top {
                                *value = -*value;
                            }
                        }
                    }
                    Op::Binary(operator) => {
                        depth = depth.saturating_sub(1);
                        if let Some((left, right)) = stack
                            .split_at_mut_checked(depth)
                            .and_then(|(below, above)| Some((below.last_mut()?, above.first()?)))
                        {
                            operator.apply_all(left, right);
                        }
                    }
                }
            }
            out.extend(stack[0].iter().take(block.len()));
        }
    }

    /// What each feature does to the value of a candidate: the value less what it would be were that
    /// feature 0. For a sum of features these add up to the value but for its constant.
    #[must_use]
    pub fn contributions(&self, feature: &dyn Fn(Feature) -> f32) -> Vec<(Feature, f32)> {
        let value = self.eval(feature);
        let without = |left_out: Feature| {
            self.eval(&|name| if name == left_out { 0.0 } else { feature(name) })
        };
        let features = self.features.iter();
        features
            .map(|&name| (name, value - without(name)))
            .collect()
    }

    /// Whether it is that feature and nothing else.
    #[must_use]
    pub fn is_feature(&self, feature: Feature) -> bool {
        *self.program == [Op::Feature(feature)]
    }

    /// The features that it names, each once.
    #[must_use]
    pub fn features(&self) -> &[Feature] {
        &self.features
    }
}

/// Prints an expression that parses to an equal one, with no more parentheses than that needs.
impl fmt::Display for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts: Vec<Printed> = Vec::new();
        for op in &self.program {
            let part = match *op {
                Op::Number(value) => Printed {
                    text: format!("{value}"),
                    binds: ATOM,
                },
                Op::Feature(name) => Printed {
                    text: name.to_string(),
                    binds: ATOM,
                },
                Op::Negate => {
                    let value = parts.pop().ok_or(fmt::Error)?;
                    Printed {
                        text: format!("-{}", value.within(UNARY)),
                        binds: UNARY,
                    }
                }
                Op::Binary(operator) => {
                    let right = parts.pop().ok_or(fmt::Error)?;
                    let left = parts.pop().ok_or(fmt::Error)?;
                    operator.print(left, right)
                }
            };
            parts.push(part);
        }
        f.write_str(&parts.pop().ok_or(fmt::Error)?.text)
    }
}

/// Why a text is not a scoring expression.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("column {column}: {problem}")]
pub struct ParseError {
    /// Character at which it was noticed, from 1.
    pub column: usize,
    /// What is wrong there.
    pub problem: Problem,
}

/// What is wrong with a scoring expression.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// The text is too long to look at.
    #[error("the expression has {bytes} bytes, at most {max} are allowed", max = Expression::MAX_BYTES)]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// Too many numbers, features and operators.
    #[error("the expression has more than {max} operations", max = Expression::MAX_OPERATIONS)]
    TooManyOperations,
    /// Nested too deeply.
    #[error("the expression is nested more than {max} deep", max = Expression::MAX_DEPTH)]
    TooDeep,
    /// A character that does not fit there.
    #[error("found {found:?}, expected {wanted}")]
    Unexpected {
        /// The character.
        found: char,
        /// What would fit.
        wanted: &'static str,
    },
    /// The text ends too soon.
    #[error("the expression ends, expected {wanted}")]
    Ends {
        /// What would fit.
        wanted: &'static str,
    },
    /// A name that is neither a feature nor a parameter nor a function.
    #[error(
        "unknown name `{name}`; there are the features {}{} and the functions `min`, `max`",
        feature_names(),
        parameter_names(parameters)
    )]
    UnknownName {
        /// The name.
        name: String,
        /// The parameters that it could have been.
        parameters: Vec<String>,
    },
    /// Digits that are no finite number.
    #[error("`{text}` is not a finite number")]
    Number {
        /// The digits.
        text: String,
    },
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Op {
    Number(f32),
    Feature(Feature),
    Negate,
    Binary(Operator),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operator {
    Add,
    Subtract,
    Multiply,
    Divide,
    Min,
    Max,
}

impl Op {
    fn feature(self) -> Option<Feature> {
        match self {
            Self::Feature(feature) => Some(feature),
            Self::Number(_) | Self::Negate | Self::Binary(_) => None,
        }
    }
}

impl Operator {
    fn apply(self, left: f32, right: f32) -> f32 {
        match self {
            Self::Add => left + right,
            Self::Subtract => left - right,
            Self::Multiply => left * right,
            Self::Divide => left / right,
            // By total order, so that zeros of different sign and NaN give one answer everywhere.
            Self::Min => {
                if left.total_cmp(&right).is_le() {
                    left
                } else {
                    right
                }
            }
            Self::Max => {
                if left.total_cmp(&right).is_ge() {
                    left
                } else {
                    right
                }
            }
        }
    }

    fn apply_all(self, left: &mut [f32; BLOCK], right: &[f32; BLOCK]) {
        fn each(
            left: &mut [f32; BLOCK],
            right: &[f32; BLOCK],
            operation: impl Fn(f32, f32) -> f32,
        ) {
            for (left, &right) in left.iter_mut().zip(right) {
                *left = operation(*left, right);
            }
        }
        match self {
            Self::Add => each(left, right, |a, b| a + b),
            Self::Subtract => each(left, right, |a, b| a - b),
            Self::Multiply => each(left, right, |a, b| a * b),
            Self::Divide => each(left, right, |a, b| a / b),
            Self::Min | Self::Max => each(left, right, |a, b| self.apply(a, b)),
        }
    }

    fn print(self, left: Printed, right: Printed) -> Printed {
        // Operators associate to the left: a right operand of the same strength needs parentheses.
        let (symbol, binds) = match self {
            Self::Add => ("+", SUM),
            Self::Subtract => ("-", SUM),
            Self::Multiply => ("*", PRODUCT),
            Self::Divide => ("/", PRODUCT),
            Self::Min => {
                return Printed {
                    text: format!("min({}, {})", left.text, right.text),
                    binds: ATOM,
                };
            }
            Self::Max => {
                return Printed {
                    text: format!("max({}, {})", left.text, right.text),
                    binds: ATOM,
                };
            }
        };
        let text = format!(
            "{} {symbol} {}",
            left.within(binds),
            right.within(binds + 1)
        );
        Printed { text, binds }
    }
}

/// A part of an expression and how strongly its outermost operator binds.
struct Printed {
    text: String,
    binds: u8,
}

const SUM: u8 = 0;
const PRODUCT: u8 = 1;
const UNARY: u8 = 2;
const ATOM: u8 = 3;

impl Printed {
    fn within(self, least: u8) -> String {
        if self.binds >= least {
            self.text
        } else {
            format!("({})", self.text)
        }
    }
}

/// Every value but the last meets an operator that takes two: at most this many can be waiting.
const STACK: usize = Expression::MAX_OPERATIONS.div_ceil(2);

/// Candidates that are scored together.
const BLOCK: usize = 32;

struct Stack {
    values: [f32; STACK],
    len: usize,
}

impl Stack {
    fn push(&mut self, value: f32) {
        if let Some(slot) = self.values.get_mut(self.len) {
            *slot = value;
            self.len += 1;
        }
    }

    fn pop(&mut self) -> f32 {
        self.len = self.len.saturating_sub(1);
        self.values.get(self.len).copied().unwrap_or(f32::NAN)
    }
}

struct Parser<'a> {
    parameters: &'a BTreeMap<&'a str, f32>,
    text: &'a str,
    /// Byte offset of the next character, always on a boundary.
    at: usize,
    depth: usize,
    program: Vec<Op>,
}

impl Parser<'_> {
    fn sum(&mut self) -> Result<(), ParseError> {
        self.product()?;
        loop {
            let operator = match self.peek() {
                Some('+') => Operator::Add,
                Some('-') => Operator::Subtract,
                _ => return Ok(()),
            };
            let at = self.at;
            self.at += 1;
            self.product()?;
            self.emit(at, Op::Binary(operator))?;
        }
    }

    fn product(&mut self) -> Result<(), ParseError> {
        self.unary()?;
        loop {
            let operator = match self.peek() {
                Some('*') => Operator::Multiply,
                Some('/') => Operator::Divide,
                _ => return Ok(()),
            };
            let at = self.at;
            self.at += 1;
            self.unary()?;
            self.emit(at, Op::Binary(operator))?;
        }
    }

    fn unary(&mut self) -> Result<(), ParseError> {
        if self.peek() != Some('-') {
            return self.atom();
        }
        let at = self.at;
        self.at += 1;
        self.nested(Self::unary)?;
        self.emit(at, Op::Negate)
    }

    fn atom(&mut self) -> Result<(), ParseError> {
        const WANTED: &str = "a number, a name, `-` or `(`";
        match self.peek() {
            None => Err(self.error(self.at, Problem::Ends { wanted: WANTED })),
            Some('(') => {
                self.at += 1;
                self.nested(Self::sum)?;
                self.expect(')', "`)`")
            }
            Some(c) if c.is_ascii_digit() || c == '.' => self.number(),
            Some(c) if c.is_ascii_alphabetic() || c == '_' => self.name(),
            Some(found) => Err(self.error(
                self.at,
                Problem::Unexpected {
                    found,
                    wanted: WANTED,
                },
            )),
        }
    }

    fn number(&mut self) -> Result<(), ParseError> {
        let at = self.at;
        let mut previous = ' ';
        let text = self.take(|c| {
            let sign_of_exponent = matches!(c, '+' | '-') && matches!(previous, 'e' | 'E');
            previous = c;
            c.is_ascii_alphanumeric() || c == '.' || sign_of_exponent
        });
        match text.parse() {
            Ok(value) if f32::is_finite(value) => self.emit(at, Op::Number(value)),
            _ => Err(self.error(at, Problem::Number { text })),
        }
    }

    fn name(&mut self) -> Result<(), ParseError> {
        let at = self.at;
        let name = self.take(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.'));
        let operator = match name.as_str() {
            "min" => Operator::Min,
            "max" => Operator::Max,
            _ => {
                return match (name.parse(), self.parameters.get(name.as_str())) {
                    (Ok(feature), _) => self.emit(at, Op::Feature(feature)),
                    (Err(()), Some(&value)) => self.constant(at, value),
                    (Err(()), None) => {
                        let parameters = self.parameters.keys();
                        let parameters = parameters.map(|name| (*name).to_owned()).collect();
                        Err(self.error(at, Problem::UnknownName { name, parameters }))
                    }
                };
            }
        };
        self.expect('(', "`(`")?;
        self.nested(|parser| {
            parser.sum()?;
            parser.expect(',', "`,`")?;
            parser.sum()
        })?;
        self.expect(')', "`)`")?;
        self.emit(at, Op::Binary(operator))
    }

    /// As its digits would be read: a minus is an operation.
    fn constant(&mut self, at: usize, value: f32) -> Result<(), ParseError> {
        self.emit(at, Op::Number(value.abs()))?;
        if value.is_sign_negative() {
            self.emit(at, Op::Negate)?;
        }
        Ok(())
    }

    fn nested(
        &mut self,
        inner: impl FnOnce(&mut Self) -> Result<(), ParseError>,
    ) -> Result<(), ParseError> {
        if self.depth == Expression::MAX_DEPTH {
            return Err(self.error(self.at, Problem::TooDeep));
        }
        self.depth += 1;
        inner(self)?;
        self.depth -= 1;
        Ok(())
    }

    fn emit(&mut self, at: usize, op: Op) -> Result<(), ParseError> {
        if self.program.len() == Expression::MAX_OPERATIONS {
            return Err(self.error(at, Problem::TooManyOperations));
        }
        self.program.push(op);
        Ok(())
    }

    fn expect(&mut self, c: char, wanted: &'static str) -> Result<(), ParseError> {
        match self.peek() {
            Some(found) if found == c => {
                self.at += c.len_utf8();
                Ok(())
            }
            Some(found) => Err(self.error(self.at, Problem::Unexpected { found, wanted })),
            None => Err(self.error(self.at, Problem::Ends { wanted })),
        }
    }

    /// The next character that is not a space.
    fn peek(&mut self) -> Option<char> {
        self.take(char::is_whitespace);
        self.rest().chars().next()
    }

    fn take(&mut self, mut wanted: impl FnMut(char) -> bool) -> String {
        let rest = self.rest();
        let end = rest.find(|c| !wanted(c)).unwrap_or(rest.len());
        let taken = rest.get(..end).unwrap_or_default().to_owned();
        self.at += end;
        taken
    }

    fn rest(&self) -> &str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn error(&self, at: usize, problem: Problem) -> ParseError {
        let column = self
            .text
            .get(..at)
            .map_or(1, |before| before.chars().count() + 1);
        ParseError { column, problem }
    }
}

fn feature_names() -> String {
    Feature::ALL
        .map(|feature| format!("`{feature}`"))
        .join(", ")
}

fn parameter_names(names: &[String]) -> String {
    match names {
        [] => String::new(),
        names => format!(", the parameters `{}`", names.join("`, `")),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn evaluates_as_arithmetic_does() {
        let cases = [
            ("similarity", 0.5),
            ("1 + 2 * 3", 7.0),
            ("(1 + 2) * 3", 9.0),
            ("10 - 4 - 3", 3.0),
            ("16 / 4 / 2", 2.0),
            ("-2 * 3", -6.0),
            ("- -2", 2.0),
            ("2e-1 * 10", 2.0),
            ("min(1, 2) + max(1, 2)", 3.0),
            (
                "min(max(similarity, 0), 1) - 0.25 * popularity + freshness",
                0.5 - 0.25 * 0.25 + 0.125,
            ),
        ];
        for (text, expected) in cases {
            let expression = Expression::parse(text).expect(text);
            assert_eq!(expression.eval(&sample), expected, "{text}");
        }
    }

    #[test]
    fn errors_name_the_column_and_what_is_allowed() {
        let deep = "(".repeat(33);
        let many = vec!["1"; 70].join("+");
        let long = " ".repeat(1025);
        let cases = [
            ("", "column 1: the expression ends, expected a number"),
            ("similarity +", "column 13: the expression ends"),
            (
                "similarity + popularty",
                "column 14: unknown name `popularty`; there are the features `similarity`, \
                 `popularity`, `freshness`, `artist_affinity`, `novelty`, `confidence`, \
                 `scene_match`, `item.duration_ms`, `item.listeners`, `item.release_day`, `model` and the \
                 functions `min`, `max`",
            ),
            ("min(1)", "column 6: found ')', expected `,`"),
            ("(1", "column 3: the expression ends, expected `)`"),
            (
                "1 2",
                "column 3: found '2', expected an operator or the end",
            ),
            ("1e99", "column 1: `1e99` is not a finite number"),
            ("1.2.3", "column 1: `1.2.3` is not a finite number"),
            ("2 ^ 3", "column 3: found '^'"),
            ("inf", "column 1: unknown name `inf`"),
            (&deep, "nested more than 32 deep"),
            (&many, "more than 128 operations"),
            (&long, "has 1025 bytes, at most 1024"),
        ];
        for (text, expected) in cases {
            let message = Expression::parse(text).expect_err(text).to_string();
            assert!(message.contains(expected), "{message:?} lacks {expected:?}");
        }
    }

    #[test]
    fn parameters_are_their_values() {
        let parameters = BTreeMap::from([("weight", 0.25), ("malus", -2.0)]);
        let parse = |text| Expression::parse_with(text, &parameters);
        let expected = Expression::parse("similarity + 0.25 * popularity - -2").expect("valid");
        assert_eq!(
            parse("similarity + weight * popularity - malus"),
            Ok(expected)
        );
        let message = parse("wait").expect_err("unknown").to_string();
        assert!(
            message.contains("the parameters `malus`, `weight`"),
            "{message}"
        );
    }

    #[test]
    fn contributions_of_a_sum_add_up() {
        let expression = Expression::parse("2 * similarity - popularity + 0.5").expect("valid");
        assert_eq!(
            expression.contributions(&sample),
            [(Feature::Similarity, 1.0), (Feature::Popularity, -0.25)]
        );
    }

    #[test]
    fn names_its_features_once() {
        let expression = Expression::parse("freshness + similarity * freshness").expect("valid");
        assert_eq!(
            expression.features(),
            [Feature::Similarity, Feature::Freshness]
        );
    }

    /// As many values waiting at once as the bound on operations allows: 64.
    #[test]
    fn the_fullest_stack_is_deep_enough() {
        let levels = 21;
        let text = format!(
            "{}1{}",
            "max(0, 1 + 2 * ".repeat(levels),
            ")".repeat(levels)
        );
        let expression = Expression::parse(&text).expect("within bounds");
        assert_eq!(expression.program.len(), 127);
        let expected = (0..levels).fold(1.0_f32, |inner, _| 1.0 + 2.0 * inner);
        assert_eq!(expression.eval(&sample), expected);
    }

    proptest! {
        #[test]
        fn printing_and_parsing_are_inverse(program in programs()) {
            let printed = program.to_string();
            let parsed = Expression::parse(&printed);
            prop_assert_eq!(parsed, Ok(program), "{}", printed);
        }

        #[test]
        fn all_at_once_is_one_by_one(
            program in programs(),
            candidates in prop::collection::vec(-2.0_f32..2.0, 0..70),
        ) {
            let feature = |feature: Feature, candidate: &f32| candidate * sample(feature);
            let mut all = Vec::new();
            program.eval_all(&candidates, &feature, &mut all);
            prop_assert_eq!(all.len(), candidates.len());
            for (candidate, value) in candidates.iter().zip(all) {
                let one = program.eval(&|name| feature(name, candidate));
                prop_assert!(one.to_bits() == value.to_bits() || one.is_nan() && value.is_nan());
            }
        }

        #[test]
        fn any_text_is_parsed_or_refused(text in "[-+*/().,0-9eminaxsfrshpoulty ]{0,80}|.{0,80}") {
            if let Ok(expression) = Expression::parse(&text) {
                expression.eval(&sample);
                prop_assert_eq!(Expression::parse(&expression.to_string()), Ok(expression));
            }
        }
    }

    fn sample(feature: Feature) -> f32 {
        match feature {
            Feature::Similarity => 0.5,
            Feature::Popularity => 0.25,
            Feature::Freshness => 0.125,
            _ => 0.75,
        }
    }

    /// Expressions made as programs, not as text.
    fn programs() -> impl Strategy<Value = Expression> {
        let number = (0.0_f32..1e6).prop_map(|value| vec![Op::Number(value)]);
        let feature =
            prop::sample::select(&Feature::ALL[..]).prop_map(|name| vec![Op::Feature(name)]);
        let operators = [
            Operator::Add,
            Operator::Subtract,
            Operator::Multiply,
            Operator::Divide,
            Operator::Min,
            Operator::Max,
        ];
        let tree = prop_oneof![number, feature].prop_recursive(6, 40, 2, move |inner| {
            let binary = (
                inner.clone(),
                inner.clone(),
                prop::sample::select(operators.to_vec()),
            )
                .prop_map(|(left, right, operator)| {
                    [left, right, vec![Op::Binary(operator)]].concat()
                });
            prop_oneof![4 => binary, 1 => inner.prop_map(|mut ops| { ops.push(Op::Negate); ops })]
        });
        tree.prop_map(|program| {
            let mut features: Vec<_> = program.iter().filter_map(|op| op.feature()).collect();
            features.sort_unstable();
            features.dedup();
            Expression {
                program: program.into(),
                features: features.into(),
            }
        })
    }
}
