//! Random graphs around a node: its inputs come from small nodes, and its outputs are used.

use lsregen_engine::{Arity, RegistryEntry, SocketSpec};
use serde_json::{Map, Value as Json, json};

use crate::dice::Dice;

/// The nodes that every graph may link to. `z` and `z_small` are latents of the two models; `many` and `photos` are batches.
fn producers(steps: u64, dice: &mut Dice) -> Map<String, Json> {
    let photo = dice.pick(&["a.png", "b.png", "c.png"]);
    let (width, height) = (64 + 8 * dice.roll(5), 64 + 8 * dice.roll(5));
    let phrases = ["a red circle", "a red circle", "circle", "a blue square"];
    let count = if dice.one_in(8) { 0 } else { 1 + dice.roll(2) };
    let boxes: Vec<Json> = (0..count).map(|_| json!({ "phrase": dice.pick(&phrases), "box": a_box(dice) })).collect();
    let nodes = json!({
        "xl": { "type": "LoadModel", "model": "shapes/xl" },
        "small": { "type": "LoadModel", "model": "shapes/gligen" },
        "map": { "type": "LoadImage", "path": "map.png" },
        "photo": { "type": "LoadImage", "path": photo },
        "up": { "type": "Upsample", "image": "photo", "width": width, "height": height },
        "z": { "type": "VAEEncode", "model": "xl", "image": "up" },
        "z_small": { "type": "VAEEncode", "model": "small", "image": "up" },
        "many": { "type": "SDXLSample", "model": "xl", "prompt": "sand", "steps": 1, "cfg": 1, "width": width, "height": height,
            "count": 2 },
        "photos": { "type": "Decode", "model": "xl", "latent": "many" },
        "boxes": { "type": "Layout", "boxes": boxes },
        "low": { "type": "LowPass", "image": "photo" },
        "inverted": { "type": "Invert", "model": "xl", "latent": "z", "steps": steps },
        "attended": { "type": "BoxDiff", "layout": "boxes" },
    });
    nodes.as_object().cloned().unwrap_or_default()
}

/// A box: mostly one inside the image, or else the whole image, one beyond it, or one smaller than a pixel.
fn a_box(dice: &mut Dice) -> Json {
    let boxes: [[f64; 4]; 7] = [
        [0.1, 0.2, 0.5, 0.9],
        [0.0, 0.0, 0.5, 1.0],
        [0.25, 0.5, 0.75, 1.0],
        [0.0, 0.0, 1.0, 1.0],
        [0.02, 0.01, 0.99, 0.98],
        [0.4, -0.1, 1.1, 0.5],
        [0.5, 0.5, 0.501, 0.501],
    ];
    boxes[dice.roll(boxes.len())].into_iter().collect::<Vec<_>>().into()
}

/// The prompts of the sampling and of the nodes that depend on it.
const PROMPTS: [&str; 3] = ["a red circle and a blue square", "a (red:1.2) circle", ""];

