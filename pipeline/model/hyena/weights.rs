//! HyenaDNA's weights in safetensors files. All that does not fit is told at once, name by name. Memory while reading: the
//! file and the tensors made of it.

use std::path::Path;

use tch::{Device, TchError, Tensor};

use super::config::Config;
use super::layout::{self, CLASSES, HEAD};
use super::network::Tables;
use crate::fs;
use crate::model::published::{Published, Table};
use crate::model::weights::{Described, Error, Weights};

/// Reads the weights of `config` from the safetensors file `path`, under the published names or those of the training
/// code's checkpoints. Refuses any tensor that is missing, surplus or of another shape, and what should repeat another
/// tensor, or a table, and does not.
pub fn read(config: &Config, path: &Path, device: Device) -> Result<Weights, Error> {
    let bytes = fs::read(path)?;
    let file = open(path, &bytes)?;
    let classes = CLASSES.iter().any(|name| file.has(name));
    let classes = classes.then(|| file.size(CLASSES[0], 0).unwrap_or(1));
    let found = layout::config_of(&file).filter(|found| found != config);
    let model = Described { path, name: format!("HyenaDNA of {config}"), hint: hint(found.as_ref()), device };
    Weights::of_published(&file, config.layout(classes), &tables(config)?, &model)
}

/// The model that the shapes in the safetensors file `path` speak of, where they do.
pub fn config_of(path: &Path) -> Result<Option<Config>, Error> {
    Ok(layout::config_of(&open(path, &fs::read(path)?)?))
}

/// All that the published class stores, by name: the tensors, shared ones under each of their names, and the tables.
pub(super) fn stored(config: &Config, weights: &Weights) -> Result<Vec<(String, Tensor)>, Error> {
    let mut all = weights.stored()?;
    all.retain(|(name, _)| name != HEAD);
    for table in tables(config)? {
        let shape = table.shape.iter().map(|&size| size.try_into().unwrap_or(i64::MAX)).collect::<Vec<_>>();
        all.push((table.name, Tensor::f_from_slice(&table.values)?.f_view(&shape[..])?));
    }
    Ok(all)
}

fn open<'a>(path: &Path, bytes: &'a [u8]) -> Result<Published<'a>, Error> {
    let format = |source| Error::Format { path: path.to_owned(), source };
    Published::new(bytes, layout::published).map_err(format)
}

/// What every layer of `config` stores of it.
fn tables(config: &Config) -> Result<Vec<Table>, TchError> {
    let computed = Tables::new(config, Device::Cpu)?;
    let values = |tensor: &Tensor| Vec::<f32>::try_from(tensor.f_reshape([-1])?);
    let values = computed.all().into_iter().map(values).collect::<Result<Vec<_>, _>>()?;
    let of_layer = |layer| {
        let parts = config.tables().into_iter().zip(&values);
        parts.map(move |((part, shape), values)| Table {
            name: layout::in_layer(layer, part),
            shape: shape.map(u64::from).to_vec(),
            values: values.clone(),
        })
    };
    Ok((0..config.layers).flat_map(of_layer).collect())
}

