// docs/graph.schema.json in the hands of the real yaml-language-server: what an editor says of graphs.
//
// No part of `cargo test`, since it needs Node.js and the server. Seen to pass with Node.js 20.20 and
// yaml-language-server 1.25.0. From the repository's root, with SERVER a folder outside of it:
//
//     npm install --prefix SERVER yaml-language-server@1.25.0
//     node tools/schema/language_server.mjs SERVER [--show]
//
// One line a check, `pass` or `FAIL` with what was seen; ends with 1 if one failed. `--show` as a second argument prints
// what was seen of the others too.

import { spawn } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";
import path from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";

const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), "../..");
const [folder, show] = process.argv.slice(2);
if (!folder) {
  console.error("usage: node tools/schema/language_server.mjs SERVER [--show]");
  process.exit(2);
}
const program = path.resolve(folder, "node_modules/yaml-language-server/bin/yaml-language-server");

/** Requests and notifications over stdio, as the Language Server Protocol frames them. */
class Server {
  constructor() {
    this.process = spawn(process.execPath, [program, "--stdio"], { stdio: ["pipe", "pipe", "inherit"] });
    this.received = Buffer.alloc(0);
    this.waiting = new Map();
    this.diagnostics = new Map();
    this.last = 0;
    this.process.stdout.on("data", (bytes) => this.read(bytes));
  }

  read(bytes) {
    this.received = Buffer.concat([this.received, bytes]);
    for (;;) {
      const end = this.received.indexOf("\r\n\r\n");
      if (end < 0) return;
      const length = Number(/Content-Length: (\d+)/i.exec(this.received.subarray(0, end).toString())[1]);
      if (this.received.length < end + 4 + length) return;
      const message = JSON.parse(this.received.subarray(end + 4, end + 4 + length).toString());
      this.received = this.received.subarray(end + 4 + length);
      this.take(message);
    }
  }

  take(message) {
    if (message.method && message.id !== undefined) {
      // The server asks for settings, or to register for events.
      const result = message.method === "workspace/configuration" ? message.params.items.map(() => null) : null;
      this.write({ id: message.id, result });
    } else if (message.id !== undefined) {
      const { resolve, reject } = this.waiting.get(message.id);
      this.waiting.delete(message.id);
      message.error ? reject(new Error(message.error.message)) : resolve(message.result);
    } else if (message.method === "textDocument/publishDiagnostics") {
      this.diagnostics.get(message.params.uri)?.(message.params.diagnostics);
    }
  }

  write(message) {
    const text = JSON.stringify({ jsonrpc: "2.0", ...message });
    this.process.stdin.write(`Content-Length: ${Buffer.byteLength(text)}\r\n\r\n${text}`);
  }

  ask(method, params) {
    const id = ++this.last;
    this.write({ id, method, params });
    return new Promise((resolve, reject) => this.waiting.set(id, { resolve, reject }));
  }

  tell(method, params) {
    this.write({ method, params });
  }

  async start() {
    const markdown = ["markdown", "plaintext"];
    await this.ask("initialize", {
      processId: process.pid,
      rootUri: pathToFileURL(root).href,
      workspaceFolders: [{ uri: pathToFileURL(root).href, name: "lsregen" }],
      capabilities: {
        textDocument: {
          completion: { completionItem: { snippetSupport: true, documentationFormat: markdown } },
          hover: { contentFormat: markdown },
        },
      },
    });
    this.tell("initialized", {});
    const yaml = { validate: true, hover: true, completion: true, schemaStore: { enable: false } };
    this.tell("workspace/didChangeConfiguration", { settings: { yaml } });
  }

  /** Opens a text as a graph of graphs/; resolves to its diagnostics. */
  open(name, text) {
    const uri = pathToFileURL(path.join(root, "graphs", name)).href;
    const found = new Promise((resolve) => this.diagnostics.set(uri, resolve));
    this.tell("textDocument/didOpen", { textDocument: { uri, languageId: "yaml", version: 1, text } });
    const late = new Promise((_, reject) => setTimeout(() => reject(new Error("no answer in 20 s")), 20_000).unref());
    return { uri, diagnostics: Promise.race([found, late]) };
  }
}

