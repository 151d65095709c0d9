//! The stages, expanded: those that read one stage with the combinations of that, those that gather with all; without those
//! that are left out, and those that cannot do without one of them.

use std::collections::BTreeMap;

use serde_json::Value;

use super::drafts::{Draft, Variant, When};
use super::{Entry, LeftOut, Reader, set};
use crate::stage;
use crate::workflow::matrix::{self, Combination};

impl Reader<'_> {
    /// The stages in the order of running, and those that are left out.
    pub(super) fn expanded(&mut self, drafts: Vec<Draft>, order: &[usize]) -> (Vec<Entry>, Vec<LeftOut>) {
        let mut made = Made::default();
        let mut drafts: Vec<Option<Draft>> = drafts.into_iter().map(Some).collect();
        for &i in order {
            if let Some(draft) = drafts[i].take() {
                self.expand(i, &draft, &mut made);
            }
        }
        made.entries.sort_by_key(|(place, _)| *place);
        made.left_out.sort_by_key(|(place, _)| *place);
        let left_out = made.left_out.into_iter().map(|(_, left)| left).collect();
        (made.entries.into_iter().map(|(_, entry)| entry).collect(), left_out)
    }

    fn expand(&mut self, file_order: usize, draft: &Draft, made: &mut Made) {
        let known = made.expansions.len();
        for variant in &draft.variants {
            for (role, input) in variant.inputs.iter().filter(|(_, input)| input.contains(matrix::AT)) {
                if !made.expansions.contains_key(input) {
                    let names: Vec<String> = made.expansions.keys().cloned().collect();
                    self.missing_input(draft, role, input, names.iter().map(String::as_str));
                    return;
                }
            }
            for (at, value) in made.combined(variant) {
                self.entry(file_order, draft, variant, at, value, made);
            }
        }
        if made.expansions.len() == known {
            let message =
                format!("stage `{}` reads from stages that share no combination of the matrix", draft.name);
            self.problem(draft.span, message, None);
        }
    }

    fn entry(
        &mut self,
        file_order: usize,
        draft: &Draft,
        variant: &Variant,
        at: Combination,
        mut value: Value,
        made: &mut Made,
    ) {
        let name = matrix::name(&draft.name, &at);
        if name.len() > matrix::MAX_NAME_BYTES {
            let expected = matrix::MAX_NAME_BYTES;
            let message = format!("the name `{name}` has {} bytes, expected at most {expected}", name.len());
            return self.problem(draft.span, message, Some("use shorter values or fewer axes".to_owned()));
        }
        let base = draft.name.clone();
        let settings = &variant.settings;
        let tags = settings.tags.iter().map(|tag| tag.0.clone()).collect();
        let left_out = match &variant.when {
            When::LeftOut(reason) => Some(reason.clone()),
            When::Kept => made.needed(variant, &value).or_else(|| made.gather(variant, &at, &mut value)),
        };
        if let Some(reason) = left_out {
            return made.leave_out(file_order, LeftOut { name, base, at, kind: draft.kind, tags, reason });
        }
        match (stage::KINDS[draft.kind].parse)(value) {
            Ok(stage) => made.add(
                file_order,
                Entry {
                    name,
                    base,
                    at,
                    kind: draft.kind,
                    stage,
                    folder: self.folder(draft.span.file),
                    resources: settings.resources.clone(),
                    retries: settings.retries,
                    tags,
                },
            ),
            Err(error) => self.mismatch(&draft.name, draft.span, &draft.item, &error),
        }
    }
}

/// The stages expanded so far.
#[derive(Default)]
struct Made {
    /// With depth, place in the file and place among the expansions: the order of running.
    entries: Vec<((usize, usize, usize), Entry)>,
    /// With place in the file and among the expansions.
    left_out: Vec<((usize, usize), LeftOut)>,
    /// The expansions of each stage, by its own name.
    stages: BTreeMap<String, Vec<(Combination, String)>>,
    /// How many stages each expansion stands on, the longest way; none if it is left out.
    expansions: BTreeMap<String, Option<usize>>,
}

