//! A checkpoint as a folder that transformers opens: configuration, weights, tokenizer, and a card that says what it is.
//!
//! Rows of the embedding that no token uses are left out, so that transformers gives them no probability either. The
//! folder is written beside its place and renamed when whole. Memory: the model.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tch::Device;

use super::checkpoint::{self, State};
use super::history::{self, Record};
use crate::artifact::SourceFile;
use crate::fs;
use crate::model::Shape;
use crate::model::config::Family;
use crate::model::hf::{self, SpecialIds};
use crate::model::layout::Role;
use crate::model::network::Network;
use crate::model::olmo::Olmo;
use crate::model::weights;
use crate::tokenizer::{self, Tokenizer};

const TOKENIZER: &str = "tokenizer.json";
const CARD: &str = "README.md";

/// Where a model comes from, and what is known of it, beyond its checkpoint.
#[derive(Debug, Clone, Default)]
pub struct Provenance {
    /// Files that the training data were made from.
    pub sources: Vec<SourceFile>,
    /// Scores on held-out data.
    pub scores: Vec<Score>,
    /// The licence that the model is given, as Hugging Face names it (`cc-by-4.0`).
    pub license: Option<String>,
}

/// A score on held-out data.
#[derive(Debug, Clone, PartialEq)]
pub struct Score {
    /// On what.
    pub on: String,
    /// Bits per base.
    pub bits_per_base: f64,
    /// The best baseline on the same bases: its name and bits per base.
    pub baseline: Option<(String, f64)>,
}

