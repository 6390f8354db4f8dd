//! A node type's parameters as its JSON Schema tells them.

use schemars::Schema;
use serde_json::Value as Json;

use crate::registry::ParamDoc;

/// The parameters of a struct's schema, in the order of its fields.
pub(crate) fn params(schema: &Schema) -> Vec<ParamDoc> {
    let required = schema.get("required").and_then(Json::as_array);
    let is_required = |name: &str| required.is_some_and(|list| list.iter().any(|item| item == name));
    let properties = schema.get("properties").and_then(Json::as_object);
    properties
        .into_iter()
        .flatten()
        .map(|(name, property)| ParamDoc {
            name: name.clone(),
            type_text: String::new(),
            doc: property.get("description").and_then(Json::as_str).unwrap_or_default().to_string(),
            default: property.get("default").cloned(),
            required: is_required(name),
            range: String::new(),
        })
        .collect()
}
