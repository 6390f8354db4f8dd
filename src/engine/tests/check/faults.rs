//! One test for each kind of error: the exact message.

use insta::assert_snapshot;
use lsregen_engine::{Override, read_source, render, to_json};

use crate::{GOOD, checked, report};

/// The valid workflow with one piece replaced.
fn with(from: &str, to: &str) -> String {
    assert_eq!(GOOD.matches(from).count(), 1, "the workflow must contain {from} once");
    GOOD.replace(from, to)
}

/// `fault!(name, from => to)` damages the valid workflow. `fault!(name, text)` checks another text.
macro_rules! fault {
    ($name:ident, $from:expr => $to:expr $(, set $($arg:expr),*)?) => {
        #[test]
        fn $name() {
            assert_snapshot!(stringify!($name), report(&with($from, $to), &[$($($arg),*)?]));
        }
    };
    ($name:ident, $text:expr) => {
        #[test]
        fn $name() {
            assert_snapshot!(stringify!($name), report(&$text, &[]));
        }
    };
}

// The text.
fault!(empty_file, "");
fault!(only_comments, "# nothing\n");
fault!(not_a_mapping, "- a\n- b\n");
fault!(tab, "  up: {" => "\tup: {");
fault!(unclosed_bracket, "model: shapes/xl }" => "model: shapes/xl");
fault!(unclosed_quote, "prompt: ${prompt}\n" => "prompt: \"${prompt}\n");
fault!(missing_colon, "seed: 7\n" => "seed 7\n");
fault!(missing_space, "seed: 7\n" => "seed:7\n");
fault!(missing_colon_before_braces, "  up: {" => "  up {");
fault!(two_quotes, "about: A layout, drawn large." => "about: 'it's'");
fault!(comma_in_text, "prompt: \"${prompt}, sharp\"" => "prompt: ${prompt}, sharp");
fault!(list_without_brackets, "box: [0.08, 0.15, 0.45, 0.55]" => "box: 0.08, 0.15, 0.45, 0.55");
fault!(other_templates, "prompt: ${prompt}\n" => "prompt: {{prompt}}\n");
fault!(type_without_colon, "type: Upsample, " => "type Upsample, ");
fault!(colon_in_text, "prompt: a red" => "prompt: photo: a red");
fault!(bad_indentation, "    boxes:" => "   boxes:");
fault!(reserved_character, "about: A" => "about: @A");
fault!(bad_escape, "\"${prompt}, sharp\"" => "\"${prompt}\\sharp\"");
fault!(unknown_anchor, "image: up " => "image: *up ");
fault!(recursive_anchor, "boxes:\n" => "boxes: &b\n      - *b\n");
fault!(tagged, "seed: 7" => "seed: !!str 7");
fault!(number_key, "  up: {" => "  7: {");
fault!(empty_key, "  up: {" => "  : {");
fault!(duplicate_key, "width: 256, " => "width: 256, height: 128, ");
fault!(duplicate_node, "  image: {" => "  up: {");
fault!(two_documents, format!("{GOOD}---\n{GOOD}"));
fault!(control_character, "a red circle and" => "a red\u{7}circle and");
fault!(huge_number, "seed: 7" => "seed: 99999999999999999999");
fault!(infinite_number, "seed: 7" => "seed: .inf");
fault!(merge_of_text, "model: shapes/xl }" => "model: shapes/xl, <<: other }");

