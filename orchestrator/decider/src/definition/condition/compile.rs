//! From cel's tree to ours: names become paths, macros become quantifiers, everything not listed here is refused.

use cel::common::ast::{CallExpr, ComprehensionExpr, Expr, LiteralValue, operators};
use cel::parser::Expression;

use super::super::template::{PATH_SEGMENTS_MAX, StepResolver};
use super::syntax::Parsed;
use super::value::Value;
use super::{
    ConditionError, ConditionFault, DEPTH_MAX, Function, Node, Operator, Path, Quantifier, Root, Segment,
};

pub(super) fn compile<E>(
    parsed: &Parsed<'_>,
    resolve: &StepResolver<'_, E>,
) -> Result<(Node, Vec<Path>), ConditionFault<E>> {
    let mut compiler = Compiler { parsed, resolve, element: None, paths: Vec::new() };
    let root = compiler.node(&parsed.tree, 0)?;
    if !may_be_bool(&root) {
        return Err(compiler.fault(&parsed.tree, ConditionError::NotACondition));
    }
    Ok((root, compiler.paths))
}

fn may_be_bool(node: &Node) -> bool {
    match node {
        Node::Null
        | Node::Integer(_)
        | Node::Decimal(_)
        | Node::Text(_)
        | Node::List(_)
        | Node::Negate(_) => false,
        Node::Binary(operator, _) => !operator.is_arithmetic(),
        Node::Call(function, _) => {
            matches!(function, Function::Contains | Function::StartsWith | Function::EndsWith)
        }
        Node::If(parts) => may_be_bool(&parts[1]) || may_be_bool(&parts[2]),
        Node::Bool(_)
        | Node::Read(_)
        | Node::Exists(_)
        | Node::Element
        | Node::Select(..)
        | Node::Has(..)
        | Node::Index(_)
        | Node::Not(_)
        | Node::And(_)
        | Node::Or(_)
        | Node::Quantified(..) => true,
    }
}

struct Compiler<'a, E> {
    parsed: &'a Parsed<'a>,
    resolve: &'a StepResolver<'a, E>,
    /// What the quantifier around calls an element.
    element: Option<&'a str>,
    paths: Vec<Path>,
}

type Compiled<T, E> = Result<T, ConditionFault<E>>;

impl<'a, E> Compiler<'a, E> {
    fn fault(&self, tree: &Expression, cause: ConditionError<E>) -> ConditionFault<E> {
        ConditionFault { at: self.parsed.place(tree), cause }
    }

    fn unavailable(&self, tree: &Expression, what: &str, help: &'static str) -> ConditionFault<E> {
        self.fault(tree, ConditionError::Unavailable { what: what.to_owned(), help })
    }

    fn node(&mut self, tree: &'a Expression, depth: usize) -> Compiled<Node, E> {
        if depth == DEPTH_MAX {
            return Err(self.fault(tree, ConditionError::TooDeep));
        }
        if let Some(path) = self.path(tree)? {
            return Ok(Node::Read(self.position_of(path)));
        }
        match &tree.expr {
            Expr::Literal(literal) => self.literal(tree, literal),
            Expr::Ident(name) if self.element == Some(name) => Ok(Node::Element),
            Expr::Ident(name) => Err(self.fault(tree, ConditionError::UnknownName(name.clone()))),
            Expr::Select(select) if select.test => {
                if let Some(path) = self.path_of(&select.operand, Some(&select.field))? {
                    return Ok(Node::Exists(self.position_of(path)));
                }
                let object = self.node(&select.operand, depth + 1)?;
                Ok(Node::Has(Box::new(object), select.field.as_str().into()))
            }
            Expr::Select(select) => {
                let object = self.node(&select.operand, depth + 1)?;
                Ok(Node::Select(Box::new(object), select.field.as_str().into()))
            }
            Expr::List(list) => list
                .elements
                .iter()
                .map(|element| self.node(element, depth + 1))
                .collect::<Result<_, _>>()
                .map(Node::List),
            Expr::Call(call) => self.call(tree, call, depth),
            Expr::Comprehension(quantified) => self.quantified(tree, quantified, depth),
            Expr::Map(_) | Expr::Struct(_) => {
                Err(self.unavailable(tree, "an object in braces", "compare its fields one by one"))
            }
            Expr::Unspecified => {
                Err(self.fault(tree, ConditionError::Syntax("this is no expression".to_owned())))
            }
        }
    }

    fn literal(&self, tree: &Expression, literal: &LiteralValue) -> Compiled<Node, E> {
        Ok(match literal {
            LiteralValue::Null => Node::Null,
            LiteralValue::Boolean(value) => Node::Bool(*value.inner()),
            LiteralValue::Int(value) => Node::Integer(i128::from(*value.inner())),
            LiteralValue::UInt(value) => Node::Integer(i128::from(*value.inner())),
            LiteralValue::Double(value) => match Value::decimal(*value.inner()) {
                Ok(Value::Decimal(value)) => Node::Decimal(value),
                _ => {
                    return Err(
                        self.fault(tree, ConditionError::Syntax("this decimal is too large".to_owned()))
                    );
                }
            },
            LiteralValue::String(value) => Node::Text(value.inner().into()),
            LiteralValue::Bytes(_) => {
                return Err(self.unavailable(tree, "a text of bytes", "JSON has none: compare texts"));
            }
        })
    }