/// Returns a graph with a node of this type, as JSON.
pub fn random(entry: &RegistryEntry, dice: &mut Dice) -> String {
    let steps = 1 + dice.roll(2) as u64;
    let mut nodes = producers(steps, dice);
    let mut node = Map::new();
    node.insert("type".into(), entry.node_type.name.into());
    let families =
        entry.node_type.inputs.iter().find(|socket| socket.type_name == "Model").map(|socket| socket.variants);
    let model = match families {
        None | Some([]) => dice.pick(&["xl", "small"]),
        Some(families) if !families.contains(&"sdxl") => "small",
        Some(families) if !families.contains(&"gligen") => "xl",
        Some(_) => dice.pick(&["xl", "small"]),
    };
    for socket in entry.node_type.inputs {
        if let Some(link) = input(socket, model, dice) {
            node.insert(socket.name.into(), link);
        }
    }
    node.extend(parameters(entry, steps, dice));
    // A sampling mostly has the size of its latent.
    if node.contains_key("latent") && !dice.one_in(8) {
        ["width", "height"].iter().for_each(|side| drop(node.remove(*side)));
    }
    // The built-in models take no image to change.
    if node.get("type").is_some_and(|kind| kind.as_str().is_some_and(|kind| kind.ends_with("Sample")))
        && !dice.one_in(8)
    {
        ["image", "mask"].iter().for_each(|name| drop(node.remove(*name)));
    }
    // Of several targets only one may be given.
    let targets: Vec<_> =
        ["class", "target_file", "image"].into_iter().filter(|name| node.contains_key(*name)).collect();
    if entry.node_type.name == "OnnxFeature" && !dice.one_in(8) {
        let kept = if targets.is_empty() { "class" } else { targets[dice.roll(targets.len())] };
        targets.iter().filter(|name| **name != kept).for_each(|name| drop(node.remove(*name)));
        node.entry(kept).or_insert_with(|| dice.roll(4).into());
    }
    let is_used = entry.node_type.outputs.first().map(|output| output.type_name);
    let mut used = consumers(is_used, model, steps, dice);
    // A guidance mostly fits the sampling.
    if let Some(sample) = used.get_mut("sample").filter(|_| is_used == Some("Guidance") && !dice.one_in(8)) {
        let shared = "prompt prompt_2 original_size target_size crop steps sampler scheduler conventions clip_skip";
        let shared: Vec<_> = shared.split(' ').collect();
        let own = shared.iter().filter(|name| entry.params().iter().any(|param| param.name == **name));
        for (name, value) in own.filter_map(|name| Some((*name, node.get(*name)?))) {
            sample[name] = value.clone();
        }
    }
    nodes.insert("tested".into(), Json::Object(node));
    nodes.extend(used);
    json!({ "lsregen": 1, "nodes": nodes }).to_string()
}

/// A link, or none for some optional sockets.
fn input(socket: &SocketSpec, model: &str, dice: &mut Dice) -> Option<Json> {
    let one = |dice: &mut Dice| match socket.type_name {
        "Model" => model,
        "Image" if dice.one_in(6) => "photos",
        "Image" => dice.pick(&["photo", "up", "map"]),
        "Latent" if model == "xl" && dice.one_in(4) => "many",
        "Latent" if model == "xl" => "z",
        "Latent" => "z_small",
        "Layout" => "boxes",
        _ => dice.pick(&["low", "inverted", "attended"]),
    };
    // The models take no image, and say so.
    let is_of_other_models = ["image", "mask", "image_mask"].contains(&socket.name) && socket.arity == Arity::Optional;
    match socket.arity {
        Arity::Optional if is_of_other_models && !dice.one_in(16) => None,
        Arity::One => Some(one(dice).into()),
        Arity::Optional => (!dice.one_in(3)).then(|| one(dice).into()),
        Arity::Many => Some((0..dice.roll(3)).map(|_| one(dice)).collect::<Vec<_>>().into()),
    }
}

/// The nodes that use the first output of the node `tested`.
fn consumers(output: Option<&str>, model: &str, steps: u64, dice: &mut Dice) -> Map<String, Json> {
    let prompt = if dice.one_in(8) { PROMPTS[dice.roll(3)] } else { PROMPTS[0] };
    let sample = |kind: &str, model: &str, guidance: &[&str]| json!({ "type": kind, "model": model, "guidance": guidance, "prompt": prompt, "steps": steps, "cfg": 1.5 });
    let save = json!({ "type": "SaveImage", "image": "image", "path": "out/image.png" });
    let decode = |model: &str, latent: &str| json!({ "type": "Decode", "model": model, "latent": latent });
    let nodes = match output {
        Some("Image") => json!({ "save": { "type": "SaveImage", "image": "tested", "path": "out/image.png" } }),
        Some("Latent") => json!({ "image": decode(model, "tested"), "save": save }),
        Some("Layout") => json!({
            "image": { "type": "DrawLayout", "image": "up", "layout": "tested" },
            "save": save,
        }),
        Some("Guidance") => match dice.roll(3) {
            0 => {
                json!({ "sample": sample("GuidedSDSample", "small", &["tested"]), "image": decode("small", "sample"), "save": save })
            }
            _ => {
                json!({ "sample": sample("GuidedSDXLSample", "xl", &["tested"]), "image": decode("xl", "sample"), "save": save })
            }
        },
        Some("Model") => json!({
            "sample": { "type": "SDXLSample", "model": "tested", "prompt": prompt, "steps": steps, "width": 64, "height": 64 },
            "image": decode("tested", "sample"),
            "save": save,
        }),
        _ => json!({}),
    };
    nodes.as_object().cloned().unwrap_or_default()
}

