//! Locations: bytes, lines, columns.

use lsregen_engine::{Position, Source, Span, to_json};

use crate::checked;

#[test]
fn columns_count_characters() {
    let source = Source::new("x", "ä: ö\r\n\tß: 1");
    assert_eq!(source.position(0), Position { line: 1, column: 1 });
    assert_eq!(source.position("ä: ".len()), Position { line: 1, column: 4 });
    assert_eq!(source.position("ä: ö\r\n\tß".len()), Position { line: 2, column: 3 });
    assert_eq!(source.position(999), Position { line: 2, column: 6 });
    assert_eq!(source.slice(source.line_span(1)), "ä: ö");
    assert_eq!(source.slice(source.line_span(2)), "\tß: 1");
    assert_eq!(source.slice(Span::new(1, 2)), "", "a span within a character is empty");
}

/// The marked text, line and column of each error.
fn marked(text: &str) -> Vec<(String, u64, u64)> {
    let diagnostics = checked(text, &[]).diagnostics;
    let json = to_json(&diagnostics);
    let places = diagnostics.iter().zip(json.as_array().expect("a list"));
    let place = |json: &serde_json::Value, key: &str| json[key].as_u64().expect("a number");
    places
        .map(|(d, json)| {
            (d.primary.source.slice(d.primary.span).to_string(), place(json, "line"), place(json, "column"))
        })
        .collect()
}

#[test]
fn carets_stand_under_multi_byte_text() {
    let text = "# 日本\nlsregen: 1\nnodes:\n  größe: { type: LoadModel, model: \"日本\", 模型: ü }\n  \
                save: { type: SaveImage, path: ä.png, image: größé }\n";
    let expected = [("模型".to_string(), 4, 42), ("größé".to_string(), 5, 48)];
    assert_eq!(marked(text), expected);
    let windows = format!("\u{feff}{}", text.replace('\n', "\r\n"));
    assert_eq!(marked(&windows), expected);
}

#[test]
fn values_are_marked_without_anchor_and_quotes_are_part_of_them() {
    let text = "lsregen: 1\nnodes:\n  a: { type: &t \"Nix\" }\n  b:\n    type: &u\n      Nox\n  c: { type: Upsample, width: [1,\n    \
                2], height: 8 }\n";
    let marked = marked(text);
    let texts: Vec<_> = marked.iter().map(|(text, ..)| text.as_str()).collect();
    assert_eq!(texts, ["\"Nix\"", "Nox", "c", "[1,\n    2]"]);
}
