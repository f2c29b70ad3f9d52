//! Conditions: the CEL expression in a rule's `when`.
//!
//! The CEL library limits neither time nor stack. Compilation therefore refuses loops, and bounds
//! the length of the source and the depth of the syntax tree, because evaluation recurses into the
//! tree. Evaluation limits the number of claim values that it reads.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};
use std::thread;

use cel::common::ast::{EntryExpr, Expr, IdedExpr, LiteralValue, operators as op};
use cel::common::types::{CelBool, CelMap, CelMapKey, CelString};
use cel::common::value::{CowVal, Val};
use cel::context::VariableResolver;
use cel::{Context, Env, ExecutionError, Value};
use curfew_model::{Action, Channel};

use crate::claims::LazyClaims;

/// Maximum size of a condition's source, in bytes.
const MAX_SOURCE: usize = 2048;

/// Maximum depth of the syntax tree. Evaluation takes up to 30 KiB of stack per level in a debug
/// build (64 levels need 1.5 to 2 MiB), and a worker of the runtime has 2 MiB in total. `&&` and
/// `||` add little depth, because the parser balances them.
const MAX_DEPTH: usize = 24;

/// Stack of the compiler's thread, in bytes. The parser recurses for every operator of a chain
/// before the depth of the tree can be measured. The longest source needs up to 1.5 MiB in a debug
/// build.
const COMPILER_STACK: usize = 16 * 1024 * 1024;

/// Limit on the values read by one evaluation. Each use of `claims` counts as a read of all its
/// values, because the time of one operation grows at most in proportion to their number.
/// Conditions on ordinary claims stay far below this limit. The most expensive condition that was
/// found took 360 ms on 3,500 values in a debug build without this limit. With the limit, this
/// condition fails after 15 ms.
const BUDGET: usize = 100_000;

/// The variables of a condition.
const VARIABLES: [&str; 5] = ["claims", "params", "channel", "user", "action"];

const OPERATORS: [&str; 18] = [
    op::CONDITIONAL,
    op::LOGICAL_AND,
    op::LOGICAL_OR,
    op::LOGICAL_NOT,
    op::ADD,
    op::SUBSTRACT,
    op::MULTIPLY,
    op::DIVIDE,
    op::MODULO,
    op::NEGATE,
    op::EQUALS,
    op::NOT_EQUALS,
    op::GREATER,
    op::GREATER_EQUALS,
    op::LESS,
    op::LESS_EQUALS,
    op::INDEX,
    op::IN,
];

/// The allowed functions. The parser resolves `has` itself.
const FUNCTIONS: [&str; 12] = [
    "size",
    "contains",
    "startsWith",
    "endsWith",
    "string",
    "int",
    "uint",
    "double",
    "bytes",
    "bool",
    "type",
    "dyn",
];

/// Names of types, for comparison with `type(x)`.
const TYPES: [&str; 10] = [
    "bool",
    "bytes",
    "double",
    "int",
    "list",
    "map",
    "null_type",
    "string",
    "type",
    "uint",
];

/// The operators and functions of CEL's standard library. All conditions share this environment,
/// because it is immutable.
static STANDARD_LIBRARY: LazyLock<Arc<Env>> =
    LazyLock::new(|| Arc::new(Env::stdlib().with_optional_support(false)));

/// A compiled condition.
#[derive(Debug)]
pub(crate) struct Condition {
    expression: IdedExpr,
    params: Vec<Box<str>>,
    /// True if the source has a literal in every `[…]`. An error can then name a missing key
    /// without showing a claim's value.
    keys_are_literal: bool,
}

/// Reason why a source is not a condition.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConditionError {
    #[error("the expression is empty; remove it for a rule without a condition")]
    Empty,
    #[error("the expression has {0} bytes; at most {MAX_SOURCE} are allowed")]
    TooLong(usize),
    #[error("line {line}, column {column}: {message}")]
    Syntax {
        line: isize,
        column: isize,
        message: String,
    },
    #[error(
        "all, exists, exists_one, map and filter are not allowed: their cost has no bound; use `in`"
    )]
    Comprehension,
    #[error("the expression is nested or chained deeper than {MAX_DEPTH} levels; split the rule")]
    TooDeep,
    #[error("unknown variable {0:?}; the variables are claims, params, channel, user and action")]
    UnknownVariable(String),
    #[error("unknown function {name:?}; the functions are has, {}", FUNCTIONS.join(", "))]
    UnknownFunction { name: String },
    #[error("messages such as Name{{field: 1}} are not supported")]
    Message,
    #[error("the compiler cannot process this expression")]
    Aborted,
    #[error("start the compiler's thread: {0}")]
    Thread(std::io::Error),
}

