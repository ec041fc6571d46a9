//! One evaluation of a condition. Each step of it is paid for; when the work is used up, everything is an error.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::collections::BTreeMap;

use super::super::template::Scope;
use super::value::{self, Value, exact_decimal, whole_part};
use super::{
    COMPARED_DEPTH_MAX, EvaluationError, Function, NODE_WORK, Node, Operator, Path, Quantifier, Root,
    Segment, WORK_MAX,
};

pub(super) struct Evaluation<'v, 's> {
    paths: &'v [Path],
    scope: &'v Scope<'s>,
    /// Where each path led: a quantifier would walk it for each element.
    found: BTreeMap<usize, Option<Value<'v>>>,
    /// What the quantifier looks at.
    element: Option<Value<'v>>,
    work_left: usize,
}

type Evaluated<'v> = Result<Value<'v>, EvaluationError>;

impl<'v, 's: 'v> Evaluation<'v, 's> {
    pub(super) fn new(paths: &'v [Path], scope: &'v Scope<'s>) -> Self {
        Self { paths, scope, found: BTreeMap::new(), element: None, work_left: WORK_MAX }
    }

    pub(super) fn node(&mut self, node: &'v Node) -> Evaluated<'v> {
        self.pay(NODE_WORK)?;
        match node {
            Node::Null => Ok(Value::Null),
            Node::Bool(value) => Ok(Value::Bool(*value)),
            Node::Integer(value) => Ok(Value::Integer(*value)),
            Node::Decimal(value) => Ok(Value::Decimal(*value)),
            Node::Text(text) => Ok(Value::Text(Cow::Borrowed(text))),
            Node::List(nodes) => {
                nodes.iter().map(|node| self.node(node)).collect::<Result<_, _>>().map(Value::List)
            }
            Node::Read(path) => {
                self.read(*path)?.ok_or_else(|| EvaluationError::Missing(self.paths[*path].to_string()))
            }
            Node::Exists(path) => Ok(Value::Bool(self.read(*path)?.is_some())),
            Node::Element => match self.element.clone() {
                Some(element) => self.paid(element),
                None => unreachable!("an element is named inside a quantifier only"),
            },
            Node::Select(object, key) => {
                let object = self.node(object)?;
                self.field(&object, key)?.ok_or(EvaluationError::NotFound("a field", "object"))
            }
            Node::Has(object, key) => {
                let found = match self.node(object) {
                    Ok(object @ Value::Object(_)) => self.field(&object, key)?.is_some(),
                    Ok(_) | Err(EvaluationError::NotFound(..)) => false,
                    Err(error) => return Err(error),
                };
                Ok(Value::Bool(found))
            }
            Node::Index(of) => {
                let (of, index) = (self.node(&of[0])?, self.node(&of[1])?);
                self.index(&of, &index)
            }
            Node::Not(operand) => Ok(Value::Bool(!self.truth("!", operand)?)),
            Node::Negate(operand) => match self.node(operand)? {
                Value::Integer(number) => Value::integer(-number),
                Value::Decimal(number) => Value::decimal(-number),
                other => Err(kinds("-", &[&other])),
            },
            Node::And(operands) => self.either("&&", operands, false),
            Node::Or(operands) => self.either("||", operands, true),
            Node::If(parts) => {
                let [asked, yes, no] = &**parts;
                if self.truth("?", asked)? { self.node(yes) } else { self.node(no) }
            }
            Node::Binary(operator, operands) => {
                let (left, right) = (self.node(&operands[0])?, self.node(&operands[1])?);
                self.binary(*operator, left, right)
            }
            Node::Call(function, arguments) => self.call(*function, arguments),
            Node::Quantified(quantifier, of) => self.quantified(*quantifier, &of[0], &of[1]).map(Value::Bool),
        }
    }

    fn pay(&mut self, work: usize) -> Result<(), EvaluationError> {
        let left = self.work_left.checked_sub(work);
        self.work_left = left.unwrap_or(0);
        left.map(|_| ()).ok_or(EvaluationError::TooMuchWork)
    }

    /// A value that has been copied.
    fn paid(&mut self, value: Value<'v>) -> Evaluated<'v> {
        self.pay(value.owned_bytes())?;
        Ok(value)
    }

    fn json(&mut self, json: &'v str) -> Evaluated<'v> {
        if !json.starts_with(['[', '{']) {
            self.pay(json.len())?;
        }
        Value::from_json(json)
    }

    fn truth(&mut self, what: &'static str, node: &'v Node) -> Result<bool, EvaluationError> {
        match self.node(node)? {
            Value::Bool(value) => Ok(value),
            other => Err(kinds(what, &[&other])),
        }
    }

    /// `decisive` on either side is the answer, whatever the other side is.
    fn either(&mut self, what: &'static str, operands: &'v [Node; 2], decisive: bool) -> Evaluated<'v> {
        let left = self.truth(what, &operands[0]);
        if left == Ok(decisive) {
            return Ok(Value::Bool(decisive));
        }
        match self.truth(what, &operands[1]) {
            Ok(right) if right == decisive => Ok(Value::Bool(decisive)),
            right => left.and(right).map(Value::Bool),
        }
    }

    fn quantified(
        &mut self,
        quantifier: Quantifier,
        range: &'v Node,
        asked: &'v Node,
    ) -> Result<bool, EvaluationError> {
        let name = quantifier.name();
        let elements = match self.node(range)? {
            Value::List(elements) => elements,
            Value::Array(json) => {
                self.pay(json.len())?;
                let elements = value::elements(json)?;
                elements.into_iter().map(|element| self.json(element.get())).collect::<Result<_, _>>()?
            }
            other => return Err(kinds(name, &[&other])),
        };
        let (mut matches, mut failure) = (0, None);
        for element in elements {
            self.element = Some(element);
            let answer = self.truth(name, asked);
            self.element = None;
            match (quantifier, answer) {
                (Quantifier::All, Ok(false)) => return Ok(false),
                (Quantifier::Exists, Ok(true)) => return Ok(true),
                (Quantifier::ExistsOne, Err(error)) | (_, Err(error @ EvaluationError::TooMuchWork)) => {
                    return Err(error);
                }
                (Quantifier::All | Quantifier::Exists, Err(error)) => failure = failure.or(Some(error)),
                (_, Ok(answer)) => matches += usize::from(answer),
            }
        }
        match (failure, quantifier) {
            (Some(error), _) => Err(error),
            (None, Quantifier::All) => Ok(true),
            (None, Quantifier::Exists) => Ok(false),
            (None, Quantifier::ExistsOne) => Ok(matches == 1),
        }
    }

    fn read(&mut self, position: usize) -> Result<Option<Value<'v>>, EvaluationError> {
        if !self.found.contains_key(&position) {
            let value = self.walk(&self.paths[position])?;
            self.found.insert(position, value);
        }
        let value = self.found.get(&position).cloned().flatten();
        value.map(|value| self.paid(value)).transpose()
    }

    fn walk(&mut self, path: &'v Path) -> Result<Option<Value<'v>>, EvaluationError> {
        let root = match &path.root {
            Root::TransactionId => {
                return Ok(Some(Value::Text(Cow::Borrowed(self.scope.transaction.as_str()))));
            }
            Root::Input => self.scope.input,
            Root::Result(path) => (self.scope.result)(path.index),
        };
        let Some(root) = root else { return Ok(None) };
        let mut json = root.get();
        for segment in &path.segments {
            let next = match (json.as_bytes().first(), segment) {
                (Some(b'{'), Segment::Key(key)) => {
                    self.pay(json.len())?;
                    value::field(json, key)?
                }
                (Some(b'['), Segment::Element(index)) => {
                    self.pay(json.len())?;
                    value::elements(json)?.get(*index).map(|element| element.get())
                }
                _ => None,
            };
            let Some(next) = next else { return Ok(None) };
            json = next;
        }
        self.json(json).map(Some)
    }

    fn field(&mut self, of: &Value<'v>, key: &str) -> Result<Option<Value<'v>>, EvaluationError> {
        let Value::Object(json) = of else { return Err(kinds(".", &[of])) };
        self.pay(json.len())?;
        value::field(json, key)?.map(|json| self.json(json)).transpose()
    }

    fn index(&mut self, of: &Value<'v>, index: &Value<'v>) -> Evaluated<'v> {
        let missing = EvaluationError::NotFound("an element", "list");
        match (of, index) {
            (Value::Object(_), Value::Text(key)) => {
                self.field(of, key)?.ok_or(EvaluationError::NotFound("a field", "object"))
            }
            (Value::Array(json), Value::Integer(index)) => {
                self.pay(json.len())?;
                let Ok(index) = usize::try_from(*index) else { return Err(missing) };
                match value::elements(json)?.get(index) {
                    Some(element) => self.json(element.get()),
                    None => Err(missing),
                }
            }
            (Value::List(elements), Value::Integer(index)) => {
                let index = usize::try_from(*index).ok();
                let element = index.and_then(|index| elements.get(index)).cloned().ok_or(missing)?;
                self.paid(element)
            }
            _ => Err(kinds("[]", &[of, index])),
        }
    }

    fn binary(&mut self, operator: Operator, left: Value<'v>, right: Value<'v>) -> Evaluated<'v> {
        let what = operator.name();
        match operator {
            Operator::Equal => self.equal(&left, &right, 0).map(Value::Bool),
            Operator::NotEqual => self.equal(&left, &right, 0).map(|equal| Value::Bool(!equal)),
            Operator::In => self.contains(&left, &right).map(Value::Bool),
            Operator::Less | Operator::LessOrEqual | Operator::Greater | Operator::GreaterOrEqual => {
                self.pay_for_texts(&left, &right)?;
                let order = left.compare(&right).ok_or_else(|| kinds(what, &[&left, &right]))?;
                Ok(Value::Bool(match operator {
                    Operator::Less => order == Ordering::Less,
                    Operator::LessOrEqual => order != Ordering::Greater,
                    Operator::Greater => order == Ordering::Greater,
                    _ => order != Ordering::Less,
                }))
            }
            Operator::Add
            | Operator::Subtract
            | Operator::Multiply
            | Operator::Divide
            | Operator::Remainder => match (left, right) {
                (Value::Integer(left), Value::Integer(right)) => of_integers(operator, left, right),
                (Value::Decimal(left), Value::Decimal(right)) => of_decimals(operator, left, right),
                (Value::Integer(left), Value::Decimal(right)) => {
                    of_decimals(operator, exact_decimal(left)?, right)
                }
                (Value::Decimal(left), Value::Integer(right)) => {
                    of_decimals(operator, left, exact_decimal(right)?)
                }
                (Value::Text(left), Value::Text(right)) if operator == Operator::Add => {
                    self.pay(left.len() + right.len())?;
                    Ok(Value::Text(left + right))
                }
                (left, right) => Err(kinds(what, &[&left, &right])),
            },
        }
    }

    fn pay_for_texts(&mut self, left: &Value<'_>, right: &Value<'_>) -> Result<(), EvaluationError> {
        match (left, right) {
            (Value::Text(left), Value::Text(right)) => self.pay(left.len() + right.len()),
            _ => Ok(()),
        }
    }

    /// `left in right`.
    fn contains(&mut self, left: &Value<'v>, right: &Value<'v>) -> Result<bool, EvaluationError> {
        match (left, right) {
            (Value::Text(key), Value::Object(json)) => {
                self.pay(json.len())?;
                Ok(value::field(json, key)?.is_some())
            }
            (_, Value::List(_) | Value::Array(_)) => {
                for element in self.elements(right)? {
                    if self.equal(left, &element, 0)? {
                        return Ok(true);
                    }
                }
                Ok(false)
            }
            _ => Err(kinds("in", &[left, right])),
        }
    }

    fn elements(&mut self, list: &Value<'v>) -> Result<Vec<Value<'v>>, EvaluationError> {
        match list {
            Value::Array(json) => {
                self.pay(json.len())?;
                value::elements(json)?.into_iter().map(|element| self.json(element.get())).collect()
            }
            Value::List(elements) => elements.iter().map(|element| self.paid(element.clone())).collect(),
            other => Err(kinds("in", &[other])),
        }
    }

    fn equal(&mut self, left: &Value<'v>, right: &Value<'v>, depth: usize) -> Result<bool, EvaluationError> {
        self.pay(NODE_WORK)?;
        if depth == COMPARED_DEPTH_MAX {
            return Err(EvaluationError::ComparedTooDeep);
        }
        match (left, right) {
            (Value::Null, Value::Null) => Ok(true),
            (Value::List(_) | Value::Array(_), Value::List(_) | Value::Array(_)) => {
                let (left, right) = (self.elements(left)?, self.elements(right)?);
                if left.len() != right.len() {
                    return Ok(false);
                }
                self.all_equal(left.into_iter().zip(right), depth)
            }
            (Value::Object(left), Value::Object(right)) => {
                self.pay(left.len() + right.len())?;
                let (left, right) = (value::fields(left)?, value::fields(right)?);
                if !left.keys().eq(right.keys()) {
                    return Ok(false);
                }
                let mut pairs = Vec::with_capacity(left.len());
                for (left, right) in left.into_values().zip(right.into_values()) {
                    pairs.push((self.json(left)?, self.json(right)?));
                }
                self.all_equal(pairs.into_iter(), depth)
            }
            _ => {
                self.pay_for_texts(left, right)?;
                Ok(left.compare(right).is_some_and(Ordering::is_eq))
            }
        }
    }

    fn all_equal(
        &mut self,
        mut pairs: impl Iterator<Item = (Value<'v>, Value<'v>)>,
        depth: usize,
    ) -> Result<bool, EvaluationError> {
        pairs.try_fold(true, |all, (left, right)| Ok(all && self.equal(&left, &right, depth + 1)?))
    }

    fn call(&mut self, function: Function, arguments: &'v [Node]) -> Evaluated<'v> {
        let mut values = Vec::with_capacity(arguments.len());
        for argument in arguments {
            values.push(self.node(argument)?);
        }
        let name = function.name();
        let refused = |value: &Value<'_>| Err(EvaluationError::NotConvertible(name, value.kind()));
        match (function, values.as_slice()) {
            (Function::Size, [Value::Text(text)]) => {
                self.pay(text.len())?;
                size(text.chars().count())
            }
            (Function::Size, [Value::List(elements)]) => size(elements.len()),
            (Function::Size, [Value::Array(json)]) => {
                self.pay(json.len())?;
                size(value::elements(json)?.len())
            }
            (Function::Size, [Value::Object(json)]) => {
                self.pay(json.len())?;
                size(value::fields(json)?.len())
            }
            (
                Function::Contains | Function::StartsWith | Function::EndsWith,
                [left @ Value::Text(text), right @ Value::Text(part)],
            ) => {
                self.pay_for_texts(left, right)?;
                Ok(Value::Bool(match function {
                    Function::StartsWith => text.starts_with(&**part),
                    Function::EndsWith => text.ends_with(&**part),
                    _ => text.contains(&**part),
                }))
            }
            (
                Function::Int | Function::Uint,
                [given @ (Value::Integer(_) | Value::Decimal(_) | Value::Text(_))],
            ) => {
                let number = match given {
                    Value::Integer(number) => Some(*number),
                    Value::Decimal(number) => Some(whole_part(*number)),
                    Value::Text(digits) => digits.parse().ok(),
                    _ => None,
                };
                let fits = |number: &i128| match function {
                    Function::Int => i64::try_from(*number).is_ok(),
                    _ => u64::try_from(*number).is_ok(),
                };
                number.filter(fits).map_or_else(|| refused(given), Value::integer)
            }
            (Function::Double, [Value::Integer(number)]) => Value::decimal(exact_decimal(*number)?),
            (Function::Double, [Value::Decimal(number)]) => Ok(Value::Decimal(*number)),
            (Function::Double, [given @ Value::Text(digits)]) => {
                digits.parse().map_or_else(|_| refused(given), Value::decimal)
            }
            (Function::Text, [Value::Text(text)]) => Ok(Value::Text(text.clone())),
            (Function::Text, [Value::Bool(value)]) => Ok(Value::Text(value.to_string().into())),
            (Function::Text, [Value::Integer(number)]) => Ok(Value::Text(number.to_string().into())),
            (_, values) => Err(kinds(name, &values.iter().collect::<Vec<_>>())),
        }
    }
}

fn size(count: usize) -> Evaluated<'static> {
    Value::integer(i128::try_from(count).unwrap_or(i128::MAX))
}

fn kinds(what: &'static str, found: &[&Value<'_>]) -> EvaluationError {
    let found: Vec<_> = found.iter().map(|value| value.kind()).collect();
    EvaluationError::Kinds { what, found: found.join(" and ") }
}

