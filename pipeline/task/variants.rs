//! Variant effects without training: a variant in its surroundings against the reference there, from VCF and FASTA.
//!
//! Every allele of a line is a variant of its own. Memory: the lines of the VCF that have a label, and one sequence of the assembly, besides the
//! examples.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Dataset, Error, Example, Kind, Metric, Part, Place, reference};
use crate::source::vcf;
use crate::units::{Interval, Strand};

const NEGATIVE: u32 = 0;
const POSITIVE: u32 = 1;

/// Variants of a VCF file on an assembly, with a label from `info` or from `column`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Variants {
    /// A VCF file.
    pub vcf: PathBuf,
    /// A FASTA file.
    pub assembly: PathBuf,
    /// The key of the INFO column with the label, such as `CLNSIG`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub info: Option<String>,
    /// The column with the label.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub column: Option<Column>,
    /// Labels of variants that a model should find unlikely.
    pub positive: Vec<String>,
    /// Labels of the others; variants with another label are left out.
    pub negative: Vec<String>,
    /// Bases of a variant and its surroundings, half of them before it. Default 512.
    #[serde(default = "window")]
    #[schemars(range(min = 2))]
    pub window: u64,
    /// Whether insertions and deletions are variants too: their sequences are of unlike length. Default: they are left out.
    #[serde(default)]
    pub indels: bool,
    /// Sequences whose variants are left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exclude: Vec<String>,
}

/// A column of a VCF file that may hold a label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Column {
    /// The third one.
    Id,
    /// The seventh one.
    Filter,
}

const fn window() -> u64 {
    512
}

/// An allele with a label.
struct Variant {
    line: u64,
    position: u64,
    reference: Vec<u8>,
    alternative: Vec<u8>,
    class: u32,
}

/// Reads the examples, all of them to score on.
pub fn read(name: &str, variants: &Variants, base: &Path) -> Result<Dataset, Error> {
    let wrong = |problem: &str| Error::Sites { task: name.to_owned(), problem: problem.to_owned() };
    if variants.info.is_some() == variants.column.is_some() {
        return Err(wrong("expected one of `info` and `column`, which says where the label is"));
    }
    if variants.window < 2 || variants.positive.is_empty() || variants.negative.is_empty() {
        return Err(wrong("`window` is below 2, or `positive` or `negative` names no label"));
    }
    let mut dataset = Dataset {
        name: name.to_owned(),
        classes: ["negative", "positive"].map(str::to_owned).to_vec(),
        metric: Some(Metric::Auroc),
        kind: Kind::Pairs,
        ..Dataset::default()
    };
    let mut found = gather(&mut dataset, variants, base)?;
    let numbers: HashMap<String, u32> = dataset.contigs.iter().cloned().zip(0..).collect();
    let assembly = base.join(&variants.assembly);
    reference::for_each_sequence(std::slice::from_ref(&assembly), &numbers, |contig, bases| {
        std::mem::take(&mut found[contig as usize])
            .into_iter()
            .try_for_each(|variant| take(&mut dataset, variants, contig, &variant, bases))
    })?;
    match found.iter().zip(&dataset.contigs).find_map(|(left, contig)| Some((left.first()?, contig))) {
        Some((variant, contig)) => {
            let problem =
                format!("found a variant on `{contig}`, which `{}` does not have", assembly.display());
            Err(Error::Interval { file: dataset.files[0].clone(), line: variant.line, problem })
        }
        None => Ok(dataset),
    }
}

/// The alleles with a label, by sequence.
fn gather(dataset: &mut Dataset, variants: &Variants, base: &Path) -> Result<Vec<Vec<Variant>>, Error> {
    let path = base.join(&variants.vcf);
    let (mut numbers, mut found) = (HashMap::new(), Vec::<Vec<Variant>>::new());
    let mut reader = vcf::Reader::open(&path)?;
    while let Some(record) = reader.next_record()? {
        let count = record.alternatives.split(',').count();
        if variants.exclude.iter().any(|name| name == record.sequence) {
            *dataset.dropped.entry("variants on a sequence that `exclude` names").or_default() +=
                count as u64;
            continue;
        }
        let label = variants.label(&record);
        let mut kept = Vec::new();
        for (at, alternative) in record.alternatives.split(',').enumerate() {
            match variants.allele(&record, alternative, label.and_then(|label| of_allele(label, at, count))) {
                Ok(variant) => kept.push(variant),
                Err(reason) => *dataset.dropped.entry(reason).or_default() += 1,
            }
        }
        if kept.is_empty() {
            continue;
        }
        let contig = dataset.contig(record.sequence, &mut numbers) as usize;
        if found.len() <= contig {
            found.resize_with(contig + 1, Vec::new);
        }
        let line = reader.line();
        found[contig].extend(kept.into_iter().map(|variant| Variant { line, ..variant }));
    }
    dataset.files.push(path);
    Ok(found)
}

