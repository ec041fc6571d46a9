//! From a text to the tree of cel's parser, within bounds.
//!
//! That parser recurses for brackets and for each operator of a chain, so both are counted before it begins. To count
//! what it will see, texts must be read as it reads them: the forms that would make this hard are refused.

use cel::parser::{Expression, ParseErrors, Parser};

use super::{ConditionError, ConditionFault, NESTING_MAX, TEXT_MAX_BYTES, TOKENS_MAX};

const HAS: &str =
    "has() takes a path that ends with .field, and with .`the-field` for a name with other characters";

/// A parsed text. Whoever walks the tree bounds its own depth.
pub(super) struct Parsed<'a> {
    pub(super) text: &'a str,
    pub(super) tree: Expression,
    source: cel::common::ast::SourceInfo,
}

pub(super) fn parse<E>(text: &str) -> Result<Parsed<'_>, ConditionFault<E>> {
    check_bounds(text)?;
    let parser = Parser::new().enable_ident_escape_syntax(true);
    match parser.parse_with_source_info(text) {
        Ok((tree, source)) => Ok(Parsed { text, tree, source }),
        Err(errors) => Err(syntax_fault(text, &errors)),
    }
}

impl Parsed<'_> {
    /// Where a node stands: its name, its operator or the bracket of its call.
    pub(super) fn place(&self, node: &Expression) -> usize {
        let character = self.source.offset_for(node.id).map_or(0, |(start, _)| start as usize);
        byte_of(self.text, character)
    }
}

fn byte_of(text: &str, character: usize) -> usize {
    text.char_indices().nth(character).map_or(text.len(), |(byte, _)| byte)
}

/// The first of the parser's complaints. The list of tokens it would have liked says nothing to a user.
fn syntax_fault<E>(text: &str, errors: &ParseErrors) -> ConditionFault<E> {
    let Some(first) = errors.errors.first() else {
        return ConditionFault { at: 0, cause: ConditionError::Syntax("this is no expression".to_owned()) };
    };
    let (line, column) = first.pos;
    let before = text.split_inclusive('\n').take(usize::try_from(line - 1).unwrap_or(0));
    let begin: usize = before.map(str::len).sum();
    let at = begin + byte_of(&text[begin..], usize::try_from(column - 1).unwrap_or(0));
    let complaint = first.msg.strip_prefix("Syntax error: ").unwrap_or(&first.msg);
    let complaint = match complaint.split_once(" expecting ") {
        Some((found, _)) if found.contains("<EOF>") => "something is missing at the end",
        Some((found, _)) => found,
        None if complaint.contains("has() macro") => HAS,
        None => complaint,
    };
    ConditionFault { at, cause: ConditionError::Syntax(complaint.to_owned()) }
}

fn check_bounds<E>(text: &str) -> Result<(), ConditionFault<E>> {
    let fault = |at, cause| Err(ConditionFault { at, cause });
    let unavailable =
        |at, what: &str, help| fault(at, ConditionError::Unavailable { what: what.into(), help });
    if text.len() > TEXT_MAX_BYTES {
        return fault(byte_of(text, 0), ConditionError::TooLong);
    }
    let (mut at, mut tokens, mut nesting) = (0, 0, 0_usize);
    while let Some(first) = text[at..].chars().next() {
        let rest = &text[at..];
        let mut length = first.len_utf8();
        match first {
            '"' | '\'' if rest[1..].starts_with([first, '\'', '"']) && rest[2..].starts_with(first) => {
                return unavailable(at, "a triple-quoted text", "use quotes of the other kind, or \\");
            }
            '"' | '\'' | '`' => match quoted_length(rest, first) {
                Some(quoted) => length = quoted,
                None => return fault(at, ConditionError::Syntax(format!("{first} is not closed"))),
            },
            '(' | '[' | '{' if nesting == NESTING_MAX => return fault(at, ConditionError::TooManyBrackets),
            '(' | '[' | '{' => nesting += 1,
            ')' | ']' | '}' => nesting = nesting.saturating_sub(1),
            '/' if rest.starts_with("//") => {
                return unavailable(at, "a comment", "comment in the definition, with #");
            }
            '-' => {
                if let Some(name) = hyphenated(text, at) {
                    return fault(at, ConditionError::Hyphen(name));
                }
            }
            _ if is_word(first) => {
                length = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
                if rest[length..].starts_with(['"', '\'']) {
                    return unavailable(at, "a letter before quotes", "write the text in plain quotes");
                }
            }
            _ => {}
        }
        tokens += usize::from(!first.is_whitespace());
        if tokens > TOKENS_MAX {
            return fault(at, ConditionError::TooManyTokens);
        }
        at += length;
    }
    Ok(())
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

/// Bytes of a quoted text with its quotes; `None` when it is not closed in its line.
fn quoted_length(rest: &str, quote: char) -> Option<usize> {
    let mut is_escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            '\n' | '\r' => return None,
            _ if is_escaped => is_escaped = false,
            '\\' if quote != '`' => is_escaped = true,
            _ if c == quote => return Some(at + 1),
            _ => {}
        }
    }
    None
}

/// The name that was meant, when the `-` at `minus` stands in `steps.reserve-stock`.
fn hyphenated(text: &str, minus: usize) -> Option<String> {
    let (before, after) = text.split_at(minus);
    let word = before.rfind(|c| !is_word(c)).map_or(0, |at| at + 1);
    let head = before.get(..word)?.strip_suffix("steps.")?;
    let is_part_of_name = |c: char| c.is_ascii_alphanumeric() || c == '-';
    let tail = &after[..after.find(|c| !is_part_of_name(c)).unwrap_or(after.len())];
    let is_root = !head.ends_with(|c| is_word(c) || c == '.');
    (is_root && word < minus && tail.len() > 1).then(|| format!("{}{tail}", &before[word..]))
}