// The workflow.
fault!(no_version, "lsregen: 1\n" => "");
fault!(newer_version, "lsregen: 1\n" => "lsregen: 2\n");
fault!(odd_version, "lsregen: 1\n" => "lsregen: one\n");
fault!(unknown_top_key, "params:\n" => "parms:\n");
fault!(about_is_a_list, "about: A layout, drawn large." => "about: [a, b]");
fault!(params_is_a_list, "lsregen: 1\nparams: [a]\nnodes:\n  a: { type: LoadModel, model: x }\n");
fault!(misspelt_nodes, "nodes:\n" => "node:\n");
fault!(no_nodes, "lsregen: 1\nabout: Nothing yet.\n");
fault!(empty_nodes, "lsregen: 1\nnodes:\n");
fault!(dotted_name, "  up: {" => "  up.2: {");
fault!(unknown_reference, "prompt: ${prompt}\n" => "prompt: ${promt}\n");
fault!(reference_without_params, "lsregen: 1\nnodes:\n  a: { type: LoadModel, model: \"x/${size}\" }\n");
fault!(later_reference, "  seed: 7" => "  first: ${second}\n  second: ${seed}\n  seed: 7");
fault!(unclosed_reference, "\"${prompt}, sharp\"" => "\"${prompt, sharp\"");
fault!(list_for_text, "prompt: a red circle and a blue square on sand" => "prompt: [a, b]");
fault!(unused_param, "  seed: 7" => "  seed: 7\n  steps: 20");

// Nodes and keys.
fault!(node_is_text, "small: { type: LoadModel, model: shapes/gligen }" => "small: LoadModel");
fault!(node_is_nothing, "small: { type: LoadModel, model: shapes/gligen }" => "small:");
fault!(missing_type, "up: { type: Upsample, " => "up: { ");
fault!(misspelt_type_key, "up: { type: " => "up: { tpye: ");
fault!(unknown_type, "type: Upsample" => "type: Upsampel");
fault!(type_in_lower_case, "type: Layout" => "type: layout");
fault!(unknown_type_far_off, "type: Upsample" => "type: KSampler");
fault!(type_is_a_number, "type: Upsample" => "type: 3");
fault!(misspelt_param, "width: 256" => "widht: 256");
fault!(misspelt_input, "image: layout.image" => "imgae: layout.image");
fault!(unknown_key, "width: 256" => "width: 256, colour: red");
fault!(key_is_an_output, "image: up }" => "image: up, latent: x }");
fault!(key_on_node_without_keys, "model: large, latent: sample }" => "model: large, latent: sample, tile: 64 }");
fault!(missing_param, ", height: 256" => "");
fault!(missing_input, "image: layout.image, " => "");
fault!(missing_input_of_list, "guidance: [invert.guidance], " => "guidance: , ");

// Links.
fault!(unknown_node, "image: up }" => "image: upp }");
fault!(unknown_node_far_off, "image: up }" => "image: photo.png }");
fault!(unknown_output, "layout.image" => "layout.imag");
fault!(unknown_output_named_as_type, "image: up }" => "image: up.picture }");
fault!(no_outputs, "latent: sample }" => "latent: save }");
fault!(ambiguous_output, "image: up }" => "image: halves }\n  halves: { type: Halve, image: up }");
fault!(wrong_type_converted, "image: image," => "image: sample,");
fault!(wrong_type_other_output, "image: layout.image" => "image: layout.latent");
fault!(wrong_type, "latent: z0" => "latent: large");
fault!(wrong_type_of_several, "model: large, latent: sample" => "model: layout, latent: sample");
fault!(number_for_link, "image: up }" => "image: 3 }");
fault!(mapping_for_link, "image: up }" => "image: { type: LoadImage } }");
fault!(nothing_for_link, "image: up }" => "image: }");
fault!(list_for_one_link, "image: up }" => "image: [up] }");
fault!(one_link_for_list, "[invert.guidance]" => "invert.guidance");
fault!(wrong_family, "model: large, guidance" => "model: small, guidance");
fault!(cycle, "image: layout.image, " => "image: image, ");
fault!(self_link, "image: layout.image, " => "image: up, ");

