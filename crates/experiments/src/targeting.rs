//! Who may be in an experiment: a condition on what was known of the request before exposure.
//!
//! ```text
//! condition  = and { "||" and }
//! and        = unary { "&&" unary }
//! unary      = "!" unary | "(" condition ")" | comparison
//! comparison = NAME ("==" | "!=" | "<" | "<=" | ">" | ">=") VALUE
//!            | NAME ["not"] "in" "[" VALUE { "," VALUE } "]"
//! VALUE      = "text" | number
//! ```
//! An attribute that the request does not bring is unknown, and so is what depends on it (Kleene's
//! three-valued logic): a unit is in only when the condition is known to hold.

use std::cmp::Ordering;
use std::collections::{BTreeMap, HashMap};

/// What a request says of itself, by name.
pub trait Attributes {
    /// The value of an attribute, if the request brings it.
    fn get(&self, name: &str) -> Option<&str>;

    /// The arm that somebody else gave the unit in an experiment with `assigner = "external"`.
    fn arm_of(&self, _experiment: &str) -> Option<&str> {
        None
    }
}

impl Attributes for () {
    fn get(&self, _: &str) -> Option<&str> {
        None
    }
}

impl Attributes for HashMap<String, String> {
    fn get(&self, name: &str) -> Option<&str> {
        HashMap::get(self, name).map(String::as_str)
    }
}

impl Attributes for BTreeMap<String, String> {
    fn get(&self, name: &str) -> Option<&str> {
        BTreeMap::get(self, name).map(String::as_str)
    }
}

/// How the values of an attribute compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum AttributeType {
    /// As text: equal or not, in a list or not.
    String,
    /// As a number.
    Number,
    /// As numbers between dots: 9.10 comes after 9.9.
    Version,
}

/// Longest condition, in bytes.
pub(crate) const MAX_BYTES: usize = 4096;
const MAX_DEPTH: u32 = 32;

/// A compiled condition.
#[derive(Debug, Clone, PartialEq)]
pub struct Targeting {
    root: Node,
}

#[derive(Debug, Clone, PartialEq)]
enum Node {
    Or(Vec<Node>),
    And(Vec<Node>),
    Not(Box<Node>),
    Compare {
        name: String,
        operator: Operator,
        values: Vec<Value>,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operator {
    Equal,
    NotEqual,
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
    In,
    NotIn,
}

#[derive(Debug, Clone, PartialEq)]
enum Value {
    Text(String),
    Number(f64),
    Version(String),
}

impl Targeting {
    /// Compiles a condition over the attributes that `kind_of` knows.
    ///
    /// # Errors
    /// What is wrong, with the byte at which it is.
    pub fn new(
        text: &str,
        kind_of: &dyn Fn(&str) -> Result<AttributeType, String>,
    ) -> Result<Self, String> {
        if text.len() > MAX_BYTES {
            return Err(format!("is longer than {MAX_BYTES} bytes"));
        }
        let mut parser = Parser {
            text,
            at: 0,
            depth: 0,
            kind_of,
        };
        let root = parser.either()?;
        parser.space();
        if parser.at < text.len() {
            return Err(parser.expected("`&&`, `||` or the end"));
        }
        Ok(Self { root })
    }

    /// Whether the condition is known to hold. O(length of the condition), allocates nothing.
    #[must_use]
    pub fn holds(&self, attributes: &dyn Attributes) -> bool {
        self.root.eval(attributes) == Some(true)
    }
}

impl Node {
    fn eval(&self, attributes: &dyn Attributes) -> Option<bool> {
        match self {
            Self::Not(node) => node.eval(attributes).map(|holds| !holds),
            Self::Or(nodes) => decide(nodes, attributes, true),
            Self::And(nodes) => decide(nodes, attributes, false),
            Self::Compare {
                name,
                operator,
                values,
            } => {
                let given = attributes.get(name)?;
                operator.holds(given, values)
            }
        }
    }
}

/// The first part that equals `decisive` decides; an unknown part leaves the whole unknown.
fn decide(nodes: &[Node], attributes: &dyn Attributes, decisive: bool) -> Option<bool> {
    let mut outcome = Some(!decisive);
    for node in nodes {
        match node.eval(attributes) {
            Some(holds) if holds == decisive => return Some(decisive),
            Some(_) => {}
            None => outcome = None,
        }
    }
    outcome
}

impl Operator {
    /// None when the given text is not of the attribute's type.
    fn holds(self, given: &str, values: &[Value]) -> Option<bool> {
        let among = |wanted: bool| {
            let mut found = false;
            for value in values {
                found |= value.compare(given)? == Ordering::Equal;
            }
            Some(found == wanted)
        };
        let order = || values.first()?.compare(given);
        match self {
            Self::In => among(true),
            Self::NotIn => among(false),
            Self::Equal => order().map(Ordering::is_eq),
            Self::NotEqual => order().map(Ordering::is_ne),
            Self::Less => order().map(Ordering::is_lt),
            Self::LessEqual => order().map(Ordering::is_le),
            Self::Greater => order().map(Ordering::is_gt),
            Self::GreaterEqual => order().map(Ordering::is_ge),
        }
    }
}

impl Value {
    /// How the given text stands to this value.
    fn compare(&self, given: &str) -> Option<Ordering> {
        match self {
            Self::Text(text) => Some(given.cmp(text)),
            Self::Number(number) => given.trim().parse::<f64>().ok()?.partial_cmp(number),
            Self::Version(version) => compare_versions(given, version),
        }
    }
}

fn compare_versions(a: &str, b: &str) -> Option<Ordering> {
    let (mut a, mut b) = (a.trim().split('.'), b.split('.'));
    loop {
        let part = |part: Option<&str>| part.map_or(Ok(0), str::parse::<u64>).ok();
        let (left, right) = (a.next(), b.next());
        if left.is_none() && right.is_none() {
            return Some(Ordering::Equal);
        }
        match part(left)?.cmp(&part(right)?) {
            Ordering::Equal => {}
            unequal => return Some(unequal),
        }
    }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    depth: u32,
    kind_of: &'a dyn Fn(&str) -> Result<AttributeType, String>,
}

impl<'a> Parser<'a> {
    fn either(&mut self) -> Result<Node, String> {
        let mut nodes = vec![self.both()?];
        while self.take("||") {
            nodes.push(self.both()?);
        }
        Ok(one_or(nodes, Node::Or))
    }

    fn both(&mut self) -> Result<Node, String> {
        let mut nodes = vec![self.unary()?];
        while self.take("&&") {
            nodes.push(self.unary()?);
        }
        Ok(one_or(nodes, Node::And))
    }

    fn unary(&mut self) -> Result<Node, String> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(format!("is nested deeper than {MAX_DEPTH}"));
        }
        let node = if self.take("!") {
            Node::Not(Box::new(self.unary()?))
        } else if self.take("(") {
            let inner = self.either()?;
            if !self.take(")") {
                return Err(self.expected("`)`"));
            }
            inner
        } else {
            self.comparison()?
        };
        self.depth -= 1;
        Ok(node)
    }

