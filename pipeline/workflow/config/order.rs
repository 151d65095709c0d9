//! The order of the stages as written, and inputs that are not there.

use std::collections::{BTreeMap, BTreeSet};

use petgraph::algo::{tarjan_scc, toposort};
use petgraph::graph::DiGraph;

use super::drafts::Draft;
use super::{Reader, list};
use crate::units::similar;
use crate::workflow::matrix;
use crate::workflow::mistake::place;
use crate::workflow::yaml::Entry;

impl Reader<'_> {
    /// The drafts by index, each after those that it reads from.
    pub(super) fn in_order(&mut self, written: &[Entry], drafts: &[Draft]) -> Option<Vec<usize>> {
        let mut graph = DiGraph::<usize, ()>::new();
        let nodes: Vec<_> = (0..drafts.len()).map(|i| graph.add_node(i)).collect();
        let by_name: BTreeMap<&str, usize> =
            drafts.iter().enumerate().map(|(i, draft)| (draft.name.as_str(), i)).collect();
        for (i, draft) in drafts.iter().enumerate() {
            let inputs: BTreeSet<&(String, String)> =
                draft.variants.iter().flat_map(|variant| &variant.inputs).collect();
            for (role, input) in inputs {
                if let Some(&j) = by_name.get(matrix::base(input)) {
                    graph.update_edge(nodes[j], nodes[i], ());
                } else if !written.iter().any(|(name, ..)| name == matrix::base(input)) {
                    self.missing_input(draft, role, input, written.iter().map(|(name, ..)| name.as_str()));
                }
            }
        }
        if let Ok(order) = toposort(&graph, None) {
            return Some(order.iter().map(|node| graph[*node]).collect());
        }
        let cycle = tarjan_scc(&graph)
            .into_iter()
            .find(|part| part.len() > 1 || graph.contains_edge(part[0], part[0]));
        let mut cycle: Vec<usize> = cycle.unwrap_or_default().iter().map(|node| graph[*node]).collect();
        cycle.sort_unstable();
        let names: Vec<&str> = cycle.iter().map(|i| drafts[*i].name.as_str()).collect();
        let place = cycle.first().map(|i| drafts[*i].item.span);
        self.problem(place, format!("stages read from each other in a circle: {}", list(&names)), None);
        None
    }

    pub(super) fn missing_input<'n>(
        &mut self,
        draft: &Draft,
        role: &str,
        input: &str,
        names: impl Iterator<Item = &'n str>,
    ) {
        let help = similar(input, names).map(|hint| format!("did you mean `{hint}`?"));
        let index = |part: &str| part.parse::<usize>().map_or_else(|_| part.to_owned(), |i| format!("[{i}]"));
        let path: Vec<String> = role.split('.').map(index).collect();
        let place = place(&draft.item, &path, None).unwrap_or(draft.item.span);
        let message = format!("stage `{}` reads from `{input}`, which is not there", draft.name);
        self.problem(place, message, help);
    }
}
