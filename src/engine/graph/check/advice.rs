//! Advice on links: what an input can be linked to, and how to convert a value of the wrong type.

use std::ops::Range;

use super::draft::{NodeOutputs, Port};
use super::{Checker, an};
use crate::node::Arity;
use crate::registry::RegistryEntry;
use crate::text::either;

impl<'a> Checker<'a> {
    /// Says how to correct a link to a value of the wrong type.
    pub(super) fn conversion(
        &self,
        port: Port<'a>,
        node: &str,
        outputs: &NodeOutputs<'a>,
        fitting: &[usize],
        given: Vec<&str>,
    ) -> String {
        if let Some(&other) = fitting.first() {
            return format!("write `{node}.{}`", outputs.name(other));
        }
        // By convention, a node converts the last of its required inputs.
        let converts = |entry: &&RegistryEntry| {
            // A node with required parameters does more than convert.
            if entry.params().iter().any(|param| param.required) {
                return false;
            }
            let works_on = entry.node_type.inputs.iter().rfind(|input| input.arity == Arity::One);
            let fits = works_on.is_some_and(|input| input.variants.is_empty() && given.contains(&input.type_name));
            fits && entry.node_type.outputs.iter().any(|output| Some(output.type_name) == port.takes)
        };
        let mut converters: Vec<_> = self.registry.iter().filter(converts).collect();
        converters.sort_by_key(|entry| entry.node_type.inputs.len());
        let names = converters.iter().map(|entry| entry.node_type.name).take(2).collect::<Vec<_>>();
        if names.is_empty() {
            return format!("link `{}` to {}", port.name, self.advice(port));
        }
        let given = given.into_iter().map(an).collect::<Vec<_>>();
        format!("put {} between: it converts {} to {}", either(names), given.join(" or "), port.wanted())
    }

    /// The nodes of a scope that have an output of a type.
    pub(super) fn producers_of_type(&self, scope: usize, kind: &str) -> &[usize] {
        let producers = self.producers.get(kind).map(Vec::as_slice).unwrap_or_default();
        let Range { start, end } = self.ranges[scope];
        let producers = &producers[producers.partition_point(|&producer| producer < start)..];
        &producers[..producers.partition_point(|&producer| producer < end)]
    }

    /// Says what a port can be linked to: earlier nodes with outputs of its type, or later ones, or else node types.
    pub(super) fn advice(&self, port: Port<'a>) -> String {
        const SHOWN: usize = 3;
        let Some(takes) = port.takes else {
            return "a node of this graph, written `node` or `node.output`".into();
        };
        let wanted = an(takes);
        let producers = self.producers_of_type(port.scope, takes);
        let (before, after) = producers.split_at(producers.partition_point(|&producer| producer < port.consumer));
        let near = if before.is_empty() { after } else { &before[before.len().saturating_sub(SHOWN)..] };
        let links = near.iter().filter(|&&producer| producer != port.consumer).take(SHOWN).filter_map(|&producer| {
            let (name, outputs) = (&self.drafts[producer].key.name, self.outputs_of_node(producer)?);
            Some(match &*outputs.fitting(Some(takes)) {
                [] => return None,
                [_] => name.clone(),
                [first, ..] => format!("{name}.{}", outputs.name(*first)),
            })
        });
        let links: Vec<_> = links.collect();
        if !links.is_empty() {
            return format!("a node that gives {wanted}, such as {}", either(links.iter().map(String::as_str)));
        }
        let has_output =
            |entry: &&RegistryEntry| entry.node_type.outputs.iter().any(|output| output.type_name == takes);
        let types: Vec<_> = self.registry.iter().filter(has_output).map(|entry| entry.node_type.name).collect();
        match types.as_slice() {
            [] => format!("{wanted}, which no node type gives"),
            _ => format!("a node that gives {wanted}: add one of type {}", either(types)),
        }
    }
}
