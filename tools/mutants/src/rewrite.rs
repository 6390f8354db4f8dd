//! Writes a file with all its mutants, each behind its switch.

use std::ops::Range;

use crate::mutant::{Kind, Mutant};

/// A part of a rewritten file that belongs to a mutant.
#[derive(Debug)]
pub struct Region {
    /// Bytes of the rewritten file.
    pub span: Range<usize>,
    /// The mutant that has this changed text; or all mutants of a site, for the region that also contains the original
    /// text.
    pub owner: Owner,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Owner {
    Changed(u32),
    Site(Vec<u32>),
}

/// A rewritten file.
#[derive(Default)]
pub struct Rewritten {
    pub text: String,
    pub regions: Vec<Region>,
}

/// A site with its mutants, and the sites inside it.
struct Node<'m> {
    kind: Kind,
    span: Range<usize>,
    mutants: Vec<&'m Mutant>,
    inner: Vec<Node<'m>>,
}

/// Returns the file with each of its mutants behind a switch.
pub fn rewrite(source: &str, mutants: &[&Mutant]) -> Rewritten {
    let mut sorted = mutants.to_vec();
    sorted.sort_by_key(|m| (m.site.span.start, usize::MAX - m.site.span.end, m.site.kind, m.id));
    let mut sorted = sorted.into_iter().peekable();
    let mut nodes = Vec::new();
    while sorted.peek().is_some() {
        nodes.push(node(&mut sorted));
    }
    let mut out = Rewritten::default();
    write(source, 0..source.len(), &nodes, &mut out);
    out
}

fn node<'m>(sorted: &mut std::iter::Peekable<impl Iterator<Item = &'m Mutant>>) -> Node<'m> {
    let first = sorted.next().expect("the caller has seen one");
    let mut node =
        Node { kind: first.site.kind, span: first.site.span.clone(), mutants: vec![first], inner: Vec::new() };
    while let Some(next) = sorted.peek() {
        let site = &next.site;
        if site.span == node.span && site.kind == node.kind {
            node.mutants.extend(sorted.next());
        } else if site.span.start < node.span.end {
            assert!(site.span.end <= node.span.end, "sites are nested: {:?} and {}", node.span, next.summary());
            node.inner.push(self::node(sorted));
        } else {
            break;
        }
    }
    node
}

fn write(source: &str, span: Range<usize>, nodes: &[Node], out: &mut Rewritten) {
    let mut at = span.start;
    for node in nodes {
        out.text.push_str(&source[at..node.span.start]);
        at = node.span.end;
        let start = out.text.len();
        out.text.push_str(if node.kind == Kind::Expression { "(" } else { "" });
        for mutant in &node.mutants {
            out.text.push_str(&format!("if crate::planted_mutants::on({}) {{ ", mutant.id));
            let start = out.text.len();
            out.text.push_str(&mutant.site.text);
            out.regions.push(Region { span: start..out.text.len() + 1, owner: Owner::Changed(mutant.id) });
            out.text.push_str(" } else ");
        }
        out.text.push_str("{ ");
        write(source, node.span.clone(), &node.inner, out);
        out.text.push_str(" }");
        out.text.push_str(if node.kind == Kind::Expression { ")" } else { "" });
        let ids = node.mutants.iter().map(|mutant| mutant.id).collect();
        out.regions.push(Region { span: start..out.text.len(), owner: Owner::Site(ids) });
    }
    out.text.push_str(&source[at..span.end]);
}

/// The module of switches that is added to each crate with mutants.
///
/// An environment variable turns a mutant on, so that programs that the tests start inherit it. Another variable names
/// a file to which each process appends the mutants that it reaches.
pub fn switches(count: u32) -> String {
    format!("{}{}", SWITCHES.replace("COUNT", &(count + 1).to_string()), "\n")
}

const SWITCHES: &str = r#"
#[doc(hidden)]
#[allow(warnings)]
pub(crate) mod planted_mutants {
    use std::fs::File;
    use std::io::Write;
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicBool, Ordering};

    struct State {
        on: u32,
        reached: Option<File>,
    }

    static STATE: OnceLock<State> = OnceLock::new();
    static SEEN: [AtomicBool; COUNT] = [const { AtomicBool::new(false) }; COUNT];

    fn state() -> State {
        let on = std::env::var("LSREGEN_MUTANT").ok().and_then(|id| id.parse().ok()).unwrap_or(0);
        let path = std::env::var_os("LSREGEN_MUTANTS_REACHED");
        State { on, reached: path.and_then(|path| File::options().append(true).create(true).open(path).ok()) }
    }

    #[inline]
    pub(crate) fn on(id: u32) -> bool {
        let state = STATE.get_or_init(state);
        if let Some(mut file) = state.reached.as_ref()
            && !SEEN[id as usize].swap(true, Ordering::Relaxed)
        {
            let _ = file.write_all(format!("{id}\n").as_bytes());
        }
        state.on == id
    }
}
"#;