/// Reason why an evaluation failed. Never contains a claim's value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum EvaluationError {
    #[error("no such key: {0}; check with has() that the key exists")]
    MissingKey(String),
    #[error("no such key; check with has() or `in` that the key exists")]
    MissingComputedKey,
    #[error("the result is not true or false")]
    NotBool,
    #[error("{0}")]
    Types(String),
    #[error("these values cannot be used with this operator or function")]
    Operands,
    #[error("division by zero")]
    DivisionByZero,
    #[error("the number is out of range")]
    Overflow,
    #[error("the index is out of bounds")]
    IndexOutOfBounds,
    #[error("the expression takes too long on claims of this size")]
    TooLong,
    #[error("the expression failed")]
    Other,
}

/// Inputs of one evaluation.
pub(crate) struct Inputs<'a> {
    pub(crate) claims: &'a LazyClaims<'a>,
    pub(crate) params: &'a [(&'a str, &'a str)],
    pub(crate) user: &'a str,
    pub(crate) action: Action,
    pub(crate) channel: &'a Channel,
}

/// The variables of one evaluation, with the number of values read so far.
struct Variables<'a> {
    inputs: &'a Inputs<'a>,
    spent: AtomicUsize,
}

impl Condition {
    /// Compiles `source` on a thread of its own, because parsing needs a large stack.
    pub(crate) fn compile(source: &str) -> Result<Self, ConditionError> {
        if source.trim().is_empty() {
            return Err(ConditionError::Empty);
        }
        if source.len() > MAX_SOURCE {
            return Err(ConditionError::TooLong(source.len()));
        }
        thread::scope(|scope| {
            thread::Builder::new()
                .name("compile condition".into())
                .stack_size(COMPILER_STACK)
                .spawn_scoped(scope, || compile_here(source))
                .map_err(ConditionError::Thread)?
                .join()
                .unwrap_or(Err(ConditionError::Aborted))
        })
    }

    /// The `x` of every `params.x` in the source.
    pub(crate) fn params(&self) -> &[Box<str>] {
        &self.params
    }

    /// Evaluates the condition to true or false.
    pub(crate) fn evaluate(&self, inputs: &Inputs<'_>) -> Result<bool, EvaluationError> {
        let variables = Variables {
            inputs,
            spent: AtomicUsize::new(0),
        };
        let mut context = Context::with_env(Arc::clone(&STANDARD_LIBRARY));
        context.set_variable_resolver(&variables);
        let result = Value::resolve_val(&self.expression, &context);
        // `BUDGET` is checked even if the evaluation has a result, because `||` can turn a refused
        // look-up of `claims` into true.
        if variables.spent.load(Ordering::Relaxed) > BUDGET {
            return Err(EvaluationError::TooLong);
        }
        match result {
            Ok(value) => match value.downcast_ref::<CelBool>() {
                Some(answer) => Ok(*answer.inner()),
                None => Err(EvaluationError::NotBool),
            },
            Err(error) => Err(self.without_values(error)),
        }
    }

    /// Converts an error of CEL, which may quote claim values, into an error without values.
    fn without_values(&self, error: ExecutionError) -> EvaluationError {
        match error {
            ExecutionError::NoSuchKey(key) if self.keys_are_literal => {
                EvaluationError::MissingKey(key.to_string())
            }
            ExecutionError::NoSuchKey(_) => EvaluationError::MissingComputedKey,
            // This message contains only an operator and types.
            ExecutionError::NoSuchOverload(overload) => {
                EvaluationError::Types(overload.to_string())
            }
            ExecutionError::DivisionByZero(_) | ExecutionError::RemainderByZero(_) => {
                EvaluationError::DivisionByZero
            }
            ExecutionError::Overflow(..) => EvaluationError::Overflow,
            ExecutionError::IndexOutOfBounds(_) => EvaluationError::IndexOutOfBounds,
            ExecutionError::UnsupportedBinaryOperator(..)
            | ExecutionError::ValuesNotComparable(..)
            | ExecutionError::UnsupportedKeyType(_)
            | ExecutionError::UnsupportedIndex(..)
            | ExecutionError::UnexpectedType { .. } => EvaluationError::Operands,
            _ => EvaluationError::Other,
        }
    }
}

impl VariableResolver for Variables<'_> {
    fn resolve<'b>(&'b self, variable: &str) -> Option<CowVal<'b, 'b>> {
        let inputs = self.inputs;
        match variable {
            "claims" => {
                let claims = inputs.claims.cel();
                let spent = self.spent.fetch_add(claims.values, Ordering::Relaxed);
                (spent + claims.values <= BUDGET).then_some(CowVal::Borrowed(&claims.map))
            }
            "params" => {
                let entries: HashMap<CelMapKey<'b>, Box<dyn Val + 'b>> = inputs
                    .params
                    .iter()
                    .map(|&(name, value)| {
                        let value: Box<dyn Val + 'b> = Box::new(CelString::from(value));
                        (name.into(), value)
                    })
                    .collect();
                Some(CowVal::owned(CelMap::from(entries)))
            }
            "channel" => Some(text(inputs.channel.as_str())),
            "user" => Some(text(inputs.user)),
            "action" => Some(text(inputs.action.as_str())),
            _ => None,
        }
    }
}

