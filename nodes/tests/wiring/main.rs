//! Every parameter and every link of every node type reaches the diffusion library.
//!
//! Each node runs as in the engine: once for each parameter, with a value that is not the default, and once for each
//! input socket, with another value. Its calls to the library (see [`asked`]) must then differ from those by default;
//! the snapshots show the differences. A new parameter needs a row in `rows.yaml`.

mod asked;
mod inputs;
mod numbers;
mod rows;

use asked::{Asked, Bench};
use inputs::Inputs;
use lsregen_engine::{Arity, EdgeValue, RegistryEntry};
use lsregen_nodes::registry;
use rows::{NodeRows, Rows};
use serde_json::Value as Json;

#[test]
fn every_parameter_and_link_reaches_the_library() {
    let (registry, rows, bench) = (registry(), Rows::read(), Bench::new());
    let inputs = Inputs::new(bench.path());
    rows.names().for_each(|name| assert!(registry.get(name).is_some(), "rows.yaml: there is no node type {name}"));
    let mut problems = vec![];
    for entry in registry.iter() {
        let name = entry.node_type.name;
        let rows = rows.of(entry);
        let defaults = entry.node_type.inputs.iter().map(|socket| {
            let [first, second] = inputs.of(socket);
            match socket.arity {
                Arity::One => vec![first],
                Arity::Optional => vec![first].into_iter().filter(|_| rows.links(socket.name)).collect(),
                Arity::Many => vec![first, second],
            }
        });
        let defaults = defaults.collect();
        let mut wiring = Wiring { entry, rows, bench: &bench, defaults, text: String::new(), problems: vec![] };
        wiring.defaults();
        wiring.params(&inputs);
        wiring.links(&inputs);
        problems.append(&mut wiring.problems);
        let mut settings = insta::Settings::clone_current();
        settings.set_prepend_module_to_snapshot(false);
        settings.set_omit_expression(true);
        settings.bind(|| insta::assert_snapshot!(name, wiring.text));
    }
    assert!(problems.is_empty(), "\n{}", problems.join("\n"));
}

/// The test of one node type.
struct Wiring<'a> {
    entry: &'a RegistryEntry,
    rows: NodeRows<'a>,
    bench: &'a Bench,
    /// The values that are linked to each input socket.
    defaults: Vec<Vec<EdgeValue>>,
    /// The snapshot.
    text: String,
    problems: Vec<String>,
}

impl Wiring<'_> {
    fn ask(&self, params: &Params) -> Asked {
        self.bench.ask(self.entry, params, self.defaults.clone())
    }

    fn problem(&mut self, what: String) {
        self.problems.push(format!("{}: {what}", self.entry.node_type.name));
    }

    fn defaults(&mut self) {
        self.text = format!("defaults\n{}", self.ask(&self.rows.base()).text);
    }

    fn params(&mut self, inputs: &Inputs) {
        for param in self.entry.params() {
            let (name, values) = (&param.name, self.rows.values(param));
            if values.is_empty() {
                self.problem(format!("`{name}` has no row in rows.yaml"));
                continue;
            }
            let base = self.rows.base_of(name);
            let mut links = self.defaults.clone();
            let sockets = self.entry.node_type.inputs.iter();
            for (i, socket) in sockets.enumerate().filter(|(_, s)| self.rows.linked_for(name) == Some(s.name)) {
                let [first, _] = inputs.of(socket);
                links[i] = vec![first];
            }
            let before = self.bench.ask(self.entry, &base, links.clone());
            let mut differs = false;
            for value in values {
                let mut params = base.clone();
                params.insert(name.to_string(), value.clone());
                let after = self.bench.ask(self.entry, &params, links.clone());
                if after.failed {
                    self.problem(format!("`{name}: {value}` fails: {}", after.text));
                }
                differs |= self.show(&format!("{name}: {value}"), &before, &after);
            }
            if !differs {
                self.problem(format!("`{name}` changes nothing"));
            }
        }
    }

    fn links(&mut self, inputs: &Inputs) {
        for (i, socket) in self.entry.node_type.inputs.iter().enumerate() {
            let base = self.rows.base_of(socket.name);
            let before = self.ask(&base);
            let [first, second] = inputs.of(socket);
            let mut links = self.defaults.clone();
            links[i] = match socket.arity {
                Arity::One => vec![second],
                Arity::Optional if links[i].is_empty() => vec![first],
                Arity::Optional => vec![],
                Arity::Many => vec![second, first],
            };
            let after = self.bench.ask(self.entry, &base, links);
            if !self.show(&format!("link {}", socket.name), &before, &after) {
                self.problem(format!("the link `{}` changes nothing", socket.name));
            }
        }
    }

    /// Adds a difference to the snapshot. Returns whether there is one.
    fn show(&mut self, title: &str, before: &Asked, after: &Asked) -> bool {
        self.text += &format!("\n\n{title}\n");
        let lines = asked::difference(&before.text, &after.text);
        self.text += &match before.outputs == after.outputs {
            _ if !lines.is_empty() => lines.join("\n"),
            false => "  other numbers".into(),
            true => "  as before".into(),
        };
        !lines.is_empty() || before.outputs != after.outputs
    }
}

/// A node's parameters.
type Params = serde_json::Map<String, Json>;
