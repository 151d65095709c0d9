//! Any bytes as published weights: all that does not fit a HyenaDNA or a DNABERT-2 is told, and nothing panics.
#![no_main]

use genomill::model::dnabert2::{self, Heads};
use genomill::model::hyena::{self, layout};
use genomill::model::layout::Parameter;
use genomill::model::published::Published;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(file) = Published::new(bytes, layout::published) else { return };
    let seems = layout::config_of(&file).map(|config| config.layout(None));
    let masked = dnabert2::Preset::Small300k.config(64, None).expect("a preset");
    let encoder = masked.parameters(Heads { masked: true, ..Heads::default() });
    let layouts = [hyena::Preset::Tiny1k.config().layout(None), encoder];
    layouts.into_iter().chain(seems.filter(|layout| layout.len() < 1000)).for_each(|layout| check(&file, &layout));
});

/// A file without faults has every tensor in its shape.
fn check(file: &Published<'_>, layout: &[Parameter]) {
    if !file.faults(layout, &[]).is_empty() {
        return;
    }
    for parameter in layout {
        for part in &parameter.parts {
            assert_eq!(file.shape(&part.name), Some(part.shape(&parameter.columns)));
        }
    }
}