fn text<'b>(text: &'b str) -> CowVal<'b, 'b> {
    CowVal::owned(CelString::from(text))
}

/// Parses and checks a source. A refused syntax tree is dropped here, on the thread with the large
/// stack, because dropping a tree recurses.
fn compile_here(source: &str) -> Result<Condition, ConditionError> {
    let expression = STANDARD_LIBRARY
        .parser()
        .parse(source)
        .map_err(|errors| first_error(source, &errors))?;
    let mut condition = Condition {
        expression: IdedExpr::default(),
        params: Vec::new(),
        keys_are_literal: true,
    };
    condition.inspect(&expression, 1)?;
    condition.expression = expression;
    Ok(condition)
}

/// The parser's message, with advice for common mistakes.
fn explained(source: &str, message: &str) -> String {
    let message = message.split_whitespace().collect::<Vec<_>>().join(" ");
    if message.contains("token recognition error at: '=") {
        return format!("{message}; compare values with ==");
    }
    // The parser takes a leading `not` for a name, and its message is about the text after `not`.
    let begins = |word: &str| word == "not" && source.trim_start().starts_with("not ");
    let word = OTHER_WORDS
        .iter()
        .find(|(word, _)| begins(word) || message.contains(&format!("input '{word}'")));
    match word {
        // The rest of the parser's message is left out, because it only lists the tokens of the
        // grammar.
        Some((word, right)) => {
            let place = message.split(": ").next().unwrap_or_default();
            format!("{place}: CEL has no '{word}' here: {right}")
        }
        None => message,
    }
}

/// Words from other languages, with their form in CEL.
const OTHER_WORDS: [(&str, &str); 7] = [
    ("and", "write &&"),
    ("or", "write ||"),
    ("not", "write !( … ), as in !(\"admin\" in claims.roles)"),
    (
        "contains",
        "write \"admin\" in claims.roles for a list, claims.name.contains(\"a\") for a string",
    ),
    ("startsWith", "write claims.name.startsWith(\"a\")"),
    ("endsWith", "write claims.name.endsWith(\"a\")"),
    (
        "matches",
        "there are no regular expressions, write claims.name.startsWith(\"a\") or \
         claims.name.contains(\"a\")",
    ),
];

fn first_error(source: &str, errors: &cel::ParseErrors) -> ConditionError {
    match errors.errors.first() {
        Some(error) => ConditionError::Syntax {
            line: error.pos.0.max(1),
            column: error.pos.1.max(1),
            message: explained(source, &error.msg),
        },
        None => ConditionError::Aborted,
    }
}

impl Condition {
    /// Checks the syntax tree below `node`, and collects the names of the parameters that it uses.
    fn inspect(&mut self, node: &IdedExpr, depth: usize) -> Result<(), ConditionError> {
        if depth > MAX_DEPTH {
            return Err(ConditionError::TooDeep);
        }
        let below = depth + 1;
        match &node.expr {
            Expr::Literal(_) => {}
            Expr::Ident(name) => {
                let name = name.as_str();
                if !VARIABLES.contains(&name) && !TYPES.contains(&name) {
                    return Err(ConditionError::UnknownVariable(name.to_owned()));
                }
            }
            Expr::Select(select) => {
                if matches!(&select.operand.expr, Expr::Ident(name) if name == "params") {
                    self.params.push(select.field.as_str().into());
                }
                self.inspect(&select.operand, below)?;
            }
            Expr::Call(call) => {
                let name = call.func_name.as_str();
                if !OPERATORS.contains(&name) && !FUNCTIONS.contains(&name) {
                    return Err(ConditionError::UnknownFunction {
                        name: name.to_owned(),
                    });
                }
                if name == op::INDEX && !call.args.get(1).is_some_and(is_text) {
                    self.keys_are_literal = false;
                }
                for part in call.target.as_deref().into_iter().chain(&call.args) {
                    self.inspect(part, below)?;
                }
            }
            Expr::List(list) => {
                for element in &list.elements {
                    self.inspect(element, below)?;
                }
            }
            Expr::Map(map) => {
                for entry in &map.entries {
                    let EntryExpr::MapEntry(entry) = &entry.expr else {
                        return Err(ConditionError::Message);
                    };
                    self.inspect(&entry.key, below)?;
                    self.inspect(&entry.value, below)?;
                }
            }
            Expr::Comprehension(_) => return Err(ConditionError::Comprehension),
            Expr::Struct(_) => return Err(ConditionError::Message),
            Expr::Unspecified => return Err(ConditionError::Aborted),
        }
        Ok(())
    }
}

fn is_text(node: &IdedExpr) -> bool {
    matches!(node.expr, Expr::Literal(LiteralValue::String(_)))
}

#[cfg(test)]
mod tests;