/// Why a checkpoint could not be exported.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The checkpoint.
    #[error(transparent)]
    Checkpoint(#[from] checkpoint::Error),
    /// Tensors.
    #[error(transparent)]
    Tensors(#[from] weights::Error),
    /// The tokenizer.
    #[error(transparent)]
    Tokenizer(#[from] tokenizer::Error),
    /// A file call.
    #[error(transparent)]
    File(#[from] fs::Error),
    /// The folder is there.
    #[error("cannot export to `{}`: it exists already; remove it or name another folder", .0.display())]
    Exists(PathBuf),
}

/// Writes the newest checkpoint at or under `folder` to the new folder `out`; gives back the checkpoint.
pub fn to_hf(folder: &Path, out: &Path, provenance: &Provenance) -> Result<PathBuf, Error> {
    if out.exists() {
        return Err(Error::Exists(out.to_owned()));
    }
    let checkpoint = checkpoint::find(folder)?;
    let (state, model) = checkpoint::network(&checkpoint, Device::Cpu)?;
    let tokenizer = checkpoint::tokenizer(&checkpoint, &state)?;
    let record = last_record(&checkpoint, state.progress.step);
    fs::write_folder(out, |part| {
        write(part, &state, &model, tokenizer.as_ref())?;
        text(&part.join(CARD), &card(&state, record.as_ref(), provenance))
    })?;
    Ok(checkpoint)
}

fn write(out: &Path, state: &State, model: &Network, tokenizer: &dyn Tokenizer) -> Result<(), Error> {
    let ids = special_ids(tokenizer);
    let (config, tensors) = match model {
        Network::Olmo(model) => (hf::write_config(model.config(), ids), used(model)?),
        Network::Hyena(model) => model.published()?,
        Network::Dnabert2(model) => model.published()?,
    };
    json_file(&out.join(hf::CONFIG), &config)?;
    weights::write_named(&out.join(hf::WEIGHTS), tensors)?;
    text(&out.join(TOKENIZER), &tokenizer.to_json())?;
    json_file(&out.join("tokenizer_config.json"), &tokenizer_config(tokenizer, state))?;
    let ids = json!({"bos_token_id": ids.begin, "eos_token_id": ids.end, "pad_token_id": ids.pad});
    json_file(&out.join("generation_config.json"), &ids)
}

/// The weights by name, without the rows that no token uses.
fn used(model: &Olmo) -> Result<Vec<(String, tch::Tensor)>, weights::Error> {
    let rows = i64::from(model.config().vocabulary);
    let layout = model.weights().layout();
    let whole = |role| matches!(role, Role::Embedding | Role::Head);
    let of_tokens = layout.iter().filter(|p| whole(p.role)).flat_map(|p| &p.parts).map(|part| &part.name);
    let of_tokens = of_tokens.collect::<Vec<_>>();
    let named = model.weights().named()?.into_iter().map(|(name, tensor)| {
        let tensor = if of_tokens.contains(&&name) { tensor.f_narrow(0, 0, rows)? } else { tensor };
        Ok((name, tensor))
    });
    named.collect()
}

fn special_ids(tokenizer: &dyn Tokenizer) -> SpecialIds {
    let first = |names: &[&str]| names.iter().find_map(|name| tokenizer.special(name));
    SpecialIds { begin: first(&["[BOS]", "[CLS]"]), end: first(&["[EOS]", "[SEP]"]), pad: first(&["[PAD]"]) }
}

fn tokenizer_config(tokenizer: &dyn Tokenizer, state: &State) -> Value {
    let mut config = json!({
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": state.window(),
        "clean_up_tokenization_spaces": false,
    });
    let names = [
        ("pad_token", "[PAD]"),
        ("unk_token", "[UNK]"),
        ("bos_token", "[BOS]"),
        ("eos_token", "[EOS]"),
        ("cls_token", "[CLS]"),
        ("sep_token", "[SEP]"),
        ("mask_token", "[MASK]"),
    ];
    for (key, name) in names {
        // A tokenizer may answer one name with a token of another text.
        if let Some(text) = tokenizer.special(name).and_then(|id| tokenizer.text(id)) {
            config[key] = text.into();
        }
    }
    config
}

/// The last record of the run that the checkpoint, of `step`, belongs to.
fn last_record(checkpoint: &Path, step: u64) -> Option<Record> {
    let run = checkpoint.parent()?.parent()?;
    let records = history::read_history(&run.join(history::FILE)).ok()?;
    records.into_iter().rfind(|record| record.step <= step)
}

fn card(state: &State, record: Option<&Record>, provenance: &Provenance) -> String {
    let mut card = String::from("---\nlibrary_name: transformers\n");
    card += match &state.config.model {
        Shape::Olmo(_) => "pipeline_tag: text-generation\ntags: [dna, genomics, olmo]\n",
        Shape::Hyena { .. } => "pipeline_tag: text-generation\ntags: [dna, genomics, hyenadna]\n",
        Shape::Dnabert2 { .. } => "pipeline_tag: fill-mask\ntags: [dna, genomics, dnabert2]\n",
    };
    if let Some(license) = &provenance.license {
        card += &["license: ", license, "\n"].concat();
    }
    card += "---\n\n# A language model of DNA\n\n";
    card += &[
        model_section(state),
        training_section(state),
        metrics_section(record, provenance),
        data_section(state, provenance),
        license_section(provenance, &state.config.model),
    ]
    .join("\n");
    card
}

fn model_section(state: &State) -> String {
    let Shape::Olmo(model) = &state.config.model else { return peer_section(state) };
    let family = if model.family == Family::Olmo { "OLMo" } else { "OLMo-2" };
    let parameters = model.count();
    let used = u64::from(model.vocabulary) * u64::from(model.width);
    let head = if model.tied_head { 0 } else { used };
    format!(
        "A decoder of the {family} family: {} parameters, {} layers of width {}, {} tokens of vocabulary, trained on rows \
         of {} tokens. It reads and writes upper-case DNA; each token stands for one or more bases.\n\n\
         ```python\nfrom transformers import AutoModelForCausalLM, AutoTokenizer\n\
         tokenizer = AutoTokenizer.from_pretrained(\"FOLDER\")\n\
         model = AutoModelForCausalLM.from_pretrained(\"FOLDER\")\n\
         ids = tokenizer(\"ACGTACGT\", add_special_tokens=False, return_tensors=\"pt\").input_ids\n\
         logits = model(ids).logits\n```\n",
        parameters.layers() + used + head,
        model.layers,
        model.width,
        model.vocabulary,
        state.data.context,
    )
}

/// A model that the class of its authors reads.
fn peer_section(state: &State) -> String {
    let shape = &state.config.model;
    let (asked, source) = if shape.is_masked() {
        ("hidden tokens", "`bert_layers.py` of mosaicml/examples")
    } else {
        ("each next token", "`standalone_hyenadna.py` of HazyResearch/hyena-dna")
    };
    format!(
        "A {}: {} parameters, trained to guess {asked} on rows of {} tokens, without dropout. `model.safetensors` and \
         `config.json` have the names that its authors published: {source} takes them (embedding and head are one \
         tensor), and so do `genomill model check` and `genomill model import`.\n",
        shape.family(),
        shape.count(),
        state.data.context,
    )
}

fn training_section(state: &State) -> String {
    let (config, progress) = (&state.config, &state.progress);
    format!(
        "## Training\n\n{}: {} steps of {} rows, {} tokens; AdamW (betas {} and {}, weight decay {}), learning rate {} at \
         most, seed {}.\n",
        crate::TOOL,
        progress.step,
        config.batch_rows,
        progress.tokens,
        config.betas[0],
        config.betas[1],
        config.weight_decay,
        config.schedule.peak,
        config.seed,
    )
}

fn metrics_section(record: Option<&Record>, provenance: &Provenance) -> String {
    let mut text =
        "## Metrics\n\n| on | bits per base | best Markov model on the same bases |\n|---|---|---|\n"
            .to_owned();
    let row = |on: &str, bits: Option<f64>, baseline: &str| {
        bits.map_or_else(String::new, |bits| format!("| {on} | {bits:.4} | {baseline} |\n"))
    };
    if let Some(record) = record {
        text += &row("training rows, last record", record.bits_per_base, "");
        text += &row("validation rows, last record", record.validation_bits_per_base, "");
    }
    for score in &provenance.scores {
        let baseline = score.baseline.as_ref().map(|(name, bits)| format!("{bits:.4} ({name})"));
        text += &row(&score.on, Some(score.bits_per_base), &baseline.unwrap_or_default());
    }
    text + "\nThe uniform code takes 2 bits per base; lower is better.\n"
}

fn data_section(state: &State, provenance: &Provenance) -> String {
    let data = &state.data;
    let text = format!(
        "## Data\n\n{} rows of {} tokens; content `{}`. Tokenizer: blake3 `{}`.\n\n",
        data.rows, data.context, data.fingerprint, state.vocabulary.fingerprint
    );
    if provenance.sources.is_empty() {
        return text + "The files that they were made from are not known here.\n";
    }
    let row =
        |source: &SourceFile| format!("| `{}` | {} | `{}` |\n", source.path, source.bytes, source.blake3);
    let rows = provenance.sources.iter().map(row).collect::<String>();
    text + "| made from | bytes | blake3 |\n|---|---|---|\n" + &rows
}

/// Whose idea the model is.
const fn architecture(shape: &Shape) -> &'static str {
    match shape {
        Shape::Olmo(_) => {
            "The architecture is Ai2's OLMo (Apache-2.0); no weights of Ai2's are in this folder unless training began from \
             them."
        }
        Shape::Hyena { .. } => {
            "The architecture is HyenaDNA (its code is Apache-2.0); none of its authors' weights are in this folder."
        }
        Shape::Dnabert2 { .. } => {
            "The architecture is DNABERT-2's, MosaicBERT (its code is Apache-2.0); none of its authors' weights are in this \
             folder."
        }
    }
}

fn license_section(provenance: &Provenance, shape: &Shape) -> String {
    let given = match &provenance.license {
        Some(license) => format!("The model is given under `{license}`."),
        None => "No licence was named for the model.".to_owned(),
    };
    format!(
        "## Licences\n\n{given} What the licences of the files above ask for (attribution, share-alike, limits of use) was not \
         checked: ask their publishers before you pass the model on. {}\n",
        architecture(shape)
    )
}

fn json_file(path: &Path, value: &Value) -> Result<(), Error> {
    text(path, &format!("{value:#}\n"))
}

fn text(path: &Path, text: &str) -> Result<(), Error> {
    Ok(std::fs::write(path, text).map_err(fs::error("write", path))?)
}

#[cfg(test)]
mod tests {
    use tch::Tensor;

    use super::*;
    use crate::loader::Vocabulary;
    use crate::loader::tests_support::Rows;
    use crate::model::weights::Weights;
    use crate::model::{Overrides, Preset};
    use crate::observer::{Silent, Stop};
    use crate::tokenizer::nucleotide::Nucleotide;
    use crate::train::{self, Config, Data, Duration, Hooks, Initialize};

    const CONTEXT: u64 = 16;

    /// Trains for two steps.
    fn trained(config: Config, rows: &Rows, out: &Path) -> Result<train::Summary, train::Error> {
        let tokenizer = Nucleotide::hyena();
        let vocabulary = Vocabulary {
            bases: (0..tokenizer.vocabulary_size()).map(|id| tokenizer.bases(id)).collect(),
            pad: tokenizer.special("[PAD]"),
            begin: None,
            fingerprint: tokenizer.fingerprint().to_string(),
            tokenizer: tokenizer.to_json(),
        };
        let data = Data { rows, validation: None, vocabulary: &vocabulary, fingerprint: "rows" };
        let config = Config { duration: Duration::Steps(2), log_every: Duration::Steps(1), ..config };
        let hooks = Hooks { observer: &Silent, stage: "model", stop: &Stop::new(), threads: 1 };
        train::run(&config, data, out, hooks)
    }

    fn rows(context: u64) -> Rows {
        Rows::random(8, context, Nucleotide::hyena().vocabulary_size().into(), 3)
    }

    fn logits(config: crate::model::Config, weights: Weights) -> Tensor {
        let model = Olmo::new(config, weights, Device::Cpu).unwrap();
        let ids = Tensor::from_slice(&[7_i64, 8, 9, 10, 7, 7]).view([1, 6]);
        tch::no_grad(|| model.logits(&model.hidden(&ids).unwrap()).unwrap())
    }

    #[test]
    fn an_export_computes_the_same_and_training_goes_on_from_it() {
        let families = [
            Config { preset: Some(Preset::Olmo300k.into()), ..Config::default() },
            Config {
                preset: Some(Preset::Olmo300k.into()),
                model: Overrides {
                    family: Some(Family::Olmo2),
                    tied_head: Some(false),
                    kv_heads: Some(1),
                    ..Overrides::default()
                },
                ..Config::default()
            },
        ];
        for config in families {
            let (run, exported) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
            let summary = trained(config, &rows(CONTEXT), run.path()).unwrap();
            let out = exported.path().join("a/hf");
            assert_eq!(to_hf(run.path(), &out, &Provenance::default()).unwrap(), summary.checkpoint);

            let (_, model) = checkpoint::load(run.path(), Device::Cpu).unwrap();
            let read = hf::read_config(&out).unwrap();
            assert_eq!(
                (read.vocabulary, read.padded_vocabulary),
                (model.config().vocabulary, read.vocabulary)
            );
            let weights = Weights::read_hf(&read, &out, Device::Cpu).unwrap();
            let expected = logits(model.config().clone(), model.weights().share());
            assert!(logits(read, weights).equal(&expected));

            let error = to_hf(run.path(), &out, &Provenance::default()).unwrap_err().to_string();
            assert!(error.contains("it exists already"), "{error}");
            let initialize = Some(Initialize { hf: out.clone() });
            let (again, still) = (tempfile::tempdir().unwrap(), Config { initialize, ..Config::default() });
            let slow = Config { learning_rate: 1e-12, weight_decay: 0.0, ..still };
            trained(slow, &rows(CONTEXT), again.path()).unwrap();
            let (_, model) = checkpoint::load(again.path(), Device::Cpu).unwrap();
            let found = logits(model.config().clone(), model.weights().share());
            let off = (found - expected).abs().max().double_value(&[]);
            assert!(off < 1e-5, "logits differ by {off}");
        }
    }

    /// What is exported is read by its own class, and by the import.
    #[test]
    fn exports_of_peers_are_read_under_their_published_names() {
        use crate::model::{Named, dnabert2, hyena};
        let rows = Rows((0..8).map(|row| (0..16).map(|i| 7 + (i * row) % 5).collect()).collect());
        let peers: [Named; 2] = [hyena::Preset::Tiny1k.into(), dnabert2::Preset::Small300k.into()];
        for preset in peers {
            let (run, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
            let config = Config { preset: Some(preset), ..Config::default() };
            trained(config, &rows, run.path()).unwrap();
            let (out, again) = (folder.path().join("a"), folder.path().join("b"));
            to_hf(run.path(), &out, &Provenance::default()).unwrap();
            let file = out.join(hf::WEIGHTS);
            match preset {
                Named::Hyena(preset) => drop(hyena::import::import(&file, Some(preset), &again).unwrap()),
                _ => drop(dnabert2::import::import(&file, None, &again).unwrap()),
            }
            let (ours, theirs) =
                (std::fs::read(&file).unwrap(), std::fs::read(again.join(hf::WEIGHTS)).unwrap());
            assert!(ours == theirs, "{preset}");
            let card = std::fs::read_to_string(out.join(CARD)).unwrap();
            assert!(card.contains("without dropout") && card.contains("The architecture is"), "{card}");
            let error = checkpoint::load(run.path(), Device::Cpu).unwrap_err().to_string();
            assert!(error.contains("expected an OLMo: there is no code"), "{error}");
        }
    }

    #[test]
    fn folders_that_do_not_fit_the_rows_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let small = Overrides::default();
        let write = |vocabulary, context| {
            let config =
                crate::model::Config::resolve(Some(Preset::Olmo300k), &small, vocabulary, context).unwrap();
            let text = hf::write_config(&config, SpecialIds::default()).to_string();
            std::fs::write(folder.path().join(hf::CONFIG), text).unwrap();
        };
        let config =
            Config { initialize: Some(Initialize { hf: folder.path().to_owned() }), ..Config::default() };
        let refused = |config: Config| {
            let out = tempfile::tempdir().unwrap();
            trained(config, &rows(CONTEXT), out.path()).unwrap_err().to_string()
        };
        write(5, 64);
        let error = refused(config.clone());
        assert!(
            error.starts_with("the shards' vocabulary of 12 ids is larger than the embedding"),
            "{error}"
        );
        write(12, 8);
        let error = refused(config.clone());
        assert!(error.contains("rows of 16 tokens are longer than the context"), "{error}");
        write(12, 64);
        let error = refused(config.clone());
        assert!(error.contains("cannot open") || error.contains("cannot read"), "{error}");
        let error = refused(Config { preset: Some(Preset::Olmo1m.into()), ..config });
        assert!(error.contains("leave out `preset` and `model`"), "{error}");
    }

    #[test]
    fn the_card_tells_what_is_known() {
        let run = tempfile::tempdir().unwrap();
        let config = Config { preset: Some(Preset::Olmo300k.into()), ..Config::default() };
        trained(config, &rows(CONTEXT), run.path()).unwrap();
        let source = SourceFile { path: "genome.fa".into(), bytes: 12, blake3: "abcd".into(), sha256: None };
        let baseline = Some(("Markov order 2".to_owned(), 1.9));
        let score = Score { on: "the test split".into(), bits_per_base: 1.75, baseline };
        let license = Some("cc-by-4.0".to_owned());
        let provenance = Provenance { sources: vec![source], scores: vec![score], license };
        let out = run.path().join("hf");
        to_hf(run.path(), &out, &provenance).unwrap();
        let card = std::fs::read_to_string(out.join(CARD)).unwrap();
        for expected in [
            "license: cc-by-4.0\n",
            "| the test split | 1.7500 | 1.9000 (Markov order 2) |",
            "| `genome.fa` | 12 | `abcd` |",
            "8 rows of 16 tokens; content `rows`",
            "2 steps of 16 rows",
            "| training rows, last record |",
            "given under `cc-by-4.0`",
        ] {
            assert!(card.contains(expected), "no `{expected}` in\n{card}");
        }
    }
}