const MODELINE = "# yaml-language-server: $schema=../docs/graph.schema.json\n";
const HEAD = `${MODELINE}lsregen: 1\nparams: { n: 3 }\nnodes:\n  m: { type: LoadModel, model: shapes/xl }\n`;
const server = new Server();
let failed = 0;
let opened = 0;

function check(what, good, seen) {
  failed += good ? 0 : 1;
  console.log(good ? `pass  ${what}` : `FAIL  ${what}\n      ${JSON.stringify(seen)}`);
  if (show && good) console.log(`      ${JSON.stringify(seen)}`);
}

/** A text with a `|` where the cursor is. */
async function at(method, text) {
  const cursor = text.indexOf("|");
  const before = text.slice(0, cursor);
  const { uri, diagnostics } = server.open(`cursor-${++opened}.yaml`, before + text.slice(cursor + 1));
  await diagnostics;
  const line = before.split("\n").length - 1;
  const position = { line, character: cursor - (before.lastIndexOf("\n") + 1) };
  return server.ask(`textDocument/${method}`, { textDocument: { uri }, position });
}

async function completion(text) {
  const items = (await at("completion", text))?.items ?? [];
  return new Map(items.map((item) => [item.label, item.documentation?.value ?? item.documentation ?? ""]));
}

async function hover(text) {
  return (await at("hover", text))?.contents?.value ?? "";
}

async function messages(text) {
  return (await server.open(`fault-${++opened}.yaml`, text).diagnostics).map(
    ({ message, range }) => `${range.start.line + 1}:${range.start.character + 1} ${message}`,
  );
}