// Parameters.
fault!(text_for_integer, "width: 256" => "width: wide");
fault!(quoted_number, "width: 256" => "width: \"256\"");
fault!(link_for_param, "width: 256" => "width: up");
fault!(fraction_for_integer, "width: 256" => "width: 256.0");
fault!(number_for_text, "path: out/picture.png" => "path: 7");
fault!(yes_for_true, "    boxes:" => "    twice: yes\n    boxes:");
fault!(nothing_for_param, "width: 256" => "width: ");
fault!(out_of_range, "width: 256" => "width: 4");
fault!(out_of_range_with_default, "    boxes:" => "    steps: 0\n    boxes:");
fault!(out_of_open_range, "width: 256" => "width: 256, sharpen: 2");
fault!(negative, "seed: 7" => "seed: -7");
fault!(not_a_choice, "width: 256" => "width: 256, filter: bicubik");
fault!(not_a_choice_far_off, "latent: z0" => "latent: z0, method: magic");
fault!(empty_text, "path: out/picture.png" => "path: ''");
fault!(too_few_items, "box: [0.08, 0.15, 0.45, 0.55]" => "box: [0.08, 0.15, 0.45]");
fault!(text_in_list, "box: [0.08, 0.15, 0.45, 0.55]" => "box: [0.08, top, 0.45, 0.55]");
fault!(unknown_inner_key, "phrase: a red circle" => "phrase: a red circle, colour: red");
fault!(misspelt_inner_key, "phrase: a red circle" => "phrse: a red circle");
fault!(missing_inner_key, "{ phrase: a red circle, " => "{ ");
fault!(list_item_is_text, "- { phrase: a red circle, box: [0.08, 0.15, 0.45, 0.55] }" => "- a red circle");
fault!(objection_of_the_node, "[0.08, 0.15, 0.45, 0.55]" => "[0.45, 0.15, 0.08, 0.55]");
fault!(missing_file, "  up: {" => "  photo: { type: LoadImage, path: pictur.png }\n  up: {");
fault!(missing_folder, "  up: {" => "  photo: { type: LoadImage, path: nowhere/picture.png }\n  up: {");
fault!(folder_for_file, "  up: {" => "  photo: { type: LoadImage, path: folder }\n  up: {");

/// Invalid values of rare types.
fn kinds(params: &str) -> String {
    with("  up: {", &format!("  kinds: {{ type: Kinds, {params} }}\n  up: {{"))
}

fault!(rare_colour, kinds("colour: { r: 1 }"));
fault!(rare_colour_part, kinds("colour: [1, 2, 256]"));
fault!(rare_tag, kinds("frame: { shape: linear, width: 1 }"));
fault!(rare_tagged_value, kinds("frame: { shape: margin, left: 1, rigth: 70000 }"));
fault!(rare_mapping, kinds("names: { a: 1, b: two }"));
fault!(rare_list_of_words, kinds("methods: [ddim, nois]"));
fault!(rare_pair, kinds("pair: [1, 2]"));
fault!(rare_pair_too_long, kinds("pair: [1, a, b]"));
fault!(rare_optional_struct, kinds("size: { phrase: a, box: [0, 0, 1, 1], weight: 2 }"));
fault!(rare_scale, kinds("scale: 0.05"));

#[test]
fn valid_values_of_rare_types() {
    let text =
        kinds("colour: [1, 2, 255], frame: { shape: line, width: 3 }, names: { a: 1 }, methods: [ddim], pair: [1, b]");
    assert!(checked(&text, &[]).graph.is_some(), "{}", report(&text, &[]));
    assert!(checked(&kinds("colour: red, size: null, scale: 0.1"), &[]).graph.is_some());
}

// The graph as a whole.
fault!(no_output, "  save: { type: SaveImage, image: image, path: out/picture.png }\n" => "");
fault!(unneeded_node, "  up: {" => "  again: { type: Upsample, image: layout.image, width: 8, height: 8 }\n  up: {");
fault!(written_twice, "  up: {" => "  too: { type: SaveImage, image: layout.image, path: out/picture.png }\n  up: {");

// From the command line.
fault!(unknown_override, "seed: 7" => "seed: 7", set "sed=8");
fault!(override_of_wrong_type, "seed: 7" => "seed: 7", set "seed=many");
fault!(override_out_of_range, "seed: ${seed}" => "steps: ${seed}", set "seed=5000");
fault!(override_inside_a_list, "boxes:\n" => "negative: ${seed}\n    boxes:\n", set "seed=[1, {a: b}]");
fault!(param_of_wrong_type, "seed: 7" => "seed: seven");