/// Random values for some of the parameters, and for all that are required.
fn parameters(entry: &RegistryEntry, steps: u64, dice: &mut Dice) -> Map<String, Json> {
    let schema = entry.schema().as_value();
    let given = entry.params().iter().filter_map(|param| {
        let name = param.name.as_str();
        // Of many parameters few, so that not every graph has an invalid one.
        let one_in = if entry.params().len() > 12 { 6 } else { 3 };
        if !param.required && !dice.one_in(one_in) && !["steps", "width", "height", "output"].contains(&name) {
            return None;
        }
        let value = match name {
            // Few steps, and mostly those of the other nodes.
            "steps" => {
                if dice.one_in(8) {
                    (1 + dice.roll(3)).into()
                } else {
                    steps.into()
                }
            }
            _ => named(entry.node_type.name, name, dice)
                .unwrap_or_else(|| value(&schema["properties"][name], schema, dice, 0)),
        };
        Some((name.to_string(), value))
    });
    given.collect()
}

/// A value for a parameter whose schema does not say what is sensible, or would allow what takes minutes.
fn named(node: &str, name: &str, dice: &mut Dice) -> Option<Json> {
    Some(match (node, name) {
        (_, "model") => dice.pick(&["shapes/xl", "shapes/gligen"]).into(),
        (_, "vae" | "gligen") => Json::Null,
        ("LoadImage", "path") => dice.pick(&["a.png", "b.png", "c.png"]).into(),
        ("LoadLatent", "path") => dice.pick(&["a.safetensors", "b.safetensors"]).into(),
        ("SaveImage", "path") => dice.pick(&["out/other.png", "x.png"]).into(),
        ("SaveLatent", "path") => dice.pick(&["out/other.safetensors", "x.safetensors"]).into(),
        ("OnnxFeature", "path") => "look.onnx".into(),
        ("OnnxFeature", "output") => dice.pick(&["colours", "edges", "colours", "edges", "class"]).into(),
        ("OnnxFeature", "class") => dice.roll(4).into(),
        (_, "mean") => json!([0.5, 0.25 * dice.roll(5) as f64, 0.4]),
        (_, "std") => json!([0.5, 0.25 * dice.roll(5) as f64, 0.4]),
        ("OnnxFeature", "size") if !dice.one_in(8) => Json::Null,
        (_, "box") => a_box(dice),
        (_, "mask") => match dice.roll(4) {
            0 => Json::Null,
            count => (1..count).map(|_| a_box(dice)).collect(),
        },
        (_, "target_file") => "a.safetensors".into(),
        (_, "clip") => "shapes/clip".into(),
        (_, "layout_file") => "layout.json".into(),
        (_, "phrase") if dice.one_in(8) => dice.pick(&["star", "", " "]).into(),
        (_, "phrase") => dice.pick(&["circle", "a red circle", "square"]).into(),
        (_, "prompt") if !dice.one_in(4) => PROMPTS[0].into(),
        (_, "prompt" | "prompt_2" | "negative" | "negative_2" | "text" | "region_prompt") => dice
            .pick(&[
                "",
                " ",
                "a red circle and a blue square",
                "((a red:1.2) circle",
                "😀 (sea:0)",
                "{phrase} [x]",
                "a \\( b",
            ])
            .into(),
        (_, "colour") if dice.one_in(8) => dice.pick(&["red", "#FF0000"]).into(),
        (_, "colour") => dice.pick(&["#ff0000", "#0a0b0c", "#0000ff"]).into(),
        (_, "regions") => {
            let colours = ["#ff0000", "#0a0b0c", "#0000ff"];
            let first = dice.roll(3);
            let region = |i: usize, dice: &mut Dice| {
                let colour = if dice.one_in(8) { "#0000ff" } else { colours[(first + i) % 3] };
                json!({ "phrase": named("", "phrase", dice), "colour": colour })
            };
            (0..1 + dice.roll(3)).map(|i| region(i, dice)).collect()
        }
        (_, "width" | "height") => match dice.roll(8) {
            0 => (1 + dice.roll(160)).into(),
            _ => (64 + 8 * dice.roll(5)).into(),
        },
        (_, "factor") => (*dice.pick(&[&1.0, &0.5, &0.01, &1.3, &2.0, &4.0])).into(),
        // A large scale diverges, which only the sampling shows.
        (_, "scale") => (*dice.pick(&[&0.0, &0.1, &1.0])).into(),
        (_, "adaptive_scale") => (*dice.pick(&[&0.0, &0.001, &1.0])).into(),
        (_, "b1" | "b2" | "s1" | "s2") => (*dice.pick(&[&0.2, &1.0, &1.5])).into(),
        (_, "layers") => {
            let names = ["mid", "down", "up", "up_blocks.0", "up.block_1.attentions_0", "down_blocks.1", "mid_block"];
            (0..1 + dice.roll(2)).map(|_| dice.pick(&names)).collect::<Vec<_>>().into()
        }
        (_, "repeats") => (1 + dice.roll(3)).into(),
        (_, "count") => (1 + dice.roll(3)).into(),
        (_, "scheduler") if !dice.one_in(8) => {
            dice.pick(&["normal", "karras", "simple", "sgm_uniform", "kl_optimal", "align_your_steps"]).into()
        }
        (_, "start_step") => dice.roll(2).into(),
        (_, "end_step") => (1 + dice.roll(2)).into(),
        (_, "denoise") => (*dice.pick(&[&0.4, &0.7, &1.0])).into(),
        (_, "clip_skip") => (1 + dice.roll(3)).into(),
        (_, "slots") => (1 + dice.roll(40)).into(),
        (_, "cell") => (16 + dice.roll(100)).into(),
        (_, "downscale") if dice.one_in(8) => (1 + dice.roll(9)).into(),
        (_, "downscale") => (*dice.pick(&[&1, &2, &4])).into(),
        ("OnnxFeature", "size") => json!([8 + dice.roll(64), 8 + dice.roll(64)]),
        _ => return None,
    })
}