    fn call(&mut self, tree: &'a Expression, call: &'a CallExpr, depth: usize) -> Compiled<Node, E> {
        let mut operands = Vec::with_capacity(3);
        let name = call.func_name.as_str();
        if name == operators::IN
            && let [left, right] = call.args.as_slice()
            && is_steps(right)
        {
            let Expr::Literal(LiteralValue::String(step)) = &left.expr else {
                return Err(self.fault(left, ConditionError::StepNotNamed));
            };
            let path = self.step(left, step.inner(), Vec::new())?;
            return Ok(Node::Exists(self.position_of(path)));
        }
        let function = function_of(name, call.target.is_some(), call.args.len());
        if function.is_none() && !is_operator(name) {
            return Err(self.unavailable(tree, &format!("`{name}` in this form"), AVAILABLE));
        }
        for operand in call.target.as_deref().into_iter().chain(&call.args) {
            operands.push(self.node(operand, depth + 1)?);
        }
        if let Some(function) = function {
            return Ok(Node::Call(function, operands.into()));
        }
        match (name, <[Node; 1]>::try_from(operands)) {
            (operators::LOGICAL_NOT, Ok([operand])) => Ok(Node::Not(Box::new(operand))),
            (operators::NEGATE, Ok([operand])) => Ok(Node::Negate(Box::new(operand))),
            (operators::CONDITIONAL, Err(operands)) => self.taken(tree, operands).map(Node::If),
            (operators::LOGICAL_AND, Err(operands)) => self.taken(tree, operands).map(Node::And),
            (operators::LOGICAL_OR, Err(operands)) => self.taken(tree, operands).map(Node::Or),
            (operators::INDEX, Err(operands)) => self.taken(tree, operands).map(Node::Index),
            (_, Err(operands)) => match operator_of(name) {
                Some(operator) => Ok(Node::Binary(operator, self.taken(tree, operands)?)),
                None => Err(self.unavailable(tree, &format!("`{name}`"), AVAILABLE)),
            },
            (_, Ok(_)) => Err(self.unavailable(tree, &format!("`{name}`"), AVAILABLE)),
        }
    }

    fn taken<const N: usize>(&self, tree: &Expression, operands: Vec<Node>) -> Compiled<Box<[Node; N]>, E> {
        let operands = <[Node; N]>::try_from(operands).map(Box::new);
        operands.map_err(|_| self.fault(tree, ConditionError::Syntax("an operand is missing".to_owned())))
    }

    /// What a macro has been expanded to tells which one it was.
    fn quantified(
        &mut self,
        tree: &'a Expression,
        expanded: &'a ComprehensionExpr,
        depth: usize,
    ) -> Compiled<Node, E> {
        let Expr::Call(step) = &expanded.loop_step.expr else {
            return Err(self.unavailable(tree, "this macro", AVAILABLE));
        };
        let (quantifier, asked) = match (&expanded.accu_init.expr, step.args.as_slice()) {
            (Expr::Literal(LiteralValue::Boolean(value)), [_, asked]) => {
                (if *value.inner() { Quantifier::All } else { Quantifier::Exists }, asked)
            }
            (Expr::Literal(LiteralValue::Int(_)), [asked, _, _]) => (Quantifier::ExistsOne, asked),
            _ => return Err(self.unavailable(tree, "`map` or `filter`", AVAILABLE)),
        };
        if self.element.is_some() {
            let help = "only one list can be gone through at a time";
            return Err(self.unavailable(tree, "a quantifier inside another", help));
        }
        if expanded.iter_var2.is_some() || is_root(&expanded.iter_var) {
            let help = "name the element otherwise";
            return Err(self.unavailable(tree, &format!("`{}` for an element", expanded.iter_var), help));
        }
        let range = self.node(&expanded.iter_range, depth + 1)?;
        self.element = Some(&expanded.iter_var);
        let asked = self.node(asked, depth + 1);
        self.element = None;
        Ok(Node::Quantified(quantifier, Box::new([range, asked?])))
    }

    fn position_of(&mut self, path: Path) -> usize {
        self.paths.iter().position(|known| *known == path).unwrap_or_else(|| {
            self.paths.push(path);
            self.paths.len() - 1
        })
    }

    fn path(&self, tree: &Expression) -> Compiled<Option<Path>, E> {
        self.path_of(tree, None)
    }