impl Made {
    fn add(&mut self, file_order: usize, entry: Entry) {
        let depth = |(_, input): (String, String)| self.depth(&input).map_or(0, |depth| depth + 1);
        let depth = entry.stage.inputs().into_iter().map(depth).max().unwrap_or(0);
        self.know(&entry.base, &entry.at, &entry.name, Some(depth));
        self.entries.push(((depth, file_order, self.expansions.len()), entry));
    }

    fn leave_out(&mut self, file_order: usize, left: LeftOut) {
        self.know(&left.base, &left.at, &left.name, None);
        self.left_out.push(((file_order, self.expansions.len()), left));
    }

    fn know(&mut self, base: &str, at: &Combination, name: &str, depth: Option<usize>) {
        self.stages.entry(base.to_owned()).or_default().push((at.clone(), name.to_owned()));
        self.expansions.insert(name.to_owned(), depth);
    }

    fn depth(&self, name: &str) -> Option<usize> {
        self.expansions.get(name).copied().flatten()
    }

    fn is_left_out(&self, name: &str) -> bool {
        self.expansions.get(name).is_some_and(Option::is_none)
    }

    /// A variant at every combination that its inputs have and that agrees with its own, reading from the expansions.
    fn combined(&self, variant: &Variant) -> Vec<(Combination, Value)> {
        let mut all = vec![(variant.at.clone(), variant.value.clone())];
        for (role, input) in variant.inputs.iter().filter(|(role, _)| !stage::gathers(role)) {
            let Some(expansions) = self.stages.get(input) else { continue };
            let role: Vec<&str> = role.split('.').collect();
            let with = |(at, value): &(Combination, Value)| {
                let (at, value, role) = (at.clone(), value.clone(), &role);
                expansions.iter().filter_map(move |(other, name)| {
                    let mut value = value.clone();
                    set(&mut value, role, &Value::from(name.as_str()));
                    Some((matrix::joined(&at, other)?, value))
                })
            };
            all = all.iter().flat_map(with).collect();
        }
        all
    }

    /// Why a stage with this configuration is left out, if it reads one that is.
    fn needed(&self, variant: &Variant, value: &Value) -> Option<String> {
        let single = variant.inputs.iter().filter(|(role, _)| !stage::gathers(role));
        let names =
            single.filter_map(|(role, _)| value.pointer(&format!("/{}", role.replace('.', "/")))?.as_str());
        let left_out = names.into_iter().find(|name| self.is_left_out(name))?;
        Some(format!("it needs `{left_out}`, which is left out"))
    }

    /// Puts the expansions of the listed stages that agree with a combination in the place of their names; what is left out
    /// is not gathered. Tells why, if nothing is there to gather.
    fn gather(&self, variant: &Variant, at: &Combination, value: &mut Value) -> Option<String> {
        let mut lists: BTreeMap<&str, Vec<Value>> = BTreeMap::new();
        let mut left_out = false;
        for (role, input) in &variant.inputs {
            let Some((key, _)) = role.rsplit_once('.').filter(|_| stage::gathers(role)) else { continue };
            let list = lists.entry(key).or_default();
            let own = [(Combination::new(), input.clone())];
            let expansions = self.stages.get(input).map_or(&own[..], Vec::as_slice);
            for (_, name) in expansions.iter().filter(|(other, _)| matrix::joined(at, other).is_some()) {
                if self.is_left_out(name) {
                    left_out = true;
                } else {
                    list.push(Value::from(name.as_str()));
                }
            }
        }
        let nothing = left_out && lists.values().any(Vec::is_empty);
        for (key, list) in lists {
            set(value, &key.split('.').collect::<Vec<_>>(), &Value::Array(list));
        }
        nothing.then(|| "all that it gathers is left out".to_owned())
    }
}
