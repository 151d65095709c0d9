//! `when`: whether a stage is for this run. A text such as `${params.organism} == yeast and not ${params.dry}`.
//!
//! `or` joins what `and` joins; `not` stands before one comparison. What is compared is a name in `${...}`, a word, a number,
//! or a text in quotes. Names are replaced after the text is taken apart, so that no value can be read as an operator.

use serde_json::Value;

use super::plain;
use crate::workflow::yaml;

const OPERATORS: [&str; 6] = ["==", "!=", "<=", ">=", "<", ">"];

/// What a text consists of.
#[derive(Debug, Clone, PartialEq)]
enum Token {
    Operator(&'static str),
    Word(String),
    Quoted(String),
}

/// The outcome, and the text with values in place of names.
pub(super) type Verdict = (bool, String);

/// Whether the condition holds. `value` replaces the names in a text; none after a mistake that it has told.
///
/// # Errors
/// What was expected, in words.
pub(super) fn holds(
    text: &str,
    value: &mut dyn FnMut(&str) -> Option<Value>,
) -> Result<Option<Verdict>, String> {
    let tokens = tokens(text)?;
    let (mut any, mut told, mut failed) = (false, Vec::new(), false);
    for part in split(&tokens, "or") {
        let (mut all, mut words) = (true, Vec::new());
        for part in split(part, "and") {
            match comparison(part, value)? {
                Some((holds, text)) => {
                    all &= holds;
                    words.push(text);
                }
                None => failed = true,
            }
        }
        any |= all;
        told.push(words.join(" and "));
    }
    Ok((!failed).then(|| (any, told.join(" or "))))
}

fn split<'t>(tokens: &'t [Token], word: &str) -> Vec<&'t [Token]> {
    tokens.split(|token| *token == Token::Word(word.to_owned())).collect()
}

fn tokens(text: &str) -> Result<Vec<Token>, String> {
    let mut tokens = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let operator = OPERATORS.into_iter().find(|operator| rest.starts_with(operator));
        let (token, length) = if let Some(operator) = operator {
            (Token::Operator(operator), operator.len())
        } else if matches!(first, '"' | '\'') {
            let end = rest[1..].find(first).ok_or_else(|| format!("a {first} without its end"))?;
            (Token::Quoted(rest[1..=end].to_owned()), end + 2)
        } else {
            let end = end_of_word(rest);
            (Token::Word(rest[..end].to_owned()), end)
        };
        tokens.push(token);
        rest = rest[length..].trim_start();
    }
    Ok(tokens)
}

/// A word ends at a blank or an operator outside `${...}`.
fn end_of_word(text: &str) -> usize {
    let mut inside = false;
    for (at, c) in text.char_indices() {
        match c {
            '$' if text[at..].starts_with("${") => inside = true,
            '}' => inside = false,
            _ if inside => {}
            c if c.is_whitespace() || matches!(c, '<' | '>') => return at,
            _ if text[at..].starts_with("==") || text[at..].starts_with("!=") => return at,
            _ => {}
        }
    }
    text.len()
}

fn comparison(
    tokens: &[Token],
    value: &mut dyn FnMut(&str) -> Option<Value>,
) -> Result<Option<Verdict>, String> {
    if let [Token::Word(not), rest @ ..] = tokens
        && not == "not"
    {
        return Ok(comparison(rest, value)?.map(|(holds, text)| (!holds, format!("not {text}"))));
    }
    let at = tokens.iter().position(|token| matches!(token, Token::Operator(_)));
    let Some((at, Token::Operator(operator))) = at.map(|at| (at, &tokens[at])) else {
        return match operand(tokens, value)? {
            Some(Value::Bool(holds)) => Ok(Some((holds, holds.to_string()))),
            Some(other) => Err(expected(&plain(&other))),
            None => Ok(None),
        };
    };
    let (left, right) = (operand(&tokens[..at], value)?, operand(&tokens[at + 1..], value)?);
    let (Some(left), Some(right)) = (left, right) else { return Ok(None) };
    let text = format!("{} {operator} {}", plain(&left), plain(&right));
    Ok(Some((compare(&left, operator, &right)?, text)))
}

