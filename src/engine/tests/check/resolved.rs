//! The text of a graph with its overrides written in, and everything else unchanged.

use std::sync::Arc;

use lsregen_engine::{
    Checked, Context, FileDigests, GraphRecord, Node, NodeType, Override, Plan, Record, Registry, RunRecord, Source,
    Store, check,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Takes any value.
#[derive(Serialize, Deserialize, JsonSchema)]
struct Say {
    values: Vec<serde_json::Value>,
}

impl Node for Say {
    const TYPE: &'static str = "Say";
    const VERSION: u32 = 1;
    const OUTPUT: bool = true;
    type Inputs = ();
    type Outputs = ();

    fn run(&self, _: (), _: &Context) -> anyhow::Result<()> {
        Ok(())
    }
}

/// A graph with these lines below `params:`.
fn graph(params: &str, uses: &[&str]) -> String {
    let uses: Vec<_> = uses.iter().map(|name| format!("${{{name}}}")).collect();
    let uses = uses.join(", ");
    format!("lsregen: 1 # the format\nparams:\n{params}nodes:\n  say: {{ type: Say, values: [{uses}] }} # all\n")
}

fn checked(text: &str, set: &[&str]) -> Checked {
    let set: Vec<_> = set.iter().map(|arg| Override::parse(arg).ok().expect("a proper override")).collect();
    check(Source::new("graph.yaml", text), &set, &Registry::new(&[NodeType::of::<Say>()]), &crate::host())
}

/// The resolved text of a graph, which must give the same graph.
fn resolved(text: &str, set: &[&str]) -> String {
    let params = |checked: &Checked| format!("{:?}", checked.document.as_ref().unwrap().params());
    let values = |checked: &Checked| {
        let graph = checked.graph.as_ref().unwrap();
        format!("{:?}", graph.node(graph.order()[0]).node.params())
    };
    let run = checked(text, set);
    let Some(graph) = &run.graph else {
        panic!("{:?}\n{text}", run.diagnostics.iter().map(|d| &d.message).collect::<Vec<_>>())
    };
    let resolved = graph.resolved().unwrap_or_else(|| panic!("no text for {set:?} over\n{text}")).to_string();
    let again = checked(&resolved, &[]);
    assert_eq!((params(&again), values(&again)), (params(&run), values(&run)), "{resolved}");
    resolved
}

/// Checks that `after` is `before` with the overrides.
#[track_caller]
fn splices(before: &str, set: &[&str], after: &str, uses: &[&str]) {
    assert_eq!(resolved(&graph(before, uses), set), graph(after, uses));
}

#[test]
fn without_overrides_the_text_is_the_file() {
    let text = graph("  seed: 7\n", &["seed"]);
    assert_eq!(resolved(&text, &[]), text);
}

#[test]
fn a_number() {
    splices("  seed: 7 # luck\n", &["seed=8"], "  seed: 8 # luck\n", &["seed"]);
    splices("  seed: 7 # luck\n", &["seed=8", "seed=9"], "  seed: 9 # luck\n", &["seed"]);
    splices("  cfg: 7 # luck\n", &["cfg=1e-7"], "  cfg: 1e-7 # luck\n", &["cfg"]);
    splices("  cfg: 7\n", &["cfg=2.0"], "  cfg: 2.0\n", &["cfg"]);
}

#[test]
fn a_text() {
    let words = |before: &str, set: &str, after: &str| splices(before, &[set], after, &["prompt"]);
    words("  prompt: a star\n", "prompt=say \"so\": # it's", "  prompt: \"say \\\"so\\\": # it's\"\n");
    words("  prompt: 'it''s' # so\n", "prompt=7", "  prompt: \"7\" # so\n");
    words("  prompt: \"a\" # not \"b\"\n", "prompt=b", "  prompt: \"b\" # not \"b\"\n");
    words("  prompt: \"a \\n b\"\n", "prompt=ünï", "  prompt: \"ünï\"\n");
    words("  prompt: a\n", "prompt=two\nlines\u{7}\u{7f}", "  prompt: \"two\\nlines\\u0007\\u007f\"\n");
    words("  prompt: a\n", "prompt=$${not}", "  prompt: \"$${not}\"\n");
    words("  prompt: a\n", "prompt=\"[so\", 'so'", "  prompt: \"\\\"[so\\\", 'so'\"\n");
    words("  prompt: a\n", "prompt=", "  prompt: \"\"\n");
}

#[test]
fn a_text_of_several_lines() {
    let words = |before: &str, after: &str| {
        splices(before, &["prompt=a sea", "seed=8"], after, &["prompt", "seed"]);
    };
    words("  prompt: |\n    one\n    two\n  seed: 7\n", "  prompt: \"a sea\"\n  seed: 8\n");
    words("  prompt: >- # folded\n    one\n\n    two\n\n  seed: 7\n", "  prompt: \"a sea\" # folded\n\n  seed: 8\n");
    words("  prompt: one\n    two\n  seed: 7\n", "  prompt: \"a sea\"\n  seed: 8\n");
    words("  prompt:\n    \"one\n    two\"\n  seed: 7\n", "  prompt: \"a sea\"\n  seed: 8\n");
}

#[test]
fn a_list() {
    let boxes = "boxes=[{ phrase: a red circle, box: [0, 0, 0.5, 1] }]";
    let after = |comment: &str| {
        format!("  boxes: [{{\"phrase\":\"a red circle\",\"box\":[0,0,0.5,1]}}]{comment}\n  seed: 7 # kept\n")
    };
    for (before, comment) in [
        ("  boxes: [] # none\n", " # none"),
        ("  boxes: [[0], '#'] # none, not even [1]\n", " # none, not even [1]"),
        ("  boxes: [\n    { phrase: a, box: [0, 0, 1, 1] }, # first\n  ]\n", ""),
        (
            "  boxes: # of the layout\n    # and more\n    - { phrase: a, box: [0, 0, 1, 1] } # first\n",
            " # of the layout\n    # and more",
        ),
        ("  boxes:\n    - phrase: a\n      box: [0, 0, 1, 1]\n", ""),
        ("  boxes:\n  - phrase: a\n    box: [0, 0, 1, 1]\n", ""),
    ] {
        let text = resolved(&graph(&format!("{before}  seed: 7 # kept\n"), &["boxes", "seed"]), &[boxes]);
        let wanted = graph(&after(comment), &["boxes", "seed"]);
        // A comment behind the last item keeps its place.
        assert_eq!(text.replace(" # first\n", "\n"), wanted, "{before}");
    }
}

#[test]
fn nothing() {
    splices("  negative:\n  seed: 7\n", &["negative=red"], "  negative: \"red\"\n  seed: 7\n", &["negative", "seed"]);
    splices("  negative: ~ # none\n", &["negative=red"], "  negative: \"red\" # none\n", &["negative"]);
    splices("  negative: 7\n", &["negative=null"], "  negative: null\n", &["negative"]);
    let flow = "lsregen: 1\nparams: { negative: , seed: 7 }\nnodes: { say: { type: Say, values: [${negative}] } }\n";
    let wanted = flow.replace("negative: ,", "negative: \"red\" ,");
    assert_eq!(resolved(flow, &["negative=red"]), wanted);
    // There is not even a colon, so the text is written anew.
    let bare = resolved(&flow.replace("negative: ,", "negative,"), &["negative=red"]);
    assert!(bare.contains("negative: red"), "{bare}");
}

#[test]
fn a_value_that_names_another_parameter() {
    splices(
        "  base: a star\n  prompt: ${base}, red\n",
        &["prompt=${base}, blue"],
        "  base: a star\n  prompt: \"${base}, blue\"\n",
        &["base", "prompt"],
    );
}

#[test]
fn anchors() {
    // An anchor without an alias is kept.
    splices("  seed: &s 7\n", &["seed=8"], "  seed: &s 8\n", &["seed"]);
    // An alias would repeat the new value, and an alias cannot be replaced: the text is written anew.
    for set in ["seed=8", "other=8"] {
        let text = resolved(&graph("  seed: &s 7 # luck\n  other: *s\n", &["seed", "other"]), &[set]);
        assert!(!text.contains('#') && text.contains("8\n") && text.contains("7\n"), "{text}");
    }
    let text = resolved(&graph("  base: &b { x: 1 }\n  <<: *b\n", &["base", "x"]), &["x=2"]);
    assert!(text.contains("x: 2\n") && text.contains("x: 1\n"), "{text}");
}

#[test]
fn other_ends_of_lines_and_marks() {
    let text = graph("  seed: 7 # luck\n  prompt:\n    - a\n", &["seed", "prompt"]);
    let dressed = |text: &str| format!("\u{feff}{}", text.replace('\n', "\r\n"));
    let wanted = graph("  seed: 8 # luck\n  prompt: [\"b\"]\n", &["seed", "prompt"]);
    assert_eq!(resolved(&dressed(&text), &["seed=8", "prompt=[b]"]), dressed(&wanted));
}

#[test]
fn a_key_in_quotes_and_a_mapping_in_brackets() {
    let text =
        "lsregen: 1\nparams: {\"se\\u0065d\": 7, \"prompt\":'a: b'}\nnodes: {say: {type: Say, values: [${seed}]}}\n";
    let wanted = text.replace(": 7,", ": 8,").replace("'a: b'", "\"c, {d}\"");
    assert_eq!(resolved(text, &["seed=8", "prompt=c, {d}"]), wanted);
}

#[test]
fn a_record_holds_graph_and_keys_but_no_folder() {
    let text = graph("  seed: 7 # luck\n", &["seed"]);
    let set = [Override::parse("seed=8").ok().expect("a proper override")];
    let host = Arc::new(crate::host());
    let source = Source::new("some/folder/graph.yaml", text);
    let graph = check(source, &set, &Registry::new(&[NodeType::of::<Say>()]), &host).graph.expect("a good graph");
    let plan = Plan::new(&graph, &host, &Store::in_memory(0), &FileDigests::new()).expect("a plan");
    let key = plan.steps()[0].key;
    let json = Record::new(Arc::new(graph), vec![key]).json().expect("a record").to_string();
    assert!(!json.contains("folder"), "{json}");
    let record = GraphRecord::parse(&json).unwrap();
    assert_eq!((record.file.as_str(), record.includes.len()), ("graph.yaml", 0));
    assert_eq!(record.program, format!("lsregen {}", env!("CARGO_PKG_VERSION")));
    assert!(record.graph.contains("seed: 8 # luck"), "{}", record.graph);
    assert_eq!(record.keys["say"], key.to_string());
}

#[test]
fn a_text_that_is_not_a_record_is_an_error() {
    let fault = |json: &str| GraphRecord::parse(json).unwrap_err().to_string();
    assert!(fault("{").contains("does not carry a record of lsregen"));
    assert!(fault("[1]").contains("does not carry a record of lsregen"));
    assert!(fault(r#"{ "record": 1 }"#).contains("missing field"));
    assert!(fault(r#"{ "record": 2, "graph": [] }"#).contains("use a newer lsregen"));
}