/// The label of an allele: of a list with as many labels as alleles its own, else that of all.
fn of_allele(label: &str, at: usize, alleles: usize) -> Option<&str> {
    let list: Vec<&str> = label.split(',').collect();
    if alleles > 1 && list.len() == alleles { list.get(at).copied() } else { Some(label) }
}

impl Variants {
    fn label<'a>(&self, record: &vcf::Record<'a>) -> Option<&'a str> {
        match (&self.info, self.column) {
            (Some(key), _) => record.info(key),
            (None, Some(Column::Id)) => Some(record.id),
            (None, Some(Column::Filter)) => Some(record.filter),
            (None, None) => None,
        }
    }

    /// An allele, or why it is left out.
    fn allele(
        &self,
        record: &vcf::Record<'_>,
        alternative: &str,
        label: Option<&str>,
    ) -> Result<Variant, &'static str> {
        let is = |labels: &[String]| label.is_some_and(|label| labels.iter().any(|one| one == label));
        let class = match (is(&self.positive), is(&self.negative)) {
            (true, _) => POSITIVE,
            (_, true) => NEGATIVE,
            _ => return Err("variants without a label, or with another one"),
        };
        let bases = |text: &str| text.bytes().all(|base| b"ACGTN".contains(&base.to_ascii_uppercase()));
        if alternative.is_empty() || !bases(alternative) {
            return Err("alleles that are no bases");
        }
        if !self.indels && alternative.len() != record.reference.len() {
            return Err("insertions and deletions");
        }
        let upper = |text: &str| text.to_ascii_uppercase().into_bytes();
        let (reference, alternative) = (upper(record.reference), upper(alternative));
        Ok(Variant { line: 0, position: record.position, reference, alternative, class })
    }
}

