//! Models as encoders: a folder with a checkpoint, an OLMo in Hugging Face's layout, a HyenaDNA or a DNABERT-2, each with its
//! tokenizer, as one thing that takes bases and gives hidden values; a shape of these families without weights; or a baseline.
//!
//! Memory: the model, and for each thread the hidden values of a batch of [`BATCH`] rows.

mod baseline;
mod network;
mod tokens;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;
use tch::{Device, TchError, Tensor};

pub use crate::model::network::Network;
pub use tokens::{Batch, Row};

use super::cnn::Cnn;
use super::learner::Base;
use super::protocol::{Baseline, Given, Inputs, Pooling, Protocol};
use super::result::Identity;
use crate::fs;
use crate::model::dnabert2::{self, Dnabert2};
use crate::model::hf;
use crate::model::hyena::{self, Hyena};
use crate::model::olmo::Olmo;
use crate::model::weights::{self, Weights};
use crate::model::workers::Workers;
use crate::model::{self, Named, device};
use crate::observer::Stop;
use crate::tokenizer::nucleotide::Nucleotide;
use crate::tokenizer::{self, Tokenizer};
use crate::train::checkpoint;

/// Rows that a thread computes at once.
pub const BATCH: usize = 32;
const TOKENIZER: &str = "tokenizer.json";
/// Tokens that an OLMo without weights takes at most, unless the inputs say another number.
const CONTEXT: u32 = 4096;

/// A model with its tokenizer.
pub struct Encoder {
    identity: Identity,
    body: Body,
    tokenizer: Arc<dyn Tokenizer>,
    before: Vec<u32>,
    after: Vec<u32>,
}

/// What computes.
enum Body {
    /// A network with the weights that it was given.
    Whole(Network),
    /// A network of which only the shape matters.
    Shape(Network),
    /// No network.
    Baseline(Baseline),
}

/// Why a model cannot be asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A checkpoint.
    #[error(transparent)]
    Checkpoint(#[from] checkpoint::Error),
    /// Weights, or tensors.
    #[error(transparent)]
    Tensors(#[from] weights::Error),
    /// A GPU that is not there.
    #[error(transparent)]
    Device(#[from] device::Error),
    /// A tokenizer.
    #[error(transparent)]
    Tokenizer(#[from] tokenizer::Error),
    /// A folder without a model.
    #[error("`{}` holds no model: expected a checkpoint, or `config.json` with `model.safetensors`", .0.display())]
    Absent(PathBuf),
    /// A folder without a tokenizer.
    #[error("`{}` has no `{TOKENIZER}`: put the one that the model was trained with there", .0.display())]
    NoTokenizer(PathBuf),
    /// A shape without a tokenizer.
    #[error("`{0}` has no tokenizer of its own: say which one it is to have")]
    NoTokenizerOf(String),
    /// A tokenizer with ids that the model does not know.
    #[error("the tokenizer of `{}` has {found} ids, the model knows {expected}", folder.display())]
    Vocabulary {
        /// The folder.
        folder: PathBuf,
        /// Ids of the tokenizer.
        found: u32,
        /// Ids of the model.
        expected: u32,
    },
    /// A sequence that is too long and must not be cut.
    #[error(
        "a sequence of {bases} bases has {found} tokens, the model takes {room}: let it be cut (`long: cut`)"
    )]
    Long {
        /// Its bases.
        bases: usize,
        /// Its tokens, special ones included.
        found: usize,
        /// The most that the model takes.
        room: usize,
    },
    /// A pooling that the model has nothing for.
    #[error("`{model}` puts no token in front of a sequence: expected the pooling `mean` or `last`")]
    NoCls {
        /// Its name.
        model: String,
    },
    /// A pooling that the model has no layer for.
    #[error(
        "`{model}` has no pooler: the pooling `pooler` is for a DNABERT-2, and for one that was only pretrained with `fine-tune` and \
         `from-scratch`, which learn it"
    )]
    NoPooler {
        /// Its name.
        model: String,
    },
    /// A protocol that there is nothing for.
    #[error("`{model}` {what}: expected the protocol `{expected}`, found `{found}`")]
    Protocol {
        /// Its name.
        model: String,
        /// What it is.
        what: &'static str,
        /// The one that it can be asked by.
        expected: Protocol,
        /// The one that was asked for.
        found: Protocol,
    },
    /// A shape that cannot be.
    #[error(transparent)]
    Shape(#[from] model::config::Error),
    /// A stop was asked for.
    #[error("stopped")]
    Stopped,
}