async function main() {
  await server.start();

  for (const name of readdirSync(path.join(root, "graphs")).filter((name) => name.endsWith(".yaml")).sort()) {
    const text = readFileSync(path.join(root, "graphs", name), "utf8");
    check(`graphs/${name} names the schema in its first line`, text.startsWith(MODELINE), text.split("\n")[0]);
    const found = await server.open(name, text).diagnostics;
    check(`graphs/${name} is without a complaint`, found.length === 0, found.map((each) => each.message));
  }
  let found = await messages(
    `${MODELINE}lsregen: 1
about: null
params: { größe: 3, base: &base { phrase: a star, box: [0, 0, 1, 1] }, more: { any: [thing] } }
outputs: { picture: draw.image, all: sub }
nodes:
  m: { type: LoadModel, model: "shapes/\${größe}" }
  sub: { type: parts/other.yaml, picture: draw.image, strength: 0.5, list: [1] }
  whole: \${more}
  typed: { type: "\${kind}", anything: 1 }
  draw:
    type: GLIGENLayout
    model: m
    prompt: a \${größe} and \${größe}
    negative: null
    boxes: [ *base, { <<: *base, phrase: "\${größe}" }, "\${base}", { phrase: x, box: [0, "\${größe}", 1, 1] } ]
    steps: \${größe}
    cfg: "\${größe}"
    sampler: \${größe}
  sheet: { type: ImageGrid, images: [draw.image, sub.picture], labels: ["\${größe}"] }
  grid: { type: ImageGrid, images: "\${more}" }
  <<: { late: { type: SaveImage, image: sheet, path: out/x.png } }
`,
  );
  check("parameters, aliases, merge keys and graph files everywhere are without a complaint", found.length === 0, found);

  let items = await completion(`${MODELINE}|\n`);
  check("keys of the file are offered", ["lsregen", "about", "params", "nodes"].every((key) => items.has(key)), [...items.keys()]);

  for (const [where, text] of [
    ["a block", `${HEAD}  x:\n    type: |\n`],
    ["a block with a part of the word", `${HEAD}  x:\n    type: Load|\n`],
    // In brackets the server begins with the first letter.
    ["brackets", `${HEAD}  x: { type: L| }\n`],
  ]) {
    items = await completion(text);
    const types = /L(oad)?\|/.test(text) ? ["LoadModel", "LoadImage"] : ["LoadModel", "GLIGENLayout", "SaveImage", "Invert"];
    check(`after \`type:\` in ${where} the node types are offered`, types.every((type) => items.has(type)), [...items.keys()]);
    check(`… each with its doc`, items.get("LoadModel")?.includes("Loads a diffusion model"), [...items]);
  }

  for (const [where, text] of [
    ["a block", `${HEAD}  x:\n    type: Upsample\n    |\n`],
    ["a block with the start of a key", `${HEAD}  x:\n    type: Upsample\n    me|\n`],
    ["a block, more nodes below", `${HEAD}  x:\n    type: Upsample\n    |\n  y: { type: LoadImage, path: a.png }\n`],
    ["brackets", `${HEAD}  x: { type: Upsample, me| }\n`],
  ]) {
    items = await completion(text);
    const own = text.includes("me|") ? ["method"] : ["image", "width", "factor", "method"];
    check(`keys of the type are offered in ${where}`, own.every((key) => items.has(key)), [...items.keys()]);
    const foreign = ["prompt", "strength", "path", "labels", "images", "guidance", "model", "nodes"];
    check("… and no other type's", !foreign.some((key) => items.has(key)), [...items.keys()]);
    check("… each with its doc", items.get("method")?.includes("The resampling kernel"), [...items]);
  }
  items = await completion(`${HEAD}  x:\n    |\n`);
  check("without a type only `type` is offered", items.has("type") && !items.has("prompt"), [...items.keys()]);
  items = await completion(`${HEAD}  x:\n    type: SDXLSample\n    sampler: |\n`);
  check("words of a parameter are offered", ["ddim", "euler", "dpmpp_2m"].every((word) => items.has(word)), [...items.keys()]);
  check("… each with its doc", items.get("ddim")?.includes("DDIM (Song"), [...items]);
  items = await completion(`${HEAD}  x:\n    type: GLIGENLayout\n    boxes:\n      - phrase: a star\n        |\n`);
  check("keys inside a list of mappings are offered", items.has("box") && !items.has("steps"), [...items.keys()]);

  let text = await hover(`${HEAD}  x: { type: SDXLSample, model: m, prompt: x, st|eps: 20 }\n`);
  check("hovering over a parameter shows its doc", text.includes("Denoising steps") && text.includes("1 … 999"), text);
  check("… under the name of its type", text.includes("SDXLSample"), text);
  text = await hover(`${HEAD}  x: { type: SDXLSample, model: m, prompt: x, steps: 2|0 }\n`);
  check("so does hovering over its value", text.includes("Denoising steps"), text);
  text = await hover(`${HEAD}  x: { type: SDXLSample, model: m, prompt: x, steps: "$|{n}" }\n`);
  check("and over a `${…}` there", text.includes("Denoising steps"), text);
  text = await hover(`${HEAD}  x: { type: SDXLSample, mo|del: m, prompt: x }\n`);
  check("hovering over a socket shows its doc", text.includes("The model that samples") && text.includes("family sdxl"), text);
  text = await hover(`${HEAD}  x: { type: GuidedSDXLSample, guid|ance: [], model: m, prompt: x }\n`);
  check("… over one that takes a list too", text.includes("The guidances; may be empty") && text.includes("list of"), text);
  text = await hover(`${HEAD}  x: { type: SDXLSample, model: m, prompt: x, samp|ler: ddim }\n`);
  check("hovering over a choice lists its words", text.includes("dpmpp_2m") && text.includes("DDIM (Song"), text);
  text = await hover(`${HEAD}  x: { type: Load|Image, path: a.png }\n`);
  check("hovering over a type shows its doc", text.includes("Reads an image from a PNG"), text);
  check("… its outputs, and no other type's doc", text.includes("`image` (Image)") && !text.includes("Loads a diffusion"), text);
  text = await hover(`${HEAD}  x: { ty|pe: LoadImage, path: a.png }\n`);
  check("hovering over the key `type` too", text.includes("Reads an image from a PNG"), text);
  text = await hover(`${HEAD}  x|: { type: LoadImage, path: a.png }\n`);
  check("hovering over a node's name too", text.includes("Reads an image from a PNG"), text);
  text = await hover(`${HEAD}  x: { type: GLIGENLayout, model: m, prompt: x, boxes: [{ phr|ase: a, box: [0, 0, 1, 1] }] }\n`);
  check("hovering over a field inside a parameter shows its doc", text.includes("The content of the box"), text);
  text = await hover(`${MODELINE}lsregen: 1\npar|ams: { n: 1 }\nnodes: { m: { type: LoadModel, model: x } }\n`);
  check("hovering over a key of the file shows its doc", text.includes("--set"), text);

  for (const [what, node, expected] of [
    ["an unknown key", "{ type: LoadImage, path: a.png, pth: 1 }", [/^6:\d+ .*pth.*not allowed/]],
    ["a key of another type", "{ type: LoadImage, path: a.png, prompt: x }", [/prompt.*not allowed/]],
    ["a missing parameter", "{ type: LoadImage }", [/Missing property "path"/]],
    ["a missing socket", "{ type: VAEEncode, model: m }", [/Missing property "image"/]],
    ["a text for a number", "{ type: SDXLSample, model: m, prompt: x, steps: many }", [/Expected "integer"/]],
    ["a number for a text", "{ type: SDXLSample, model: m, prompt: 3 }", [/Expected "string"/]],
    ["a fraction for a whole number", "{ type: SDXLSample, model: m, prompt: x, steps: 2.5 }", [/Expected "integer/]],
    ["a number too large", "{ type: SDXLSample, model: m, prompt: x, steps: 2000 }", [/above the maximum of 999/]],
    ["a number too small", "{ type: SDXLSample, model: m, prompt: x, cfg: -1 }", [/below the minimum of 0/]],
    ["an unknown word", "{ type: SDXLSample, model: m, prompt: x, sampler: dimm }", [/Valid values: "ddim", "euler"/]],
    ["a list too short", "{ type: GLIGENLayout, model: m, prompt: x, boxes: [{ phrase: a, box: [0, 1] }] }", [/too few items/]],
    ["an unknown field inside a list", "{ type: GLIGENLayout, model: m, prompt: x, boxes: [{ phras: a, box: [0, 0, 1, 1] }] }", [/Missing property "phrase"/, /phras is not allowed/]],
    ["a list for one link", "{ type: Decode, model: [m], latent: m }", [/Expected "string"/]],
    ["a single link for a list", "{ type: GuidedSDXLSample, model: m, guidance: m, prompt: x }", [/Expected "array/]],
    ["a link that is none", "{ type: Decode, model: 'the model', latent: m }", [/A link is the name of a node/]],
    ["a node without a type", "{ path: a.png }", [/Missing property "type"/]],
    ["an unknown type", "{ type: LoadPicture, path: a.png }", [/"LoadImage"/]],
    ["a node that is a text", "LoadImage", [/A node is written/]],
  ]) {
    const found = await messages(`${HEAD}  x: ${node}\n`);
    const each = expected.every((pattern) => found.some((message) => pattern.test(message)));
    check(`${what} is underlined`, each && found.length === expected.length, found);
  }
  found = await messages(`${MODELINE}lsregen: 1\nnodes: { 1x: { type: LoadImage, path: a.png } }\n`);
  check("a name that is none is underlined", found.length === 1 && found[0].includes("A name has letters"), found);
  found = await messages(`${MODELINE}lsregen: 2\nnode: {}\n`);
  check("wrong keys of the file are underlined", found.length === 3, found);

  console.log(failed ? `${failed} failed` : "all passed");
}

try {
  await main();
} catch (error) {
  failed += 1;
  console.log(`FAIL  ${error.message}`);
} finally {
  server.process.kill();
}
process.exit(failed ? 1 : 0);