#[test]
fn broken_overrides() {
    let args = ["seed", "=7", "seed=[1, 2", "seed=\"x", "seed={a: 1, a: 2}", "seed=.nan"];
    let faults = args.iter().flat_map(|arg| match Override::parse(arg) {
        Ok(_) => checked(GOOD, &[arg]).diagnostics,
        Err(fault) => vec![*fault],
    });
    let faults: Vec<_> = faults.collect();
    assert_eq!(faults.len(), args.len());
    assert_snapshot!(render(&faults, false));
}

/// Whatever a text begins with, it is the value of a parameter that is a text.
#[test]
fn a_text_parameter_takes_the_text_as_it_is_written() {
    for text in ["[a cat", "{a: b}", "'tis a cat", "\"quoted\" cat", "[1, 2]", "7", ".nan", "null", "a: b # c", ""] {
        let checked = checked(GOOD, &[&format!("prompt={text}")]);
        let document = checked.document.expect("a document");
        let value = document.params().into_iter().find(|(name, _)| *name == "prompt").map(|(_, value)| value);
        assert_eq!(value, Some(text.into()));
        assert!(checked.diagnostics.iter().all(|diagnostic| diagnostic.code != "override"), "{text}");
    }
}

/// All errors of a file are reported together, each once, in the order of the file.
#[test]
fn many_faults_at_once() {
    let text = "\
lsregen: 1
params:
  size: large
nodes:
  small: { type: LoadModl, model: shapes/gligen }
  layout:
    type: Layout
    model: small
    prompt: ${promt}
    boxes:
      - { phrase: '', box: [0, 0, 1] }
  up: { type: Upsample, image: layout.image, width: ${size}, height: 0 }
  loop: { type: Upsample, image: loop, width: 8, height: 8 }
  save: { type: SaveImage, image: pu }
";
    assert_snapshot!(report(text, &[]));
}

#[test]
fn files_that_are_not_workflows() {
    let folder = tempfile::tempdir().expect("a folder");
    let write = |name: &str, bytes: &[u8]| std::fs::write(folder.path().join(name), bytes).expect("a file");
    write("graph.yaml", GOOD.as_bytes());
    write("latin.yaml", b"lsregen: 1\nabout: caf\xe9\n");
    write("huge.yaml", &"é".repeat(1 << 20).into_bytes()[1..]);
    let reported = ["grahp.yaml", "latin.yaml", ".", "nowhere/graph.yaml"].map(|name| {
        let fault = read_source(&folder.path().join(name)).err().expect("a fault");
        render(&[*fault], false).replace(&folder.path().display().to_string(), "FOLDER")
    });
    assert_snapshot!(reported.join(""));
    assert!(read_source(&folder.path().join("huge.yaml")).is_ok_and(|source| source.text().len() > 1 << 20));
    let source = read_source(&folder.path().join("graph.yaml")).ok().expect("a source");
    assert_eq!(source.text(), GOOD);
}

/// Errors that follow from another error are not reported.
#[test]
fn a_cause_is_reported_once() {
    let text = with("type: Layout", "type: Nonsense");
    assert_eq!(checked(&text, &[]).diagnostics.len(), 1);
    let text = GOOD.replace("${prompt}", "${nothing}");
    assert_eq!(checked(&text, &[]).diagnostics.len(), 2, "one a place");
    let text = with("  layout:\n", "  lay.out:\n").replace("layout.image", "lay.out");
    assert_eq!(checked(&text, &[]).diagnostics.len(), 1);
    let text = with("seed: 7", "seed: .nan");
    assert_eq!(checked(&text, &[]).diagnostics.len(), 1);
}

#[test]
fn json_has_every_location() {
    let diagnostics = checked(&with("width: 256", "width: ${seed}"), &["seed=many"]).diagnostics;
    assert_snapshot!(serde_json::to_string_pretty(&to_json(&diagnostics)).expect("JSON"));
}

#[test]
fn colours_are_escape_sequences() {
    let diagnostics = checked(&with("width: 256", "width: 4"), &[]).diagnostics;
    assert!(render(&diagnostics, true).contains("\u{1b}["));
    assert!(!render(&diagnostics, false).contains('\u{1b}'));
}