impl From<TchError> for Error {
    fn from(error: TchError) -> Self {
        Self::Tensors(error.into())
    }
}

impl From<hf::Error> for Error {
    fn from(error: hf::Error) -> Self {
        Self::Tensors(error.into())
    }
}

impl Encoder {
    /// The model at `folder`: the newest checkpoint at or under it, or a `config.json` with weights and a
    /// `tokenizer.json`. A HyenaDNA without one has its published tokenizer.
    ///
    /// # Errors
    /// [`Error`] where anything is missing or does not fit.
    pub fn open(name: &str, folder: &Path) -> Result<Self, Error> {
        if !folder.join(hf::CONFIG).is_file() {
            return Self::of_checkpoint(name, folder);
        }
        let network = network(folder)?;
        let path = folder.join(TOKENIZER);
        let tokenizer: Arc<dyn Tokenizer> = match (path.is_file(), &network) {
            (true, _) => tokenizer::open(&path)?.into(),
            (false, Network::Hyena(_)) => Arc::new(Nucleotide::hyena()),
            (false, _) => return Err(Error::NoTokenizer(folder.to_owned())),
        };
        let (before, after) = around(&network, tokenizer.as_ref());
        Self::of_network(name, folder, network, tokenizer, before, after)
    }

    /// A shape without weights, for `from-scratch`: of as many ids as `tokenizer` has, by default HyenaDNA's own; of an OLMo
    /// for at most `max_tokens` tokens.
    ///
    /// # Errors
    /// [`Error`] where the shape cannot be, or has no tokenizer of its own and is given none.
    pub fn of_preset(
        name: &str,
        preset: Named,
        tokenizer: Option<Arc<dyn Tokenizer>>,
        max_tokens: Option<u32>,
    ) -> Result<Self, Error> {
        let tokenizer = match (tokenizer, preset) {
            (Some(tokenizer), _) => tokenizer,
            (None, Named::Hyena(_)) => Arc::new(Nucleotide::hyena()),
            (None, _) => return Err(Error::NoTokenizerOf(preset.to_string())),
        };
        let network = network::fresh(preset, tokenizer.vocabulary_size(), max_tokens.unwrap_or(CONTEXT))?;
        let (before, after) = around(&network, tokenizer.as_ref());
        let shape = format!("{preset}, {:?}", network.tensors().iter().map(Tensor::size).collect::<Vec<_>>());
        let identity = Identity {
            weights: blake3::hash(shape.as_bytes()).to_hex().to_string(),
            ..identity(name, &network, tokenizer.as_ref(), [&before, &after])
        };
        Ok(Self { identity, body: Body::Shape(network), tokenizer, before, after })
    }

    /// What stands in place of a model.
    ///
    /// # Errors
    /// [`Error::Tokenizer`].
    pub fn of_baseline(baseline: Baseline) -> Result<Self, Error> {
        let tokenizer = baseline::tokenizer(baseline)?;
        let identity = Identity {
            name: baseline.to_string(),
            family: "baseline".to_owned(),
            parameters: 0,
            width: tokenizer.vocabulary_size(),
            context: None,
            causal: false,
            weights: baseline.to_string(),
            tokenizer: hash_of(tokenizer.as_ref(), [&[], &[]]),
        };
        let (before, after) = (Vec::new(), Vec::new());
        Ok(Self { identity, body: Body::Baseline(baseline), tokenizer, before, after })
    }

