//! Valid graphs.

use lsregen_engine::Graph;

use crate::{GOOD, checked, report};

fn graph(text: &str) -> Graph {
    let checked = checked(text, &[]);
    assert_eq!(report(text, &[]), "");
    checked.graph.expect("no error")
}

fn names(graph: &Graph) -> Vec<&str> {
    graph.order().iter().map(|&node| &*graph.node(node).name).collect()
}

#[test]
fn a_good_graph_has_its_nodes_links_and_outputs() {
    let graph = graph(GOOD);
    assert_eq!(names(&graph), ["small", "large", "layout", "up", "z0", "invert", "sample", "image", "save"]);
    let node = |name| *graph.order().iter().find(|&&node| &*graph.node(node).name == name).expect("a node");
    let up = graph.node(node("up"));
    assert_eq!(up.inputs[0][0].producer, node("layout"));
    assert_eq!(up.inputs[0][0].output, 0);
    let sample = graph.node(node("sample"));
    assert_eq!(sample.inputs.iter().map(Vec::len).collect::<Vec<_>>(), [1, 1, 0]);
    assert_eq!(graph.outputs().collect::<Vec<_>>(), [node("save")]);
    let params = graph.node(node("sample")).node.params().expect("JSON");
    assert_eq!(params["prompt"], "a red circle and a blue square on sand, sharp");
    assert_eq!(graph.node(node("layout")).node.params().expect("JSON")["seed"], 7);
}

#[test]
fn parameters_are_found_in_the_document() {
    let graph = graph(GOOD);
    let node = |name| *graph.order().iter().find(|&&node| &*graph.node(node).name == name).expect("a node");
    let at = |name, path| {
        let label = graph.locate(node(name), path);
        assert_eq!(label.source.name(), "graph.yaml");
        label.source.slice(label.span).to_string()
    };
    assert_eq!(at("up", "width"), "256");
    assert_eq!(at("layout", "boxes/1/phrase"), "a blue square");
    assert_eq!(at("layout", "boxes/1/box/9"), "[0.55, 0.50, 0.92, 0.90]");
    assert_eq!(at("layout", "prompt"), "${prompt}");
    assert_eq!(at("layout", "nothing"), "layout");
    assert_eq!(at("layout", ""), "layout");
}

#[test]
fn overrides_change_params() {
    let checked = checked(GOOD, &["seed=8", "prompt=1984: a \"sea\" # 3", "seed=9"]);
    let params = checked.document.as_ref().expect("a document").params();
    assert_eq!(params[0], ("prompt", "1984: a \"sea\" # 3".into()));
    assert_eq!(params[1], ("seed", 9.into()));
    assert_eq!(checked.document.as_ref().and_then(|d| d.about()), Some("A layout, drawn large."));
    assert!(checked.graph.is_some());
}

#[test]
fn text_params_stay_texts_and_lists_stay_lists() {
    let text = "lsregen: 1\nparams: { name: 'a', boxes: [], out: '${name}.png', plain: '$${name}' }\nnodes:\n  \
                x: { type: LoadModel, model: '${name}${boxes}' }\n";
    let checked = checked(text, &["name=7", "boxes=[{phrase: x, box: [0, 0, 1, 1]}]"]);
    let params = checked.document.expect("a document");
    let params = params.params();
    assert_eq!(params[0].1, "7");
    assert_eq!(params[1].1[0]["box"][2], 1);
    assert_eq!(params[2].1, "7.png");
    assert_eq!(params[3].1, "${name}");
}

#[test]
fn references_need_no_quotes_inside_braces() {
    let text =
        GOOD.replace("prompt: \"${prompt}, sharp\"", "prompt: ${prompt}").replace("width: 256", "width: ${ size}");
    assert!(report(&text, &[]).contains("no parameter ` size`"));
    let graph = graph(&text.replace("${ size}", "256"));
    let node = graph.order().iter().find(|&&node| &*graph.node(node).name == "sample").expect("a node");
    let params = graph.node(*node).node.params().expect("JSON");
    assert_eq!(params["prompt"], "a red circle and a blue square on sand");
}

#[test]
fn anchors_and_merge_keys_are_written_out() {
    let text = "\
lsregen: 1
nodes:
  a: &load { type: LoadImage, path: picture.png }
  b: { <<: *load }
  big: &big { type: Upsample, width: 64, height: 64, image: a }
  bigger: { <<: *big, width: 128, image: b }
  save: { type: SaveImage, image: big, path: a.png }
  save2: { type: SaveImage, image: bigger, path: b.png }
";
    let graph = graph(text);
    let node = graph.order().iter().find(|&&node| &*graph.node(node).name == "bigger").expect("a node");
    let params = graph.node(*node).node.params().expect("JSON");
    assert_eq!((&params["width"], &params["height"]), (&128.into(), &64.into()));
}

#[test]
fn a_node_hands_on_the_family_of_its_model() {
    let text = GOOD.replace("model: large, guidance", "model: patched, guidance");
    assert!(!graph(&format!("{text}  patched: {{ type: Patch, model: large }}\n")).order().is_empty());
    let reported = report(&format!("{text}  patched: {{ type: Patch, model: small }}\n"), &[]);
    assert!(reported.contains("wrong-family"), "{reported}");
}

#[test]
fn windows_line_ends_and_a_byte_order_mark_change_nothing() {
    let graph = graph(&format!("\u{feff}{}", GOOD.replace('\n', "\r\n")));
    assert_eq!(graph.order().len(), 9);
}