    fn comparison(&mut self) -> Result<Node, String> {
        let name = self.name()?;
        let kind = (self.kind_of)(name)?;
        let operators = [
            ("==", Operator::Equal),
            ("!=", Operator::NotEqual),
            ("<=", Operator::LessEqual),
            (">=", Operator::GreaterEqual),
            ("<", Operator::Less),
            (">", Operator::Greater),
        ];
        for (sign, operator) in operators {
            if self.take(sign) {
                let ordered = !matches!(operator, Operator::Equal | Operator::NotEqual);
                if ordered && kind == AttributeType::String {
                    return Err(format!(
                        "attribute `{name}` is text, which has no `{sign}`; declare it as `number` or `version`"
                    ));
                }
                let values = vec![self.value(kind)?];
                return Ok(Node::Compare {
                    name: name.to_owned(),
                    operator,
                    values,
                });
            }
        }
        let operator = match self.word() {
            "in" => Operator::In,
            "not" if self.word() == "in" => Operator::NotIn,
            _ => return Err(self.expected("a comparison, `in` or `not in`")),
        };
        if !self.take("[") {
            return Err(self.expected("`[`"));
        }
        let mut values = vec![self.value(kind)?];
        while self.take(",") {
            values.push(self.value(kind)?);
        }
        if !self.take("]") {
            return Err(self.expected("`,` or `]`"));
        }
        Ok(Node::Compare {
            name: name.to_owned(),
            operator,
            values,
        })
    }

    fn value(&mut self, kind: AttributeType) -> Result<Value, String> {
        self.space();
        let start = self.at;
        let rest = self.rest();
        let text = if let Some(inner) = rest.strip_prefix('"') {
            let Some(end) = inner.find('"') else {
                return Err(self.expected("a text that ends with `\"`"));
            };
            self.at += end + 2;
            &inner[..end]
        } else {
            let end = rest
                .find(|c: char| !(c.is_ascii_alphanumeric() || "+-.".contains(c)))
                .unwrap_or(rest.len());
            self.at += end;
            let number = &rest[..end];
            if number.parse::<f64>().is_err() {
                self.at = start;
                return Err(self.expected("a \"text\" or a number"));
            }
            number
        };
        match kind {
            AttributeType::String => Ok(Value::Text(text.to_owned())),
            AttributeType::Number => match text.parse::<f64>() {
                Ok(number) if number.is_finite() => Ok(Value::Number(number)),
                _ => {
                    self.at = start;
                    Err(self.expected("a number"))
                }
            },
            AttributeType::Version if compare_versions(text, "0").is_some() => {
                Ok(Value::Version(text.to_owned()))
            }
            AttributeType::Version => {
                self.at = start;
                Err(self.expected("a version such as \"9.1\""))
            }
        }
    }