    fn of_checkpoint(name: &str, folder: &Path) -> Result<Self, Error> {
        let found = checkpoint::find(folder).map_err(|error| match error {
            checkpoint::Error::Absent(folder) => Error::Absent(folder),
            error => error.into(),
        })?;
        let (state, network) = checkpoint::network(&found, device::open()?)?;
        let tokenizer = checkpoint::tokenizer(&found, &state)?.into();
        let before = state.vocabulary.begin.into_iter().collect();
        Self::of_network(name, folder, network, tokenizer, before, Vec::new())
    }

    fn of_network(
        name: &str,
        folder: &Path,
        network: Network,
        tokenizer: Arc<dyn Tokenizer>,
        before: Vec<u32>,
        after: Vec<u32>,
    ) -> Result<Self, Error> {
        let (found, expected) = (tokenizer.vocabulary_size(), network.vocabulary());
        if found > expected {
            return Err(Error::Vocabulary { folder: folder.to_owned(), found, expected });
        }
        let identity = Identity {
            weights: hash(&network)?,
            ..identity(name, &network, tokenizer.as_ref(), [&before, &after])
        };
        Ok(Self { identity, body: Body::Whole(network), tokenizer, before, after })
    }

    /// Which model it is.
    pub const fn identity(&self) -> &Identity {
        &self.identity
    }

    /// What computes; baselines have none.
    pub const fn network(&self) -> Option<&Network> {
        match &self.body {
            Body::Whole(network) | Body::Shape(network) => Some(network),
            Body::Baseline(_) => None,
        }
    }

    /// Refuses a protocol or a pooling that there is nothing for.
    pub fn check(&self, protocol: Protocol, pooling: Pooling) -> Result<(), Error> {
        let model = || self.identity.name.clone();
        let only = match &self.body {
            Body::Whole(_) => None,
            Body::Shape(_) => Some((Protocol::FromScratch, "has a shape and no weights")),
            Body::Baseline(baseline) => Some((baseline.protocol(), "is a baseline")),
        };
        if let Some((expected, what)) = only.filter(|(expected, _)| *expected != protocol) {
            return Err(Error::Protocol { model: model(), what, expected, found: protocol });
        }
        let learns_all = matches!(protocol, Protocol::FineTune | Protocol::FromScratch);
        match (pooling, self.network()) {
            (Pooling::Cls, _) if self.before.is_empty() => Err(Error::NoCls { model: model() }),
            (Pooling::Pooler, Some(Network::Dnabert2(of))) if learns_all || of.heads().pooler => Ok(()),
            (Pooling::Pooler, _) => Err(Error::NoPooler { model: model() }),
            _ => Ok(()),
        }
    }

    /// What is learned from, for a training part whose longest row has `longest` tokens; none of what is not learned step
    /// by step.
    pub(super) fn base(&self, longest: usize) -> Option<Base> {
        match &self.body {
            Body::Whole(network) | Body::Shape(network) => Some(Base::Network(network.share())),
            Body::Baseline(Baseline::Cnn) => Some(Base::Cnn { longest }),
            Body::Baseline(Baseline::Kmer) => None,
        }
    }

    /// Which model it is where it is made for a task: the parameters of the convolutional baseline depend on lengths and classes.
    pub(super) fn identity_for(&self, longest: usize, classes: usize) -> Result<Identity, Error> {
        let mut identity = self.identity.clone();
        if self.is_cut_to_training() {
            identity.parameters = Cnn::new(classes, longest, 0)?.parameters();
            identity.context = u32::try_from(longest).ok();
        }
        Ok(identity)
    }

    /// Whether it takes rows that are no longer than those that it learned from.
    pub(super) const fn is_cut_to_training(&self) -> bool {
        matches!(self.body, Body::Baseline(Baseline::Cnn))
    }