/// What to do about a file of another model.
fn hint(found: Option<&Config>) -> String {
    let Some(found) = found else { return String::new() };
    let advice = if found.preset().is_some() { ": ask for that preset" } else { ", which is no preset" };
    format!("\n  it seems to hold {found}{advice}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::published::Fault;
    use std::collections::BTreeMap;

    use crate::model::hyena::Preset;
    use crate::model::hyena::golden::folder;
    use crate::model::hyena::layout::EMBEDDING;
    use crate::model::weights::{read_all, write_named};

    const FREQUENCY: &str = "backbone.layers.1.mixer.filter_fn.implicit_filter.5.freq";
    const TIMES: &str = "backbone.layers.0.mixer.filter_fn.pos_emb.t";

    type Named = BTreeMap<String, Tensor>;

    /// Reads the golden weights after a change.
    fn changed(change: impl Fn(Named) -> Named) -> Result<Weights, Error> {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("changed.safetensors");
        let tensors = change(read_all(&folder().join("model.safetensors")).unwrap());
        write_named(&path, tensors.into_iter().collect()).unwrap();
        read(&Config::read(&folder()).unwrap(), &path, Device::Cpu)
    }

    #[test]
    fn names_of_checkpoints_are_read_too() {
        let checkpoint = |tensors: Named| {
            let mut tensors = tensors
                .into_iter()
                .filter(|(name, _)| !name.contains("pos_emb") && !name.starts_with("head."))
                .map(|(name, tensor)| {
                    let name = name.replace(".mixer.", ".mixer.layer.").replace(".mlp.", ".mlp.layer.");
                    (format!("model.{name}"), tensor)
                })
                .collect::<Named>();
            let embedding = tensors[&format!("model.{EMBEDDING}")].shallow_clone();
            tensors.insert(format!("model.{HEAD}"), embedding);
            tensors
        };
        let (plain, checkpoint) = (changed(|tensors| tensors).unwrap(), changed(checkpoint).unwrap());
        assert_eq!(plain.tensors().len(), checkpoint.tensors().len() + 2, "the head for classes");
        assert!(plain.tensors().iter().zip(checkpoint.tensors()).all(|(a, b)| a.equal(b)));
        assert_eq!(plain.tensors()[plain.tensors().len() - 2].size(), [3, 64]);
    }

    #[test]
    fn all_that_does_not_fit_is_told() {
        let error = changed(|mut tensors| {
            tensors.remove("backbone.ln_f.bias");
            tensors.insert("backbone.ln_g.bias".to_owned(), Tensor::from(1.0_f32).view([1]));
            tensors.insert("backbone.layers.0.norm1.bias".to_owned(), Tensor::from_slice(&[0.0_f32; 63]));
            tensors.insert("model.backbone.ln_f.weight".to_owned(), Tensor::from_slice(&[0.0_f32; 64]));
            tensors.insert(HEAD.to_owned(), &tensors[EMBEDDING] + 1.0);
            tensors.insert(FREQUENCY.to_owned(), &tensors[FREQUENCY] + 1e-3);
            tensors.insert(TIMES.to_owned(), &tensors[TIMES] * 1.001);
            tensors.remove("head.output_transform.bias");
            tensors
        });
        let error = error.unwrap_err().to_string();
        let (first, problems) = error.split_once('\n').unwrap();
        let of = "of a HyenaDNA of 2 layers of width 64 for at most 258 tokens, expected those of one preset, whole:";
        assert!(first.ends_with(of), "{error}");
        let expected = [
            "`backbone.ln_f.weight` is there twice, with and without a prefix",
            "`lm_head.weight` differs from `backbone.embeddings.word_embeddings.weight`, of which it must be a copy",
            "`backbone.layers.0.norm1.bias` is F32 [63], expected F32, F16 or BF16 [64]",
            "`backbone.layers.1.mixer.filter_fn.implicit_filter.5.freq` differs from \
             `backbone.layers.1.mixer.filter_fn.implicit_filter.1.freq`, of which it must be a copy",
            "`backbone.ln_f.bias` is missing, expected [64]",
            "`head.output_transform.bias` is missing, expected [3]",
            "`backbone.layers.0.mixer.filter_fn.pos_emb.t` is not the f32 table that the model's configuration gives",
            "`backbone.ln_g.bias` (F32 [1]) has no place in the model",
        ];
        assert_eq!(problems.lines().map(str::trim).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn another_preset_is_refused_name_by_name() {
        let path = folder().join("model.safetensors");
        let error = read(&Preset::Small32k.config(), &path, Device::Cpu).unwrap_err();
        let Error::Faults { faults, .. } = &error else { panic!("{error}") };
        let missing = faults.iter().filter(|fault| matches!(fault, Fault::Missing { .. })).count();
        assert_eq!(missing, 2 * layout::PER_LAYER, "two layers: {error}");
        let text = error.to_string();
        for expected in [
            "of 4 layers of width 256 for at most 32770 tokens (small-32k), expected",
            "\n  it seems to hold 2 layers of width 64 for at most 258 tokens, which is no preset",
            "`backbone.layers.0.mixer.filter_fn.pos_emb.t` is F32 [1, 258, 1], expected F32, F16 or BF16 [1, 32770, 1]",
            "`backbone.embeddings.word_embeddings.weight` is F32 [16, 64], expected F32, F16 or BF16 [16, 256]",
        ] {
            assert!(text.contains(expected), "no {expected} in {text}");
        }
    }

    #[test]
    fn damaged_files_are_refused() {
        let whole = std::fs::read(folder().join("model.safetensors")).unwrap();
        let huge = [&(1_u64 << 60).to_le_bytes(), &whole[8..]].concat();
        let cases = [&whole[..whole.len() - 1], &whole[..100], &whole[..7], &huge, &[]];
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("damaged.safetensors");
        for bytes in cases {
            std::fs::write(&path, bytes).unwrap();
            let error = read(&Preset::Tiny1k.config(), &path, Device::Cpu).unwrap_err();
            let text = error.to_string();
            assert!(text.contains("damaged.safetensors` is no readable safetensors file"), "{text}");
        }
    }

    #[test]
    fn no_header_brings_it_down() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("small.safetensors");
        let tensors = [(EMBEDDING, [2, 3]), ("backbone.ln_f.bias", [3, 0])];
        let tensors =
            tensors.map(|(name, shape)| (name.to_owned(), Tensor::from(1.0_f32).expand(shape, false)));
        write_named(&path, tensors.into()).unwrap();
        let whole = std::fs::read(&path).unwrap();
        let config = Config::read(&folder()).unwrap();
        for place in 0..whole.len() - 24 {
            for byte in [b'0', b'9', b'"', 0xff] {
                let mut bytes = whole.clone();
                bytes[place] = byte;
                std::fs::write(&path, bytes).unwrap();
                assert!(read(&config, &path, Device::Cpu).is_err(), "byte {place} is {byte}");
                assert!(config_of(&path).map_or(None, |found| found).is_none());
            }
        }
    }
}