fn expected(found: &str) -> String {
    format!("expected true, false or a comparison such as `${{params.organism}} == yeast`, found `{found}`")
}

/// Words beside each other are one text.
fn operand(tokens: &[Token], value: &mut dyn FnMut(&str) -> Option<Value>) -> Result<Option<Value>, String> {
    let text = |token: &Token| match token {
        Token::Word(text) | Token::Quoted(text) => Ok(text.clone()),
        Token::Operator(operator) => Err(format!("expected one comparison, found another `{operator}`")),
    };
    let texts: Vec<String> = tokens.iter().map(text).collect::<Result<_, _>>()?;
    match tokens {
        [] => Err("expected something to compare, found nothing".to_owned()),
        [Token::Word(word)] if !word.contains("${") => {
            let read = yaml::parse_value(word);
            Ok(Some(if read.is_array() || read.is_object() { Value::String(word.clone()) } else { read }))
        }
        [Token::Quoted(_)] => Ok(value(&texts[0]).map(|value| Value::String(plain(&value)))),
        _ => Ok(value(&texts.join(" "))),
    }
}

fn compare(left: &Value, operator: &str, right: &Value) -> Result<bool, String> {
    let number = |value: &Value| plain(value).parse::<f64>().ok().filter(|number| number.is_finite());
    let numbers = number(left).zip(number(right));
    let equal = numbers.map_or_else(|| plain(left) == plain(right), |(a, b)| a.total_cmp(&b).is_eq());
    match operator {
        "==" => return Ok(equal),
        "!=" => return Ok(!equal),
        _ => {}
    }
    let Some((a, b)) = numbers else {
        let text = if number(left).is_none() { left } else { right };
        return Err(format!("`{operator}` compares numbers, found `{}`", plain(text)));
    };
    Ok(match operator {
        "<" => a < b,
        "<=" => a <= b,
        ">" => a > b,
        _ => a >= b,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn verdict(text: &str) -> Result<Option<Verdict>, String> {
        holds(text, &mut |text| match text {
            "${on}" => Some(json!(true)),
            "${off}" => Some(json!(false)),
            "${n}" => Some(json!(96)),
            "${organism}" => Some(json!("a == b")),
            text => (!text.contains("${")).then(|| json!(text)),
        })
    }

    #[test]
    fn conditions_hold_or_not() {
        for (text, expected) in [
            ("true", true),
            ("${off}", false),
            ("not ${off}", true),
            ("${n} == 96", true),
            ("${n}==96.0", true),
            ("${n} != 96", false),
            ("${n} < 100 and ${n} >= 96", true),
            ("${n} > 96 or ${on}", true),
            ("${off} and ${off} or ${on}", true),
            ("${on} or ${off} and ${off}", true),
            ("${organism} == 'a == b'", true),
            ("a == b", false),
            ("yeast == yeast", true),
            ("the yeast == 'the yeast'", true),
            ("not ${n} == 96", false),
        ] {
            assert_eq!(verdict(text).unwrap().unwrap().0, expected, "{text}");
        }
        assert_eq!(verdict("${n} < 7 and ${on}").unwrap().unwrap().1, "96 < 7 and true");
        assert_eq!(verdict("${unknown} == 1").unwrap(), None);
    }

    #[test]
    fn what_is_no_condition_is_refused() {
        for (text, expected) in [
            (
                "yeast",
                "expected true, false or a comparison such as `${params.organism} == yeast`, found `yeast`",
            ),
            ("", "expected something to compare, found nothing"),
            ("${n} ==", "expected something to compare, found nothing"),
            ("1 == 1 == 1", "expected one comparison, found another `==`"),
            ("yeast < 5", "`<` compares numbers, found `yeast`"),
            ("${n} and", "expected true, false"),
            ("'a == b", "a ' without its end"),
        ] {
            let error = verdict(text).unwrap_err();
            assert!(error.starts_with(expected), "{text}: {error}");
        }
    }
}
