//! Checks a shard set through and through: hashes, row counts, tokens within the vocabulary, provenance within rows.

use super::{Error, ShardFile, ShardSet, Split};
use crate::artifact::{Artifact, Hashes};

/// What was checked.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Checked {
    /// Files whose hash is right.
    pub files: usize,
    /// Rows read.
    pub rows: u64,
    /// Tokens below the vocabulary's size.
    pub tokens: u64,
}

/// Reads every byte of a shard set and reports the first thing that is not as the manifest says.
pub fn verify(artifact: &Artifact) -> Result<Checked, Error> {
    let set = ShardSet::from_artifact(artifact)?;
    for split in set.details.splits.keys() {
        set.rows(split)?;
    }
    artifact.verify(&Hashes::default())?;
    let mut checked = Checked { files: artifact.manifest.files.len(), ..Checked::default() };
    for (name, split) in &set.details.splits {
        verify_tokens(&set, name, split, &mut checked)?;
        split.files.iter().try_for_each(|file| verify_segments(&set, file))?;
    }
    Ok(checked)
}

fn verify_tokens(set: &ShardSet, name: &str, split: &Split, checked: &mut Checked) -> Result<(), Error> {
    let rows = set.rows(name)?;
    if rows.len() != split.rows {
        return Err(Error::NotShards {
            path: set.folder.clone(),
            reason: format!(
                "split `{name}` has {} rows in its pages, its manifest says {}",
                rows.len(),
                split.rows
            ),
        });
    }
    for row in 0..rows.len() {
        if let Some(token) = rows.get(row).to_vec().into_iter().find(|&t| t >= set.details.vocabulary_size) {
            return Err(Error::NotShards {
                path: set.folder.clone(),
                reason: format!(
                    "row {row} of `{name}` holds token {token}, the vocabulary has {}",
                    set.details.vocabulary_size
                ),
            });
        }
    }
    checked.rows += rows.len();
    checked.tokens += rows.len() * rows.context() as u64;
    Ok(())
}

fn verify_segments(set: &ShardSet, file: &ShardFile) -> Result<(), Error> {
    let rows = set.segments(file)?;
    let wrong = |reason: String| Error::Damaged { path: set.folder.join(&file.path), offset: 0, reason };
    if rows.len() as u64 != file.rows {
        return Err(wrong(format!(
            "it has provenance for {} rows, its manifest says {}",
            rows.len(),
            file.rows
        )));
    }
    for (row, segments) in rows.iter().enumerate() {
        let mut last = 0;
        for s in segments {
            if s.token_start < last
                || s.token_end < s.token_start
                || s.token_end as usize > set.details.context
                || s.end < s.start
            {
                return Err(wrong(format!(
                    "row {row} has a segment of tokens {}-{} that does not fit",
                    s.token_start, s.token_end
                )));
            }
            last = s.token_end;
        }
    }
    Ok(())
}