    /// Sequences of upper-case IUPAC codes as rows of tokens, and what happened to them on the way.
    pub fn rows<'a>(
        &self,
        sequences: impl Iterator<Item = &'a [u8]>,
        inputs: &Inputs,
    ) -> Result<(Vec<Row>, Given), Error> {
        let room = self.identity.context.into_iter().chain(inputs.max_tokens).min();
        let frame = tokens::Frame {
            tokenizer: self.tokenizer.as_ref(),
            before: &self.before,
            after: &self.after,
            room: room.map(|room| room as usize),
        };
        let mut given = Given::default();
        let rows =
            sequences.map(|sequence| frame.row(sequence, inputs, &mut given)).collect::<Result<_, _>>()?;
        Ok((rows, given))
    }

    /// The embedding of each row, `width` values each, in the order of the rows; the same on any number of threads.
    /// `told` hears how many rows are done.
    pub fn embed(
        &self,
        rows: &[Row],
        pooling: Pooling,
        workers: &Workers,
        stop: &Stop,
        told: &dyn Fn(u64),
    ) -> Result<Vec<f32>, Error> {
        let Some(network) = self.network() else {
            told(rows.len() as u64);
            return Ok(baseline::frequencies(rows, self.identity.width as usize));
        };
        let one = |network: &Network, batch: &Batch| network.embedding(batch, pooling);
        each(network, rows, self.identity.width as usize, &one, workers, stop, told)
    }

    /// `ln p` of each row's tokens that stand for bases, as the model expects them after those before, and the bases that they stand
    /// for. Of models that are not causal: none.
    pub fn likelihoods(
        &self,
        rows: &[Row],
        workers: &Workers,
        stop: &Stop,
        told: &dyn Fn(u64),
    ) -> Result<Option<Vec<(f32, u32)>>, Error> {
        let Some(network) = self.network().filter(|network| network.is_causal()) else { return Ok(None) };
        let sums = each(network, rows, 1, &likelihood, workers, stop, told)?;
        let bases = |row: &Row| row.bases.iter().skip(1).sum::<u32>();
        Ok(Some(sums.into_iter().zip(rows.iter().map(bases)).collect()))
    }
}

/// `width` values of each row, batch by batch, rows of like length together.
fn each(
    network: &Network,
    rows: &[Row],
    width: usize,
    one: &(dyn Fn(&Network, &Batch) -> Result<Tensor, Error> + Sync),
    workers: &Workers,
    stop: &Stop,
    told: &dyn Fn(u64),
) -> Result<Vec<f32>, Error> {
    let mut order = (0..rows.len()).collect::<Vec<_>>();
    order.sort_by_key(|row| rows[*row].ids.len());
    let mut values = vec![0.0; rows.len() * width];
    let mut done = 0;
    for wave in order.chunks(BATCH * workers.threads()) {
        let parts = wave.chunks(BATCH).map(|places| (network.share(), places)).collect();
        let computed = workers.map(parts, |(network, places)| {
            if stop.is_requested() {
                return Err(Error::Stopped);
            }
            let rows = places.iter().map(|place| &rows[*place]).collect::<Vec<_>>();
            let found = tch::no_grad(|| one(&network, &Batch::new(&rows, network.device())?))?;
            Ok((places, Vec::<f32>::try_from(found.f_contiguous()?.f_view(-1_i64)?)?))
        })?;
        for (places, found) in computed {
            for (place, found) in places.iter().zip(found.chunks(width)) {
                values[place * width..][..width].copy_from_slice(found);
            }
        }
        done += wave.len() as u64;
        told(done);
    }
    Ok(values)
}

/// What a network is, but for its weights.
fn identity(name: &str, network: &Network, tokenizer: &dyn Tokenizer, around: [&[u32]; 2]) -> Identity {
    Identity {
        name: name.to_owned(),
        family: network.family().to_owned(),
        parameters: network.parameters(),
        width: network.width(),
        context: network.context(),
        causal: network.is_causal(),
        weights: String::new(),
        tokenizer: hash_of(tokenizer, around),
    }
}

/// Hash of a tokenizer, and of what stands around a sequence.
fn hash_of(tokenizer: &dyn Tokenizer, [before, after]: [&[u32]; 2]) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(tokenizer.fingerprint().as_bytes()).update(format!("{before:?} {after:?}").as_bytes());
    hasher.finalize().to_hex().to_string()
}

