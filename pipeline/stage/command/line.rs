//! The words of a command and their placeholders.

use std::collections::BTreeMap;

use crate::units::similar;

/// What stands for the placeholders.
#[derive(Debug, Default)]
pub(super) struct Values {
    pub out: String,
    pub threads: String,
    /// The folders of the inputs, by role.
    pub inputs: BTreeMap<String, String>,
    /// The paths of the files, by name.
    pub files: BTreeMap<String, String>,
}

impl Values {
    fn of(&self, placeholder: &str) -> Option<&str> {
        let value = match placeholder.split_once('.') {
            None if placeholder == "out" => Some(&self.out),
            None if placeholder == "threads" => Some(&self.threads),
            Some(("input", role)) => self.inputs.get(role),
            Some(("file", name)) => self.files.get(name),
            _ => None,
        };
        value.map(String::as_str)
    }

    /// What the program finds in its environment, beside what genomill itself has.
    pub fn variables(&self) -> Vec<(String, String)> {
        let named = |kind: &'static str| {
            move |(name, path): (&String, &String)| {
                (format!("GENOMILL_{kind}_{}", name.to_uppercase()), path.clone())
            }
        };
        let own = [("GENOMILL_OUT", &self.out), ("GENOMILL_THREADS", &self.threads)];
        let own = own.map(|(name, value)| (name.to_owned(), value.clone()));
        let inputs = self.inputs.iter().map(named("INPUT"));
        own.into_iter().chain(inputs).chain(self.files.iter().map(named("FILE"))).collect()
    }
}

/// A piece of a command.
pub(super) enum Line<'a> {
    /// An argument.
    Word(&'a str),
    /// Lines for the shell.
    Shell(&'a str),
}

impl Line<'_> {
    const fn text(&self) -> &str {
        match self {
            Self::Word(text) | Self::Shell(text) => text,
        }
    }

    /// With values in place of the placeholders, which a shell must see as single words.
    pub fn filled(&self, values: &Values) -> String {
        let mut out = String::new();
        let mut rest = self.text();
        while let Some((before, after)) = rest.split_once('{') {
            out += before;
            let found = after.split_once('}').and_then(|(name, after)| Some((values.of(name)?, after)));
            if let Some((value, after)) = found {
                out += &if matches!(self, Self::Shell(_)) { quoted(value) } else { value.to_owned() };
                rest = after;
            } else {
                out.push('{');
                rest = after;
            }
        }
        out + rest
    }

    /// A placeholder for an input or a file that is not declared.
    pub fn problem<I, F>(&self, inputs: &BTreeMap<String, I>, files: &BTreeMap<String, F>) -> Option<String> {
        let names =
            self.text().split('{').skip(1).filter_map(|rest| rest.split_once('}')).map(|(name, _)| name);
        names.into_iter().find_map(|name| match name.split_once('.')? {
            ("input", role) => undeclared("input", role, &inputs.keys().collect::<Vec<_>>()),
            ("file", file) => undeclared("file", file, &files.keys().collect::<Vec<_>>()),
            _ => None,
        })
    }
}

fn undeclared(what: &str, name: &str, known: &[&String]) -> Option<String> {
    if known.iter().any(|known| *known == name) {
        return None;
    }
    let shown = |name: &str| format!("`{{{what}.{name}}}`");
    let all: Vec<String> = known.iter().map(|name| shown(name)).collect();
    let all = if all.is_empty() { "none".to_owned() } else { all.join(", ") };
    let hint = similar(name, known.iter().map(|name| name.as_str()));
    let hint = hint.map_or_else(String::new, |hint| format!("; did you mean {}?", shown(&hint)));
    Some(format!("{} names no {what}, expected {all}{hint}", shown(name)))
}

/// A text as one word of the shell.
fn quoted(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"/._-+=:,@%".contains(&b);
    if !text.is_empty() && text.bytes().all(plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', "'\\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_are_filled_and_other_braces_left() {
        let values = Values {
            out: "/a b/out".to_owned(),
            threads: "2".to_owned(),
            inputs: BTreeMap::from([("genome".to_owned(), "/corpus/raw".to_owned())]),
            files: BTreeMap::from([("script".to_owned(), "it's.py".to_owned())]),
        };
        for (text, word, shell) in [
            ("{out}/x", "/a b/out/x", "'/a b/out'/x"),
            ("-p{threads}", "-p2", "-p2"),
            ("{input.genome}/records", "/corpus/raw/records", "/corpus/raw/records"),
            ("{file.script}", "it's.py", "'it'\\''s.py'"),
            ("awk '{print $1}' {x.y} {", "awk '{print $1}' {x.y} {", "awk '{print $1}' {x.y} {"),
            ("{{threads}}", "{2}", "{2}"),
        ] {
            assert_eq!(Line::Word(text).filled(&values), word);
            assert_eq!(Line::Shell(text).filled(&values), shell);
        }
    }
}