    /// The path that `tree` spells, with one more key; `None` when it is something else.
    fn path_of(&self, tree: &Expression, last: Option<&str>) -> Compiled<Option<Path>, E> {
        let mut segments: Vec<Segment> = last.map(|key| Segment::Key(key.into())).into_iter().collect();
        let mut rest = tree;
        let root = loop {
            match &rest.expr {
                Expr::Ident(name) if is_root(name) => break name.as_str(),
                Expr::Select(select) if !select.test => {
                    segments.push(Segment::Key(select.field.as_str().into()));
                    rest = &select.operand;
                }
                Expr::Call(call) if call.func_name == operators::INDEX && call.target.is_none() => {
                    let [of, index] = call.args.as_slice() else { return Ok(None) };
                    let Some(segment) = segment_of(index) else {
                        return if is_steps(of) {
                            Err(self.fault(index, ConditionError::StepNotNamed))
                        } else {
                            Ok(None)
                        };
                    };
                    segments.push(segment);
                    rest = of;
                }
                _ => return Ok(None),
            }
        };
        segments.reverse();
        match (root, segments.first()) {
            ("input", _) => self.bounded(rest, Root::Input, segments).map(Some),
            ("steps", Some(Segment::Key(name))) => {
                let name = name.clone();
                segments.remove(0);
                self.step(rest, &name, segments).map(Some)
            }
            ("steps", _) => Err(self.fault(rest, ConditionError::StepNotNamed)),
            (_, Some(Segment::Key(key))) if &**key == "id" && segments.len() == 1 => {
                Ok(Some(Path { root: Root::TransactionId, segments: Vec::new() }))
            }
            _ => Err(self.unavailable(rest, "`transaction`", "only transaction.id can be read")),
        }
    }

    fn step(&self, tree: &Expression, name: &str, mut segments: Vec<Segment>) -> Compiled<Path, E> {
        let next = match segments.first() {
            Some(Segment::Key(key)) => Some(&**key),
            Some(Segment::Element(_)) | None => None,
        };
        match (self.resolve)(name, next) {
            Ok(found) => {
                segments.drain(..usize::from(found.branch.is_some()));
                self.bounded(tree, Root::Result(found), segments)
            }
            Err(cause) => Err(self.fault(tree, ConditionError::Step(cause))),
        }
    }

    fn bounded(&self, tree: &Expression, root: Root, segments: Vec<Segment>) -> Compiled<Path, E> {
        if segments.len() > PATH_SEGMENTS_MAX {
            return Err(self.fault(tree, ConditionError::PathTooLong));
        }
        Ok(Path { root, segments })
    }
}

const AVAILABLE: &str = "there are operators, has(), in, size, contains, startsWith, endsWith, int, uint, double, \
                         string, and on lists all, exists and exists_one";

fn is_root(name: &str) -> bool {
    matches!(name, "input" | "steps" | "transaction")
}

fn is_steps(tree: &Expression) -> bool {
    matches!(&tree.expr, Expr::Ident(name) if name == "steps")
}

fn segment_of(index: &Expression) -> Option<Segment> {
    match &index.expr {
        Expr::Literal(LiteralValue::String(key)) => Some(Segment::Key(key.inner().into())),
        Expr::Literal(LiteralValue::Int(index)) => usize::try_from(*index.inner()).ok().map(Segment::Element),
        Expr::Literal(LiteralValue::UInt(index)) => {
            usize::try_from(*index.inner()).ok().map(Segment::Element)
        }
        _ => None,
    }
}

fn function_of(name: &str, is_method: bool, arguments: usize) -> Option<Function> {
    match (name, is_method, arguments) {
        ("size", false, 1) | ("size", true, 0) => Some(Function::Size),
        ("contains", true, 1) => Some(Function::Contains),
        ("startsWith", true, 1) => Some(Function::StartsWith),
        ("endsWith", true, 1) => Some(Function::EndsWith),
        ("int", false, 1) => Some(Function::Int),
        ("uint", false, 1) => Some(Function::Uint),
        ("double", false, 1) => Some(Function::Double),
        ("string", false, 1) => Some(Function::Text),
        _ => None,
    }
}

fn is_operator(name: &str) -> bool {
    operator_of(name).is_some()
        || matches!(
            name,
            operators::LOGICAL_NOT
                | operators::NEGATE
                | operators::CONDITIONAL
                | operators::LOGICAL_AND
                | operators::LOGICAL_OR
                | operators::INDEX
        )
}

fn operator_of(name: &str) -> Option<Operator> {
    match name {
        operators::ADD => Some(Operator::Add),
        operators::SUBSTRACT => Some(Operator::Subtract),
        operators::MULTIPLY => Some(Operator::Multiply),
        operators::DIVIDE => Some(Operator::Divide),
        operators::MODULO => Some(Operator::Remainder),
        operators::EQUALS => Some(Operator::Equal),
        operators::NOT_EQUALS => Some(Operator::NotEqual),
        operators::LESS => Some(Operator::Less),
        operators::LESS_EQUALS => Some(Operator::LessOrEqual),
        operators::GREATER => Some(Operator::Greater),
        operators::GREATER_EQUALS => Some(Operator::GreaterOrEqual),
        operators::IN => Some(Operator::In),
        _ => None,
    }
}
