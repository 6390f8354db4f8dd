//! Random seeds: `random` or `-1` in place of a seed.
//!
//! A seed is drawn before anything else is known of the graph, and written into its text in place of the word. The check then
//! starts again with that text, so that `${seed}` is the same number everywhere, memo keys are those of a graph with this
//! number, and so is the record that a file carries. A seed is drawn once for each place where the word is written.

use std::collections::HashMap;
use std::sync::Arc;

use super::unfold::Unfolded;
use crate::document::{Override, RANDOM, own_span};
use crate::key::Digest;
use crate::node::Host;
use crate::registry::{ParamRole, Registry};
use crate::text::yaml::{YamlData, YamlValue};
use crate::text::{Source, Span};

/// A seed that was drawn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DrawnSeed {
    /// The first node that has it.
    pub node: String,
    /// The seed.
    pub seed: u64,
    source: SourceId,
    span: Span,
}

/// The address of a source.
type SourceId = usize;

fn id(source: &Arc<Source>) -> SourceId {
    Arc::as_ptr(source) as usize
}

/// Draws a seed for each place where the nodes of a graph have a random one.
pub(super) fn draw(unfolded: &Unfolded, registry: &Registry, host: &Host) -> Vec<DrawnSeed> {
    let mut drawn: Vec<DrawnSeed> = vec![];
    for scope in &unfolded.scopes {
        for (key, value) in &scope.document.nodes {
            let entry = value.get("type").and_then(|(_, kind)| match &kind.data {
                YamlData::Text(name) => registry.get(name),
                _ => None,
            });
            let params = entry.into_iter().flat_map(|entry| entry.params());
            let seeds = params.filter(|param| param.role == ParamRole::Seed).filter_map(|param| value.get(&param.name));
            for (_, value) in seeds.filter(|(_, value)| is_random(value)) {
                let source = unfolded.sources.source(value.location.origin);
                let (span, source_id) = (own_span(source, value), id(source));
                if !drawn.iter().any(|seed| (seed.source, seed.span) == (source_id, span)) {
                    let node = format!("{}{}", scope.prefix, key.name);
                    drawn.push(DrawnSeed { node, seed: seed(host, source, span), source: source_id, span });
                }
            }
        }
    }
    drawn
}

fn is_random(value: &YamlValue) -> bool {
    match &value.data {
        YamlData::Text(text) => text == RANDOM,
        YamlData::Number(number) => number.as_i64() == Some(-1),
        _ => false,
    }
}

/// The seed for a place in a text: the same in each check of one process, and another one for each row of a bulk run.
fn seed(host: &Host, source: &Source, span: Span) -> u64 {
    /// A text from the command line tells two values apart; that of a file may be long.
    const SHORT: usize = 1 << 12;
    let text = if source.text().len() <= SHORT { source.text() } else { "" };
    let place = format!("{}\0{}\0{}\0{text}", host.nonce(), source.name(), span.start);
    let digest = Digest::of(&[place.as_bytes(), host.output_folder().as_os_str().as_encoded_bytes()].concat());
    let [a, b, c, d, ..] = digest.0;
    u32::from_le_bytes([a, b, c, d]).into()
}

/// The texts of a graph with its drawn seeds.
pub(super) struct Written<'a> {
    drawn: &'a [DrawnSeed],
    /// By the address of the former text.
    texts: std::cell::RefCell<HashMap<SourceId, Arc<Source>>>,
}

impl<'a> Written<'a> {
    pub fn new(drawn: &'a [DrawnSeed]) -> Written<'a> {
        Written { drawn, texts: Default::default() }
    }

    /// A text with the seeds that were drawn for it.
    pub fn source(&self, source: &Arc<Source>) -> Arc<Source> {
        let mut texts = self.texts.borrow_mut();
        let written = || {
            let mut drawn: Vec<_> = self.drawn.iter().filter(|seed| seed.source == id(source)).collect();
            drawn.sort_by_key(|seed| seed.span);
            if drawn.is_empty() {
                return source.clone();
            }
            let mut text = source.text().to_string();
            for seed in drawn.into_iter().rev() {
                text.replace_range(seed.span.range(), &seed.seed.to_string());
            }
            Source::new(source.name(), text)
        };
        texts.entry(id(source)).or_insert_with(written).clone()
    }

    /// The overrides with the seeds that were drawn for them.
    pub fn overrides(&self, overrides: &[Override]) -> Vec<Override> {
        let with_seed = |given: &Override| {
            let is_own = |seed: &&DrawnSeed| {
                let within = given.span.start <= seed.span.start && seed.span.end <= given.span.end;
                seed.source == id(&given.source) && within
            };
            self.drawn.iter().find(is_own).map_or_else(|| given.clone(), |drawn| given.with_number(drawn.seed))
        };
        overrides.iter().map(with_seed).collect()
    }
}