/// A value that the schema allows, mostly.
fn value(schema: &Json, root: &Json, dice: &mut Dice, depth: usize) -> Json {
    if let Some(reference) = schema["$ref"].as_str() {
        let target = reference.strip_prefix('#').and_then(|pointer| root.pointer(pointer));
        return target.map_or(Json::Null, |target| value(target, root, dice, depth + 1));
    }
    for key in ["anyOf", "oneOf"] {
        if let Some(options) = schema[key].as_array() {
            return value(&options[dice.roll(options.len())], root, dice, depth + 1);
        }
    }
    if let Some(choices) = schema["enum"].as_array() {
        return choices[dice.roll(choices.len())].clone();
    }
    if let Some(constant) = schema.get("const") {
        return constant.clone();
    }
    let kind = match &schema["type"] {
        Json::Array(kinds) => kinds[dice.roll(kinds.len())].as_str().unwrap_or_default(),
        kind => kind.as_str().unwrap_or_default(),
    };
    match kind {
        "boolean" => dice.one_in(2).into(),
        "integer" => {
            let (low, high) = (schema["minimum"].as_u64().unwrap_or(0), schema["maximum"].as_u64().unwrap_or(1 << 32));
            match dice.roll(4) {
                0 => low.into(),
                1 => high.into(),
                _ => (low + dice.roll((high - low).min(64) as usize + 1) as u64).into(),
            }
        }
        "number" => {
            let (low, high) = (schema["minimum"].as_f64().unwrap_or(-2.0), schema["maximum"].as_f64().unwrap_or(50.0));
            let share = dice.pick(&[&0.0, &0.1, &0.25, &0.5, &0.9, &1.0]);
            (low + (high - low) * share).into()
        }
        "array" => {
            let least = schema["minItems"].as_u64().unwrap_or(0) as usize;
            let most = schema["maxItems"].as_u64().unwrap_or(least as u64 + 2) as usize;
            let length = least + dice.roll(most - least + 1);
            (0..length).map(|_| value(&schema["items"], root, dice, depth + 1)).collect::<Vec<_>>().into()
        }
        "object" if depth < 8 => {
            let properties = schema["properties"].as_object().into_iter().flatten();
            let object = properties.map(|(name, schema)| {
                (name.clone(), named("", name, dice).unwrap_or_else(|| value(schema, root, dice, depth + 1)))
            });
            Json::Object(object.collect())
        }
        "string" => dice.pick(&["a", "a red circle", ""]).into(),
        _ => Json::Null,
    }
}
