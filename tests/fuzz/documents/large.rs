//! Large documents, built to be slow to check.

use std::fmt::Write;

/// Makes a document of about this many bytes.
pub type Make = fn(usize) -> String;

/// Each kind of large document.
pub const LARGE: &[(&str, Make)] = &[
    ("chain of nodes", |bytes| {
        repeated(bytes, "lsregen: 1\nnodes:\n  n0: { type: LoadImage, path: no.png }\n", |i| {
            format!("  n{}: {{ type: Upsample, image: n{i}, factor: 2 }}\n", i + 1)
        })
    }),
    ("nodes without a fault", |bytes| {
        let head = "lsregen: 1\nnodes:\n  m: { type: LoadModel, model: shapes/xl }\n";
        repeated(bytes, head, |i| {
            format!(
                "  s{i}: {{ type: SDXLSample, model: m, prompt: x, seed: {i} }}\n  d{i}: {{ type: Decode, model: m, latent: \
                 s{i} }}\n  w{i}: {{ type: SaveImage, image: d{i}, path: o{i}.png }}\n"
            )
        })
    }),
    ("models", |bytes| {
        repeated(bytes, "lsregen: 1\nnodes:\n", |i| format!("  m{i}: {{type: LoadModel, model: shapes/gligen}}\n"))
    }),
    ("models that are not there", |bytes| {
        repeated(bytes, "lsregen: 1\nnodes:\n", |i| format!("  m{i}: {{type: LoadModel, model: shape{i}}}\n"))
    }),
    ("pictures that are not there", |bytes| {
        repeated(bytes, "lsregen: 1\nnodes:\n", |i| format!("  m{i}: {{type: LoadImage, path: layout{i}.json}}\n"))
    }),
    ("layouts from a file", |bytes| {
        let head = "lsregen: 1\nnodes:\n  m: { type: LoadModel, model: shapes/gligen }\n";
        repeated(bytes, head, |i| {
            format!("  l{i}: {{type: GLIGENLayout, model: m, prompt: x, layout_file: layout.json}}\n")
        })
    }),
    ("one node of many keys", |bytes| {
        repeated(bytes, "lsregen: 1\nnodes:\n  a:\n    type: SDXLSample\n", |i| format!("    k{i}: 1\n"))
    }),
    ("one node of many near keys", |bytes| {
        repeated(bytes, "lsregen: 1\nnodes:\n  a:\n    type: SDXLSample\n", |i| format!("    promp{i}: 1\n"))
    }),
    ("one mapping of many keys in a parameter", |bytes| {
        let head = "lsregen: 1\nnodes:\n  a:\n    type: GLIGENLayout\n    boxes:\n      - phrase: x\n";
        repeated(bytes, head, |i| format!("        k{i}: 1\n"))
    }),
    ("many wrong items", |bytes| {
        repeated(bytes, "lsregen: 1\nnodes:\n  a:\n    type: ImageGrid\n    labels:\n", |_| "      - 1\n".into())
    }),
    ("wrong and poisoned items in turn", |bytes| {
        repeated(bytes, "lsregen: 1\nnodes:\n  a:\n    type: ImageGrid\n    labels:\n", |_| {
            "      - 1\n      - !t x\n".into()
        })
    }),
    ("wrong items on one line", |bytes| {
        repeated(bytes, "lsregen: 1\nnodes: { a: { type: ImageGrid, labels: [", |_| "1,".into()) + "] } }"
    }),
    ("wrong items on one line beyond ASCII", |bytes| {
        repeated(bytes, "lsregen: 1\nnodes: { ü: { type: ImageGrid, labels: [", |_| "1,".into()) + "] } }"
    }),
    ("nodes on one line", |bytes| {
        repeated(bytes, "lsregen: 1\nnodes: {", |i| format!("n{i}: {{type: Decode, latent: n{i}}}, ")) + "}"
    }),
    ("boxes", |bytes| {
        let head = "lsregen: 1\nnodes:\n  a:\n    type: GLIGENLayout\n    prompt: x\n    boxes:\n";
        repeated(bytes, head, |_| "      - { phrase: x, box: [0.5, 0, 0.2, 1] }\n".into())
    }),
    ("faults of every kind", |bytes| {
        repeated(bytes, "lsregen: 1\nnodes:\n", |i| {
            format!("  n{i}: {{ type: Decod, model: m{i}, latnt: n{i}.imag, steps: ${{p{i}}} }}\n")
        })
    }),
    ("unknown references", |bytes| {
        let head = "lsregen: 1\nparams: { prompt: x }\nnodes:\n  a:\n    type: ImageGrid\n    labels:\n";
        repeated(bytes, head, |i| format!("      - ${{promt{i}}}\n"))
    }),
    ("unknown references in one text", |bytes| {
        let head = "lsregen: 1\nparams: { prompt: x }\nnodes:\n  a: { type: SDXLSample, prompt: \"";
        repeated(bytes, head, |i| format!("${{promt{i}}} ")) + "\" }\n"
    }),
    ("known references in one text", |bytes| {
        let head = "lsregen: 1\nparams: { p: x }\nnodes:\n  a: { type: SDXLSample, prompt: \"";
        repeated(bytes, head, |_| "${p} ".into()) + "\" }\n"
    }),
    ("unclosed references in one text", |bytes| {
        repeated(bytes, "lsregen: 1\nnodes:\n  a: { type: SDXLSample, prompt: \"", |_| "${p $${".into()) + "\" }\n"
    }),
    ("many params, each unknown to the nodes", |bytes| {
        let params = repeated(bytes / 2, "lsregen: 1\nparams:\n", |i| format!("  p{i}: {i}\n"));
        let head = params + "nodes:\n  a:\n    type: ImageGrid\n    labels:\n";
        repeated(bytes, &head, |i| format!("      - ${{q{i}}}\n"))
    }),
    ("params that name those below", |bytes| {
        repeated(bytes, "lsregen: 1\nparams:\n", |i| format!("  p{i}: ${{p{}}}\n", i + 1)) + "nodes: {}\n"
    }),
    ("chain of params", |bytes| {
        let head = "lsregen: 1\nparams:\n  p0: x\n";
        repeated(bytes, head, |i| format!("  p{}: \"${{p{i}}}y\"\n", i + 1)) + "nodes: { a: { type: LoadImage } }\n"
    }),
    ("chain of params inside lists", |bytes| {
        let head = "lsregen: 1\nparams:\n  p0: x\n";
        repeated(bytes, head, |i| format!("  p{}: [\"${{p{i}}}\"]\n", i + 1)) + "nodes: { a: { type: LoadImage } }\n"
    }),
    ("references to a large param", |bytes| {
        let list = repeated(bytes / 2, "lsregen: 1\nparams:\n  big: [", |_| "x, ".into());
        let head = list + "]\nnodes:\n";
        repeated(bytes, &head, |i| format!("  n{i}: {{ type: ImageGrid, labels: ${{big}} }}\n"))
    }),
    ("references to a long text", |bytes| {
        let list = repeated(bytes / 2, "lsregen: 1\nparams:\n  big: ", |_| "x".into());
        let head = list + "\nnodes:\n";
        repeated(bytes, &head, |i| format!("  n{i}: {{ type: SDXLSample, prompt: \"a ${{big}}\" }}\n"))
    }),
    ("unused params", |bytes| {
        repeated(bytes, "lsregen: 1\nnodes: { a: { type: LoadImage, path: x } }\nparams:\n", |i| format!("  p{i}: 1\n"))
    }),
    ("near names", |bytes| {
        repeated(bytes, "lsregen: 1\nnodes:\n", |i| {
            format!("  picture{i}: {{ type: Upsample, image: picturr{} }}\n", i + 1)
        })
    }),
    ("long near names", |bytes| {
        let name = "n".repeat(95);
        repeated(bytes, "lsregen: 1\nnodes:\n", |i| {
            format!("  {name}{i}: {{ type: Upsample, image: {name}x{} }}\n", i + 1)
        })
    }),
    ("names that are none, and links to them", |bytes| {
        repeated(bytes, "lsregen: 1\nnodes:\n", |i| {
            format!("  1x{i}: {{ type: LoadImage, path: a }}\n  n{i}: {{ type: Upsample, image: 2x{i} }}\n")
        })
    }),
    ("links to one node", |bytes| {
        let head = "lsregen: 1\nnodes:\n  a: { type: LoadLatent, path: x.safetensors }\n";
        repeated(bytes, head, |i| format!("  n{i}: {{ type: SaveLatent, latent: a, path: {i}.safetensors }}\n"))
    }),
    ("one node with many links", |bytes| {
        let head = "lsregen: 1\nnodes:\n  a: { type: Upsample, factor: 2, image: g }\n  g:\n    type: ImageGrid\n    images:\n";
        repeated(bytes, head, |_| "      - a\n".into())
    }),
    ("links to outputs that are not there", |bytes| {
        let head = "lsregen: 1\nnodes:\n  a: { type: GLIGENLayout }\n  g:\n    type: ImageGrid\n    images:\n";
        repeated(bytes, head, |i| format!("      - a.imag{i}\n"))
    }),
    ("cycles of two", |bytes| {
        repeated(bytes, "lsregen: 1\nnodes:\n", |i| {
            format!("  a{i}: {{type: Upsample, image: b{i}}}\n  b{i}: {{type: Upsample, image: a{i}}}\n")
        })
    }),
    ("one long cycle", |bytes| {
        repeated(bytes, "lsregen: 1\nnodes:\n  n0: { type: Upsample, image: n1 }\n", |i| {
            format!("  n{}: {{ type: Upsample, image: n{} }}\n", i + 1, i + 2)
        }) + "  last: { type: Upsample, image: n0 }\n"
    }),
    ("links to themselves", |bytes| {
        repeated(bytes, "lsregen: 1\nnodes:\n", |i| format!("  a{i}: {{type: Upsample, image: a{i}}}\n"))
    }),
    ("files written twice", |bytes| {
        let head = "lsregen: 1\nnodes:\n  a: { type: LoadImage, path: x.png }\n";
        repeated(bytes, head, |i| format!("  n{i}: {{ type: SaveImage, image: a, path: x.png }}\n"))
    }),
    ("a family that does not fit", |bytes| {
        let head = "lsregen: 1\nnodes:\n  m: { type: LoadModel, model: shapes/xl }\n";
        repeated(bytes, head, |i| format!("  n{i}: {{ type: GLIGENLayout, model: m, prompt: x, boxes: [] }}\n"))
    }),
    ("keys twice", |bytes| repeated(bytes, "lsregen: 1\nnodes:\n", |_| "  a: {type: LoadImage}\n".into())),
    ("top keys", |bytes| repeated(bytes, "lsregen: 1\n", |i| format!("node{i}: 1\n"))),
    ("keys that are no texts", |bytes| repeated(bytes, "lsregen: 1\nnodes:\n", |i| format!("  {i}: 1\n"))),
    ("numbers too large", |bytes| repeated(bytes, "lsregen: 1\nparams:\n  a:\n", |i| format!("  - 1e999{i}\n"))),
    ("tags", |bytes| repeated(bytes, "lsregen: 1\nparams:\n  a: [", |_| "!t x, ".into()) + "]\n"),
    ("anchors", |bytes| repeated(bytes, "lsregen: 1\nparams:\n", |i| format!("  p{i}: &a{i} x\n"))),
    ("aliases", |bytes| repeated(bytes, "lsregen: 1\nparams:\n  a: &a [1, 2]\n  b: [", |_| "*a, ".into()) + "]\n"),
    ("aliases of a large value", |bytes| {
        let list = repeated(bytes / 2, "lsregen: 1\nparams:\n  a: &a [", |_| "1, ".into());
        repeated(bytes, &(list + "]\n  b: ["), |_| "*a, ".into()) + "]\n"
    }),
    ("aliases of aliases", |bytes| {
        repeated(bytes, "lsregen: 1\nparams:\n  p0: &a0 [x]\n", |i| {
            format!("  p{}: &a{} [*a{i}, *a{i}]\n", i + 1, i + 1)
        })
    }),
    ("anchors around anchors", |bytes| {
        let deep = "[".repeat(60);
        let anchored = deep.replace('[', "&a [");
        repeated(bytes, "lsregen: 1\nparams:\n", |i| format!("  p{i}: {anchored}x{}\n", "]".repeat(60)))
    }),
    ("merge keys", |bytes| {
        let head = "lsregen: 1\nparams: { a: &a { type: LoadImage, path: x } }\nnodes:\n";
        repeated(bytes, head, |i| format!("  n{i}: {{ <<: *a }}\n"))
    }),
    ("merges of a node with faults", |bytes| {
        let list = repeated(bytes / 4, "lsregen: 1\nparams:\n  a: &a\n", |i| format!("    k{i}: 1\n"));
        repeated(bytes, &(list + "nodes:\n"), |i| format!("  n{i}: {{ <<: *a, type: LoadImage }}\n"))
    }),
    ("brackets", |bytes| format!("lsregen: {}", "[".repeat(bytes))),
    ("braces", |bytes| format!("lsregen: {}", "{a: ".repeat(bytes / 4))),
    ("closing brackets", |bytes| format!("lsregen: {}", "]".repeat(bytes))),
    ("nested lines", |bytes| {
        let mut text = String::new();
        for depth in 0.. {
            if text.len() >= bytes {
                break;
            }
            let _ = writeln!(text, "{}a:", " ".repeat(depth));
        }
        text
    }),
    ("dashes on one line", |bytes| format!("lsregen: 1\nparams:\n  a:\n    {}x\n", "- ".repeat(bytes / 2))),
    ("question marks", |bytes| format!("lsregen: 1\nparams:\n{}", "? a\n".repeat(bytes / 4))),
    ("one long word", |bytes| format!("lsregen: 1\nnodes: {{ {}: 1 }}\n", "n".repeat(bytes))),
    ("one long type", |bytes| format!("lsregen: 1\nnodes: {{ a: {{ type: {} }} }}\n", "n".repeat(bytes))),
    ("one long link", |bytes| {
        format!("lsregen: 1\nnodes: {{ a: {{ type: Upsample, image: {} }} }}\n", "n.".repeat(bytes / 2))
    }),
    ("one long text of many lines", |bytes| {
        repeated(bytes, "lsregen: 1\nabout: \"", |i| format!("word{i}\n")) + "\"\nnodes: {}\n"
    }),
    ("one long plain text of many lines", |bytes| repeated(bytes, "lsregen: 1\nabout:\n", |i| format!("  word{i}\n"))),
    ("one block text", |bytes| repeated(bytes, "lsregen: 1\nabout: |\n", |i| format!("  word{i}\n\n"))),
    ("one folded text of empty lines", |bytes| format!("lsregen: 1\nabout: >\n  a\n{}  b\n", "\n".repeat(bytes))),
    ("an unclosed quote", |bytes| format!("lsregen: 1\nabout: \"{}", "a\n ".repeat(bytes / 3))),
    ("escapes", |bytes| format!("lsregen: 1\nabout: \"{}\"\n", "\\u00fc".repeat(bytes / 6))),
    ("comments", |bytes| format!("lsregen: 1\n{}nodes: {{}}\n", "# a\n".repeat(bytes / 4))),
    ("one long comment", |bytes| format!("lsregen: 1 #{}\nnodes: {{}}\n", "a".repeat(bytes))),
    ("spaces", |bytes| format!("lsregen: 1\nnodes: {{ a: {} {{ type: X }} }}\n", " ".repeat(bytes))),
    ("empty lines", |bytes| format!("lsregen: 1{}nodes: {{}}\n", "\n".repeat(bytes))),
    ("carriage returns", |bytes| repeated(bytes, "lsregen: 1\r\nnodes:\r\n", |i| format!("  n{i}: 1\r\n"))),
    ("signs beyond ASCII", |bytes| format!("lsregen: 1\nabout: {}\nnodes: {{ ü: 1 }}\n", "🦀".repeat(bytes / 4))),
    ("documents", |bytes| "---\n".repeat(bytes / 4)),
    ("directives", |bytes| "%YAML 1.2\n".repeat(bytes / 10)),
    ("dollar signs", |bytes| format!("lsregen: 1\nabout: {}\nnodes: {{}}\n", "$${${".repeat(bytes / 5))),
    ("colons", |bytes| format!("lsregen: 1\nnodes: {{ {} }}\n", ": ".repeat(bytes / 2))),
    ("commas", |bytes| format!("lsregen: 1\nnodes: {{ {} }}\n", "a, ".repeat(bytes / 3))),
    ("commas in a node", |bytes| format!("lsregen: 1\nnodes: {{ a: {{ type: LoadImage, {} }} }}\n", words(bytes))),
    ("a key and many spaces, merged", |bytes| {
        let head = format!("lsregen: 1\nparams: {{ a: &a {{ k{} }} }}\nnodes:\n", " ".repeat(bytes / 2));
        repeated(bytes, &head, |i| format!("  n{i}: {{ <<: *a, type: LoadImage }}\n"))
    }),
];

fn words(bytes: usize) -> String {
    repeated(bytes, "", |i| format!("w{i}, "))
}

/// `head`, then pieces up to about this many bytes.
fn repeated(bytes: usize, head: &str, piece: impl Fn(usize) -> String) -> String {
    let mut text = head.to_string();
    let mut index = 0;
    // Leaves room for an end.
    while text.len() + 128 < bytes {
        text.push_str(&piece(index));
        index += 1;
    }
    text
}
