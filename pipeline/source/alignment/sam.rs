//! SAM: a header of lines that begin with `@`, then a record a line, its fields separated by tabs.

use super::{Fault, Fields, Flags, Operation, Problem, Summary};
use crate::source::input::{Input, Lines};

/// Fields that every record has.
const FIELDS: usize = 11;

pub(super) struct Sam {
    /// The current line is the record read last.
    lines: Lines,
    /// Of the `@SQ` lines so far.
    references: Vec<String>,
}

impl Sam {
    pub(super) fn new(input: Input) -> Self {
        Self { lines: Lines::new(input), references: Vec::new() }
    }

    pub(super) fn references(&self) -> &[String] {
        &self.references
    }

    /// Reads the next record's line.
    pub(super) fn advance(&mut self) -> Result<Option<Summary>, Fault> {
        loop {
            let Some(line) = self.lines.next_line()? else { return Ok(None) };
            if line.starts_with(b"@SQ\t") {
                self.references.extend(reference(line));
            } else if !line.starts_with(b"@") && !line.is_empty() {
                return Ok(Some(summary(&split(self.lines.current())?)?));
            }
        }
    }

    /// Decodes the record read last.
    pub(super) fn take_fields(&self, fields: &mut Fields) -> Result<(), Fault> {
        let record = split(self.lines.current())?;
        let [name, reference] = [record[0], record[2]].map(str::from_utf8);
        name.map_err(|_| Problem::Name)?.clone_into(&mut fields.name);
        let reference = Some(reference.map_err(|_| Problem::Name)?).filter(|&name| name != "*");
        fields.set_reference(reference);
        take_operations(record[5], &mut fields.cigar)?;
        fields.set_interval(start(record[3])?);
        fields.bases.clear();
        fields.bases.extend_from_slice(record[9]);
        fields.qualities.clear();
        if record[10] != b"*" {
            fields.qualities.extend(record[10].iter().map(|character| character.saturating_sub(b'!')));
        }
        Ok(())
    }
}

/// The name in an `@SQ` line.
fn reference(line: &[u8]) -> Option<String> {
    let name = line.split(|&b| b == b'\t').find_map(|field| field.strip_prefix(b"SN:"))?;
    String::from_utf8(name.to_owned()).ok()
}

fn split(record: &[u8]) -> Result<[&[u8]; FIELDS], Problem> {
    let mut fields = [&record[..0]; FIELDS];
    let mut found = 0;
    for (field, text) in fields.iter_mut().zip(record.split(|&b| b == b'\t')) {
        *field = text;
        found += 1;
    }
    if found < FIELDS { Err(Problem::Fields { found }) } else { Ok(fields) }
}

fn summary(record: &[&[u8]; FIELDS]) -> Result<Summary, Problem> {
    let bases = if record[9] == b"*" { 0 } else { record[9].len() };
    if record[10] != b"*" && record[10].len() != bases {
        return Err(field("QUAL", record[10], "`*`, or one character a base"));
    }
    Ok(Summary {
        flags: Flags(number("FLAG", record[1], "a number from 0 to 65535")?),
        mapping_quality: number("MAPQ", record[4], "a number from 0 to 255")?,
        bases,
    })
}

/// None when the position is unknown (0).
fn start(position: &[u8]) -> Result<Option<u64>, Problem> {
    let position: u32 = number("POS", position, "a number from 0 to 2147483647")?;
    Ok(u64::from(position).checked_sub(1))
}

fn take_operations(cigar: &[u8], operations: &mut Vec<Operation>) -> Result<(), Problem> {
    operations.clear();
    if cigar == b"*" {
        return Ok(());
    }
    for operation in cigar.split_inclusive(|b| !b.is_ascii_digit()) {
        let (&code, count) = operation.split_last().ok_or_else(|| bad_cigar(cigar))?;
        let count: Option<u32> = str::from_utf8(count).ok().and_then(|count| count.parse().ok());
        let bases = u64::from(count.ok_or_else(|| bad_cigar(cigar))?);
        if !b"MIDNSHP=X".contains(&code) {
            return Err(bad_cigar(cigar));
        }
        operations.push(Operation { code, bases });
    }
    Ok(())
}

fn bad_cigar(found: &[u8]) -> Problem {
    field("CIGAR", found, "`*`, or numbers each with one of MIDNSHP=X")
}

fn number<T: std::str::FromStr>(
    name: &'static str,
    text: &[u8],
    expected: &'static str,
) -> Result<T, Problem> {
    let parsed = str::from_utf8(text).ok().and_then(|text| text.parse().ok());
    parsed.ok_or_else(|| field(name, text, expected))
}

fn field(field: &'static str, found: &[u8], expected: &'static str) -> Problem {
    let shown = &found[..found.len().min(40)];
    Problem::Field { field, found: shown.escape_ascii().to_string(), expected }
}
