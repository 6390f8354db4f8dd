//! The JSON Schema of workflows.

use insta::assert_snapshot;
use lsregen_engine::{Context, Node, NodeType, Registry, workflow_schema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use crate::nodes::REGISTRY;

/// Every schema in a schema.
fn walk(schema: &Json, visit: &mut impl FnMut(&serde_json::Map<String, Json>)) {
    match schema {
        Json::Object(object) => {
            visit(object);
            object.values().for_each(|inner| walk(inner, visit));
        }
        Json::Array(list) => list.iter().for_each(|inner| walk(inner, visit)),
        _ => {}
    }
}

#[test]
fn rare_kinds_of_parameters() {
    let schema = workflow_schema(&REGISTRY);
    assert_snapshot!(format!("{:#}", schema["definitions"]["type.Kinds"]));
}

#[test]
fn sockets_and_required_keys() {
    let schema = workflow_schema(&REGISTRY);
    assert_snapshot!(format!("{:#}", schema["definitions"]["type.Sample"]));
    let required = &schema["definitions"]["type.Layout"]["required"];
    assert_eq!(*required, serde_json::json!(["model", "prompt", "boxes"]));
}

#[test]
fn it_has_no_outside_references_and_is_draft_7() {
    let schema = workflow_schema(&REGISTRY);
    let definitions = schema["definitions"].as_object().unwrap();
    for entry in REGISTRY.iter() {
        assert!(definitions.contains_key(&format!("type.{}", entry.node_type.name)));
    }
    walk(&schema, &mut |object| {
        if let Some(Json::String(target)) = object.get("$ref") {
            let name = target.strip_prefix("#/definitions/").expect("a definition");
            assert!(definitions.contains_key(name), "{target}");
            assert_eq!(object.len(), 1, "beside a reference, draft 7 sees nothing: {object:?}");
        }
        for newer in ["$defs", "prefixItems", "dependentSchemas", "unevaluatedProperties"] {
            assert!(!object.contains_key(newer), "{newer} is no word of draft 7");
        }
    });
}

/// A parameter whose type contains itself.
#[derive(Serialize, Deserialize, JsonSchema)]
struct Branch {
    children: Vec<Branch>,
}

#[derive(Serialize, Deserialize, JsonSchema)]
struct Tree {
    root: Branch,
}

impl Node for Tree {
    const TYPE: &'static str = "Tree";
    const VERSION: u32 = 1;
    type Inputs = ();
    type Outputs = ();

    fn run(&self, _: (), _: &Context) -> anyhow::Result<()> {
        Ok(())
    }
}

#[test]
fn a_type_that_contains_itself_is_cut_off() {
    let schema = workflow_schema(&Registry::new(&[NodeType::of::<Tree>()]));
    let mut depth = 0;
    walk(&schema, &mut |object| depth += usize::from(object.contains_key("children")));
    // `required` and `properties` name it once at each level.
    assert!((4..100).contains(&depth), "{depth}");
}