/// The sum of `ln p` over the tokens of each row that stand for bases, but for its first token: `[B]`.
fn likelihood(network: &Network, batch: &Batch) -> Result<Tensor, Error> {
    let hidden = network.encode(&batch.ids, &batch.valid)?;
    let tokens = batch.ids.size()[1];
    let Some(expected) = network.expectations(&hidden.f_narrow(1, 0, tokens - 1)?)? else {
        return Ok(Tensor::f_full([batch.ids.size()[0]], f64::NAN, (tch::Kind::Float, batch.ids.device()))?);
    };
    let next = batch.ids.f_narrow(1, 1, tokens - 1)?.f_unsqueeze(-1)?;
    let found = expected.f_gather(-1, &next, false)?.f_squeeze_dim(-1)?;
    let counted = batch.counted.f_narrow(1, 1, tokens - 1)?;
    Ok(found.f_mul(&counted)?.f_sum_dim_intlist([1_i64].as_slice(), false, tch::Kind::Float)?)
}

/// The network of a folder with a `config.json`.
fn network(folder: &Path) -> Result<Network, Error> {
    let (path, device) = (folder.join(hf::CONFIG), device::open()?);
    let json = |source| hf::Error::Json { path: path.clone(), source };
    let bytes = fs::read(&path).map_err(weights::Error::from)?;
    let config: Value = serde_json::from_slice(&bytes).map_err(json)?;
    if hyena::config::is_hyena(&config) {
        return Ok(Network::Hyena(Hyena::read(folder, device)?));
    }
    if dnabert2::is_dnabert2(&config) {
        let config = dnabert2::read_config(folder)?;
        return Ok(Network::Dnabert2(Dnabert2::read(config, &folder.join(hf::WEIGHTS), device)?));
    }
    let config = hf::read_config(folder)?;
    let weights = Weights::read_hf(&config, folder, device)?;
    Ok(Network::Olmo(Olmo::new(config, weights, device)?))
}

/// What stands around a sequence: what the tokenizer says, and around those of a DNABERT-2 `[CLS]` and `[SEP]`.
fn around(network: &Network, tokenizer: &dyn Tokenizer) -> (Vec<u32>, Vec<u32>) {
    let (before, after) = tokenizer.template();
    let special = |name: &str| tokenizer.special(name).into_iter().collect();
    match network {
        Network::Dnabert2(_) if before.is_empty() && after.is_empty() => (special("[CLS]"), special("[SEP]")),
        _ => (before.to_vec(), after.to_vec()),
    }
}