/// A variant and the reference in the same surroundings.
fn take(
    dataset: &mut Dataset,
    variants: &Variants,
    contig: u32,
    variant: &Variant,
    bases: &[u8],
) -> Result<(), Error> {
    let refuse = |dataset: &Dataset, problem: String| {
        Err(Error::Interval { file: dataset.files[0].clone(), line: variant.line, problem })
    };
    let end = variant.position + variant.reference.len() as u64;
    let interval = Interval::new(variant.position, end);
    let range = usize::try_from(variant.position).unwrap_or(usize::MAX);
    let Some(there) = bases.get(range..).and_then(|rest| rest.get(..variant.reference.len())) else {
        let name = &dataset.contigs[contig as usize];
        let problem = format!("found a variant to {end}, but `{name}` has {} bases", bases.len());
        return refuse(dataset, problem);
    };
    if !there.eq_ignore_ascii_case(&variant.reference) {
        let shown =
            |bases: &[u8]| String::from_utf8_lossy(&bases[..bases.len().min(20)]).to_ascii_uppercase();
        let problem = format!(
            "found the reference `{}`, but `{}` has `{}` there: expected the assembly that the variants were called on",
            shown(&variant.reference),
            variants.assembly.display(),
            shown(there),
        );
        return refuse(dataset, problem);
    }
    let flank = usize::try_from(variants.window / 2).unwrap_or(usize::MAX);
    let before = &bases[range.saturating_sub(flank)..range];
    let after = &bases[range + there.len()..];
    let after = &after[..after.len().min(flank.saturating_sub(1))];
    let kept = [&variant.alternative, &variant.reference]
        .map(|allele| dataset.keep(&[before, allele.as_slice(), after].concat()));
    let [changed, against] = kept.map(Some);
    let place = Some(Place { contig, interval, strand: Some(Strand::Forward) });
    let (class, line) = (variant.class, variant.line);
    dataset.part_mut(Part::Test).push(Example { class, place, bases: changed, against, file: 0, line });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::Task;
    use super::*;

    fn variants() -> Variants {
        Variants {
            vcf: "a.vcf".into(),
            assembly: "a.fa".into(),
            info: Some("SIG".to_owned()),
            column: None,
            positive: vec!["bad".to_owned()],
            negative: vec!["good".to_owned(), "fine".to_owned()],
            window: 6,
            indels: false,
            exclude: Vec::new(),
        }
    }

    fn read(variants: &Variants, lines: &[&str]) -> Result<Dataset, String> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a.fa"), ">chr1\nacgtACGTTG\n>chr2\nGGGG\n").unwrap();
        let text = format!("##fileformat=VCFv4.2\n#CHROM\n{}\n", lines.join("\n").replace(' ', "\t"));
        std::fs::write(folder.path().join("a.vcf"), text).unwrap();
        let task = Task { version: 1, variants: Some(variants.clone()), ..Task::default() };
        task.read("mine", folder.path())
            .map_err(|error| error.to_string().replace(folder.path().to_str().unwrap(), ""))
    }

    /// The sequences of each example, its class and its line.
    fn found(dataset: &Dataset) -> Vec<(String, String, u32, u64)> {
        let text = |bases: Option<&[u8]>| String::from_utf8(bases.unwrap().to_vec()).unwrap();
        let of = |e: &Example| (text(dataset.bases(e)), text(dataset.against(e)), e.class, e.line);
        dataset.part(Part::Test).iter().map(of).collect()
    }

    fn row(changed: &str, against: &str, class: u32, line: u64) -> (String, String, u32, u64) {
        (changed.to_owned(), against.to_owned(), class, line)
    }

    #[test]
    fn variants_stand_in_their_surroundings() {
        let lines = [
            "1 5 . A C . PASS SIG=bad",
            "1 1 . A T,G . PASS SIG=good,bad",
            "1 10 rs G A,C . PASS SIG=fine",
            "1 4 . TA T . PASS SIG=bad",
            "1 4 . T <DEL> . PASS SIG=bad",
            "1 4 . T G . PASS SIG=unsure",
            "1 4 . T G . PASS X=1",
        ];
        let dataset = read(&variants(), &lines).unwrap();
        assert_eq!(
            found(&dataset),
            [
                row("CGTCCG", "CGTACG", 1, 3),
                row("TCG", "ACG", 0, 4),
                row("GCG", "ACG", 1, 4),
                row("GTTA", "GTTG", 0, 5),
                row("GTTC", "GTTG", 0, 5),
            ]
        );
        let dropped: Vec<_> = dataset.dropped.iter().map(|(reason, count)| (*reason, *count)).collect();
        assert_eq!(
            dropped,
            [
                ("alleles that are no bases", 1),
                ("insertions and deletions", 1),
                ("variants without a label, or with another one", 2),
            ]
        );
        let with = Variants { indels: true, ..variants() };
        assert_eq!(found(&read(&with, &lines[3..4]).unwrap()), [row("ACGTCG", "ACGTACG", 1, 3)]);
        let by_filter = Variants {
            info: None,
            column: Some(Column::Filter),
            positive: vec!["LOW".to_owned()],
            negative: vec!["PASS".to_owned()],
            ..variants()
        };
        assert_eq!(read(&by_filter, &lines[..1]).unwrap().counts(Part::Test), [1, 0]);
    }

    #[test]
    fn what_does_not_fit_is_refused_with_its_line() {
        let both = Variants { column: Some(Column::Id), ..variants() };
        for (variants, line, expected) in [
            (
                variants(),
                "1 5 . G C . PASS SIG=bad",
                "cannot read `/a.vcf`, line 3: found the reference `G`, but `a.fa` has `A` there: expected the assembly that the \
                 variants were called on",
            ),
            (variants(), "1 10 . GA C . PASS SIG=bad", "task `mine` has no example to test on"),
            (
                variants(),
                "1 11 . G C . PASS SIG=bad",
                "cannot read `/a.vcf`, line 3: found a variant to 11, but `1` has 10 bases",
            ),
            (
                variants(),
                "9 1 . G C . PASS SIG=bad",
                "cannot read `/a.vcf`, line 3: found a variant on `9`, which `/a.fa` does not have",
            ),
            (
                both,
                "1 5 . A C . PASS SIG=bad",
                "task `mine`: expected one of `info` and `column`, which says where the label is",
            ),
        ] {
            assert_eq!(read(&variants, &[line]).unwrap_err(), expected);
        }
    }
}