    fn name(&mut self) -> Result<&'a str, String> {
        self.space();
        let word = self.word();
        if word.is_empty() {
            return Err(self.expected("the name of an attribute"));
        }
        Ok(word)
    }

    fn word(&mut self) -> &'a str {
        self.space();
        let rest = self.rest();
        let end = rest
            .find(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
            .unwrap_or(rest.len());
        self.at += end;
        &rest[..end]
    }

    fn take(&mut self, sign: &str) -> bool {
        self.space();
        let there = self.rest().starts_with(sign);
        if there {
            self.at += sign.len();
        }
        there
    }

    fn space(&mut self) {
        let rest = self.rest();
        self.at += rest.len() - rest.trim_start().len();
    }

    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn expected(&self, what: &str) -> String {
        let found: String = self.rest().chars().take(12).collect();
        let found = if found.is_empty() {
            "the end".to_owned()
        } else {
            format!("`{found}`")
        };
        format!(
            "expected {what} at byte {} of the condition, found {found}",
            self.at
        )
    }
}

fn one_or(mut nodes: Vec<Node>, many: fn(Vec<Node>) -> Node) -> Node {
    match (nodes.len(), nodes.pop()) {
        (1, Some(only)) => only,
        (_, last) => {
            nodes.extend(last);
            many(nodes)
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn kind_of(name: &str) -> Result<AttributeType, String> {
        match name {
            "country" => Ok(AttributeType::String),
            "age" => Ok(AttributeType::Number),
            "app_version" => Ok(AttributeType::Version),
            other => Err(format!("attribute `{other}` is not declared")),
        }
    }

    fn holds(condition: &str, attributes: &[(&str, &str)]) -> bool {
        let attributes: HashMap<String, String> = attributes
            .iter()
            .map(|&(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        Targeting::new(condition, &kind_of)
            .expect(condition)
            .holds(&attributes)
    }

    #[test]
    fn conditions_hold_for_whom_they_describe() {
        let example = r#"country in ["SE","DE"] && app_version >= "9.1""#;
        assert!(holds(
            example,
            &[("country", "SE"), ("app_version", "9.10.2")]
        ));
        assert!(!holds(
            example,
            &[("country", "SE"), ("app_version", "9.0.9")]
        ));
        assert!(!holds(
            example,
            &[("country", "FR"), ("app_version", "9.1")]
        ));
        assert!(holds("age < 30 || country == \"SE\"", &[("country", "SE")]));
        assert!(holds("!(age >= 30)", &[("age", "29.5")]));
        assert!(holds("country not in [\"SE\"]", &[("country", "DE")]));
        assert!(holds("app_version == 9.1", &[("app_version", "9.1.0")]));
    }

    #[test]
    fn what_is_unknown_does_not_hold_nor_does_its_opposite() {
        for condition in ["age < 30", "!(age < 30)", "age != 3", "age not in [3]"] {
            assert!(!holds(condition, &[]), "{condition}");
            assert!(!holds(condition, &[("age", "old")]), "{condition}");
        }
        assert!(!holds(
            "age < 30 && country == \"SE\"",
            &[("country", "SE")]
        ));
    }

    #[test]
    fn refusals_say_where() {
        for (condition, complaint) in [
            ("", "expected the name of an attribute at byte 0"),
            ("city == \"x\"", "attribute `city` is not declared"),
            ("age > ", "found the end"),
            ("age > \"x\"", "expected a number at byte 6"),
            ("country > \"x\"", "is text, which has no `>`"),
            ("age in [1, 2", "expected `,` or `]`"),
            ("age = 3", "expected a comparison"),
            ("age == 3 age", "expected `&&`, `||` or the end at byte 9"),
            ("(age == 3", "expected `)`"),
            ("country == \"SE", "ends with"),
        ] {
            let error = Targeting::new(condition, &kind_of).expect_err(condition);
            assert!(error.contains(complaint), "{condition}: {error}");
        }
        let deep = format!("{}age == 3", "!".repeat(10_000));
        assert!(Targeting::new(&deep, &kind_of).is_err());
        let deep = format!("{}age == 3", "(".repeat(4_000));
        assert!(Targeting::new(&deep, &kind_of).is_err());
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "[a-z!&|()<>=\\[\\]\", 0-9.]{0,80}|.{0,80}", given in ".{0,20}") {
            if let Ok(targeting) = Targeting::new(&text, &|_| Ok(AttributeType::Version)) {
                let attributes: HashMap<String, String> = [("a".to_owned(), given)].into();
                let _ = targeting.holds(&attributes);
            }
        }
    }
}