/// blake3 of the values of all weights, f32 in their order. Memory: one tensor.
fn hash(network: &Network) -> Result<String, Error> {
    let mut hasher = blake3::Hasher::new();
    for tensor in network.tensors() {
        let mut bytes = vec![0; tensor.numel() * size_of::<f32>()];
        tensor
            .f_to_device(Device::Cpu)?
            .f_detach()?
            .f_contiguous()?
            .f_copy_data_u8(&mut bytes, tensor.numel())?;
        hasher.update(&bytes);
    }
    hasher.update(format!("{:?}", network.tensors().iter().map(Tensor::size).collect::<Vec<_>>()).as_bytes());
    Ok(hasher.finalize().to_hex().to_string())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::model::weights::read_tensor;
    use crate::tokenizer::kmer::{Config, Kmer};

    pub fn golden(name: &str) -> PathBuf {
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
    }

    /// A golden model in a folder of its own, with a tokenizer whose ids it knows.
    pub fn folder(name: &str) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for file in ["config.json", "model.safetensors"] {
            std::fs::copy(golden(name).join(file), folder.path().join(file)).unwrap();
        }
        if !name.starts_with("hyena") {
            let kmer = Kmer::new(Config { k: 3, overlapping: name == "dnabert2" }).unwrap();
            std::fs::write(folder.path().join(TOKENIZER), kmer.to_json()).unwrap();
        }
        folder
    }

    pub const MODELS: [&str; 3] = ["olmo2_gqa/hf", "hyenadna", "dnabert2"];

    pub fn open(name: &str) -> Encoder {
        Encoder::open(name, folder(name).path()).unwrap()
    }

    const SEQUENCES: [&[u8]; 4] = [
        b"ACGTTGCATGCATTGACCATTGACATTACGATCAGGCATCAGTTAG",
        b"GATTACA",
        b"CCGGTATATTTAAACGCGATTATTCGGCATTAGCGGACTTACGAGGCATTACGGATTACGGCATCATTATCA",
        b"TTGACCATTG",
    ];

    /// The stored results of the published classes, through the encoder.
    #[test]
    fn hidden_values_are_those_of_the_published_classes() {
        let off = |name: &str, ids: &str, valid: Option<&str>, hidden: &str| {
            let read = |tensor: &str| read_tensor(&golden(name).join("forward.safetensors"), tensor).unwrap();
            let ids = read(ids);
            let valid = valid.map_or_else(|| ids.ones_like(), read).ne(0);
            let found = open(name).network().unwrap().encode(&ids, &valid).unwrap();
            (found - read(hidden)).abs().max().double_value(&[])
        };
        let hyena = off("hyenadna", "input_ids_L100", None, "hidden_L100");
        assert!(hyena < 1e-4, "{hyena}");
        let dnabert2 = off("dnabert2", "input_ids", Some("attention_mask"), "last_hidden");
        assert!(dnabert2 < 5e-5, "{dnabert2}");
    }

    #[test]
    fn an_embedding_is_that_of_its_row_alone_on_any_number_of_threads() {
        for name in MODELS {
            let encoder = open(name);
            let (rows, given) = encoder.rows(SEQUENCES.into_iter(), &Inputs::default()).unwrap();
            assert_eq!((given.sequences, given.cut, given.unknown_bases), (4, 0, 0), "{name}");
            for pooling in [Pooling::Mean, Pooling::Last] {
                let of = |rows: &[Row], threads| {
                    let workers = Workers::start(threads).unwrap();
                    encoder.embed(rows, pooling, &workers, &Stop::new(), &|_| {}).unwrap()
                };
                let all = of(&rows, 1);
                assert_eq!(all, of(&rows, 3), "{name}");
                for (row, found) in rows.iter().zip(all.chunks(encoder.identity().width as usize)) {
                    let alone = of(std::slice::from_ref(row), 1);
                    let off = alone.iter().zip(found).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                    assert!(off < 1e-4, "{name}, {pooling}: padding changes an embedding by {off}");
                }
            }
        }
    }

    #[test]
    fn likelihoods_are_those_of_the_scorer_of_bases() {
        use crate::evaluate::per_base::Scorer;
        let encoder = open("olmo2_gqa/hf");
        let workers = Workers::start(2).unwrap();
        let (rows, _) = encoder.rows(SEQUENCES.into_iter(), &Inputs::default()).unwrap();
        let found = encoder.likelihoods(&rows, &workers, &Stop::new(), &|_| {}).unwrap().unwrap();
        let scorer = Scorer {
            model: encoder.network().unwrap(),
            context: encoder.network().unwrap().context().unwrap() as usize,
            tokenizer: encoder.tokenizer.as_ref(),
            begin: None,
            batch_rows: 1,
            workers: &workers,
        };
        for (sequence, (found, bases)) in SEQUENCES.iter().zip(found) {
            let scored = scorer.forward("x", sequence).unwrap().into_iter().flatten().collect::<Vec<_>>();
            let expected = scored.iter().sum::<f64>();
            assert_eq!(bases as usize, scored.len());
            assert!((f64::from(found) - expected).abs() < 1e-3, "{found}, expected {expected}");
        }
        let hyena = open("hyenadna");
        let (rows, _) = hyena.rows(SEQUENCES.into_iter(), &Inputs::default()).unwrap();
        let found = hyena.likelihoods(&rows, &workers, &Stop::new(), &|_| {}).unwrap().unwrap();
        assert!(found.iter().all(|(ln, _)| *ln < 0.0));
        assert!(open("dnabert2").likelihoods(&rows[..0], &workers, &Stop::new(), &|_| {}).unwrap().is_none());
    }

    #[test]
    fn fresh_weights_have_the_same_shape_and_projections_are_found() {
        for (name, per_layer) in MODELS.into_iter().zip([2, 2, 2]) {
            let encoder = open(name);
            let network = encoder.network().unwrap();
            let fresh = network.fresh(1).unwrap();
            let sizes = |network: &Network| network.tensors().iter().map(Tensor::size).collect::<Vec<_>>();
            assert_eq!(sizes(network), sizes(&fresh), "{name}");
            assert!(!network.tensors()[0].equal(&fresh.tensors()[0]));
            assert_eq!(network.projections().len(), 2 * per_layer, "{name}");
            assert!(network.projections().iter().all(|place| network.tensors()[*place].size().len() == 2));
        }
    }

    #[test]
    fn a_model_says_what_it_is_and_what_it_lacks() {
        let identities = MODELS.map(|name| open(name).identity().clone());
        assert_eq!(identities.each_ref().map(|i| i.causal), [true, true, false]);
        assert_eq!(identities.each_ref().map(|i| i.context), [Some(128), Some(258), None]);
        assert_eq!(identities.each_ref().map(|i| i.family.as_str()), ["OLMo", "HyenaDNA", "DNABERT-2"]);
        let shape = |preset: &str| {
            Encoder::of_preset(preset, preset.parse().unwrap(), Some(Arc::new(Nucleotide::new())), None)
        };
        let baseline = |baseline| Encoder::of_baseline(baseline).unwrap();
        let (frozen, tuned, scratch) = (Protocol::LinearProbe, Protocol::FineTune, Protocol::FromScratch);
        for (encoder, protocol, pooling, expected) in [
            (open("dnabert2"), frozen, Pooling::Cls, ""),
            (open("dnabert2"), frozen, Pooling::Pooler, ""),
            (open("hyenadna"), tuned, Pooling::Cls, "`hyenadna` puts no token in front"),
            (open("hyenadna"), tuned, Pooling::Pooler, "`hyenadna` has no pooler"),
            (shape("dnabert2-300k").unwrap(), scratch, Pooling::Pooler, ""),
            (shape("olmo-300k").unwrap(), scratch, Pooling::Mean, ""),
            (
                shape("hyenadna-tiny-1k").unwrap(),
                tuned,
                Pooling::Mean,
                "`hyenadna-tiny-1k` has a shape and no weights: expected the protocol `from-scratch`, found `fine-tune`",
            ),
            (
                baseline(Baseline::Cnn),
                frozen,
                Pooling::Mean,
                "`cnn` is a baseline: expected the protocol `from-scratch`",
            ),
            (
                baseline(Baseline::Kmer),
                scratch,
                Pooling::Mean,
                "`kmer` is a baseline: expected the protocol `linear-probe`",
            ),
        ] {
            let found =
                encoder.check(protocol, pooling).err().map_or(String::new(), |error| error.to_string());
            assert!(
                found.starts_with(expected) && found.is_empty() == expected.is_empty(),
                "{found}, not {expected}"
            );
        }
        assert_eq!(shape("dnabert2-300k").unwrap().identity().parameters, {
            let heads = dnabert2::Heads::default();
            let config = dnabert2::Preset::Small300k.config(23, None).unwrap();
            config.parameters(heads).iter().map(crate::model::layout::Parameter::len).sum::<u64>()
        });
        let error =
            Encoder::of_preset("x", "olmo-300k".parse().unwrap(), None, None).err().unwrap().to_string();
        assert!(error.starts_with("`olmo-300k` has no tokenizer of its own"), "{error}");

        let refused = |folder: &Path, expected: &str| {
            let error = Encoder::open("x", folder).err().unwrap().to_string();
            assert!(error.contains(expected), "{error}");
        };
        let empty = tempfile::tempdir().unwrap();
        refused(empty.path(), "holds no model: expected a checkpoint, or `config.json`");
        let olmo = folder("olmo1_tied/hf");
        let large = Kmer::new(Config { k: 5, overlapping: false }).unwrap();
        std::fs::write(olmo.path().join(TOKENIZER), large.to_json()).unwrap();
        refused(olmo.path(), " ids, the model knows ");
        std::fs::remove_file(olmo.path().join(TOKENIZER)).unwrap();
        refused(olmo.path(), "has no `tokenizer.json`");
    }
}