fn of_integers(operator: Operator, left: i128, right: i128) -> Evaluated<'static> {
    let result = match operator {
        Operator::Add => left.checked_add(right),
        Operator::Subtract => left.checked_sub(right),
        Operator::Multiply => left.checked_mul(right),
        Operator::Divide | Operator::Remainder if right == 0 => return Err(EvaluationError::DivisionByZero),
        Operator::Divide => left.checked_div(right),
        _ => left.checked_rem(right),
    };
    result.map_or(Err(EvaluationError::IntegerTooLarge), Value::integer)
}

fn of_decimals(operator: Operator, left: f64, right: f64) -> Evaluated<'static> {
    Value::decimal(match operator {
        Operator::Add => left + right,
        Operator::Subtract => left - right,
        Operator::Multiply => left * right,
        Operator::Divide if right == 0.0 => return Err(EvaluationError::DivisionByZero),
        Operator::Divide => left / right,
        _ => return Err(kinds(operator.name(), &[&Value::Decimal(left), &Value::Decimal(right)])),
    })
}

impl Operator {
    fn name(self) -> &'static str {
        match self {
            Self::Add => "+",
            Self::Subtract => "-",
            Self::Multiply => "*",
            Self::Divide => "/",
            Self::Remainder => "%",
            Self::Equal => "==",
            Self::NotEqual => "!=",
            Self::Less => "<",
            Self::LessOrEqual => "<=",
            Self::Greater => ">",
            Self::GreaterOrEqual => ">=",
            Self::In => "in",
        }
    }

    pub(super) fn is_arithmetic(self) -> bool {
        matches!(self, Self::Add | Self::Subtract | Self::Multiply | Self::Divide | Self::Remainder)
    }
}

impl Function {
    fn name(self) -> &'static str {
        match self {
            Self::Size => "size",
            Self::Contains => "contains",
            Self::StartsWith => "startsWith",
            Self::EndsWith => "endsWith",
            Self::Int => "int",
            Self::Uint => "uint",
            Self::Double => "double",
            Self::Text => "string",
        }
    }
}

impl Quantifier {
    fn name(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Exists => "exists",
            Self::ExistsOne => "exists_one",
        }
    }
}
