//! Slices from the spans that the crates open with `tracing`, such as the loading of a network.

use std::cell::RefCell;
use std::fmt::Debug;
use std::sync::{Arc, Weak};
use std::time::Duration;

use serde_json::{Map, Value as Json, json};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id};
use tracing::{Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

/// What a node is part of.
pub(super) trait Owner {
    /// The time in the trace.
    fn now(&self) -> Duration;

    /// Ends what a node does before its first step.
    fn begin_steps(&self, node: &Arc<str>);

    /// Adds what took place in a node.
    fn span(&self, node: &Arc<str>, name: &str, started: Duration, fields: Map<String, Json>);
}

/// A node, and what it is part of.
type Owned = (Weak<dyn Owner>, Arc<str>);

thread_local! {
    /// The node that this thread runs.
    static NODE: RefCell<Option<Owned>> = const { RefCell::new(None) };
}

/// Lets the spans of this thread belong to a node.
pub(super) fn enter(run: Weak<dyn Owner>, node: &Arc<str>) {
    NODE.set(Some((run, node.clone())));
}

/// Ends that.
pub(super) fn leave() {
    NODE.set(None);
}

/// The node of this thread.
fn node() -> Option<(Arc<dyn Owner>, Arc<str>)> {
    NODE.with_borrow(|node| node.as_ref().and_then(|(run, node)| Some((run.upgrade()?, node.clone()))))
}

/// Listens to spans.
pub struct Spans;

/// Whether the layer wants a span: those of nodes are known from the events.
pub fn is_wanted(metadata: &Metadata) -> bool {
    metadata.is_span() && metadata.target().starts_with("lsregen") && metadata.name() != "node"
}

/// A span in progress.
struct Open {
    fields: Map<String, Json>,
    start: Option<Duration>,
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Spans {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        if let Some(span) = context.span(id) {
            let mut fields = Fields(Map::new());
            attributes.record(&mut fields);
            span.extensions_mut().insert(Open { fields: fields.0, start: None });
        }
    }

    fn on_enter(&self, id: &Id, context: Context<'_, S>) {
        let (Some(span), Some((run, node))) = (context.span(id), node()) else { return };
        match span.name() {
            "step" => run.begin_steps(&node),
            _ => span.extensions_mut().get_mut::<Open>().into_iter().for_each(|open| open.start = Some(run.now())),
        }
    }

    fn on_exit(&self, id: &Id, context: Context<'_, S>) {
        let (Some(span), Some((run, node))) = (context.span(id), node()) else { return };
        let mut extensions = span.extensions_mut();
        let Some(open) = extensions.get_mut::<Open>() else { return };
        if let Some(start) = open.start.take() {
            let fields = open.fields.clone();
            let of = fields.values().next().and_then(Json::as_str).map(|text| format!(" {text}")).unwrap_or_default();
            run.span(&node, &format!("{}{of}", span.name()), start, fields);
        }
    }
}

struct Fields(Map<String, Json>);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.insert(field.name().into(), json!(format!("{value:?}")));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name().into(), json!(value));
    }
}
