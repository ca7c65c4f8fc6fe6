//! Scoring expressions: a small, bounded language over features.
//!
//! ```text
//! sum     = product (("+" | "-") product)*
//! product = unary (("*" | "/") unary)*
//! unary   = "-" unary | atom
//! atom    = NUMBER | FEATURE | ("min" | "max") "(" sum "," sum ")" | "(" sum ")"
//! ```
//! An expression is kept as a program for a stack machine. Its size, its stack and the parser's
//! recursion are bounded, so no text from a configuration can exhaust a thread's stack or make a
//! request slow.

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
        let mut parser = Parser {
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
    /// A name that is neither a feature nor a function.
    #[error(
        "unknown name `{name}`; there are the features {} and the functions `min`, `max`",
        feature_names()
    )]
    UnknownName {
        /// The name.
        name: String,
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
        let name = self.take(|c| c.is_ascii_alphanumeric() || c == '_');
        let operator = match name.as_str() {
            "min" => Operator::Min,
            "max" => Operator::Max,
            _ => {
                return match name.parse() {
                    Ok(feature) => self.emit(at, Op::Feature(feature)),
                    Err(()) => Err(self.error(at, Problem::UnknownName { name })),
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
                 `popularity`, `freshness` and the functions `min`, `max`",
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
