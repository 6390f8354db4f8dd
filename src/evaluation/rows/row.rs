//! One row: the parameters of one run of a graph.

use serde::Serialize;
use serde_json::{Map, Value as Json, json};

/// A phrase in a box.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RowBox {
    /// The content of the box.
    pub phrase: String,
    /// x0 y0 x1 y1 in fractions of the image.
    #[serde(rename = "box")]
    pub bounds: [f64; 4],
}

/// A row of `lsregen run --inputs`.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// Its name, which is also that of the folder of its files.
    pub id: String,
    /// The description of the image.
    pub prompt: String,
    /// The layout.
    pub boxes: Vec<RowBox>,
    /// Width of the large image in pixels.
    pub width: u32,
    /// Height of the large image in pixels.
    pub height: u32,
    /// Seed of all noise.
    pub seed: u64,
    /// Seed of the small model's noise, for graphs that have one for each model.
    pub seed_small: u64,
    /// Seed of the large model's noise.
    pub seed_large: u64,
}

/// A value of a row that becomes a parameter of the graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowField {
    /// [`Row::prompt`].
    Prompt,
    /// [`Row::boxes`].
    Boxes,
    /// [`Row::width`].
    Width,
    /// [`Row::height`].
    Height,
    /// [`Row::seed`].
    Seed,
    /// [`Row::seed_small`].
    SeedSmall,
    /// [`Row::seed_large`].
    SeedLarge,
}

impl RowField {
    /// All fields, in the order in which a row has them.
    pub const ALL: [RowField; 7] = [
        RowField::Prompt,
        RowField::Boxes,
        RowField::Width,
        RowField::Height,
        RowField::Seed,
        RowField::SeedSmall,
        RowField::SeedLarge,
    ];

    /// Returns its name, which is also the default name of the parameter.
    pub fn name(self) -> &'static str {
        match self {
            RowField::Prompt => "prompt",
            RowField::Boxes => "boxes",
            RowField::Width => "width",
            RowField::Height => "height",
            RowField::Seed => "seed",
            RowField::SeedSmall => "seed_small",
            RowField::SeedLarge => "seed_large",
        }
    }

    /// Returns the field of this name.
    pub fn named(name: &str) -> Option<RowField> {
        RowField::ALL.into_iter().find(|field| field.name() == name)
    }

    fn value(self, row: &Row) -> Json {
        match self {
            RowField::Prompt => json!(row.prompt),
            RowField::Boxes => json!(row.boxes),
            RowField::Width => json!(row.width),
            RowField::Height => json!(row.height),
            RowField::Seed => json!(row.seed),
            RowField::SeedSmall => json!(row.seed_small),
            RowField::SeedLarge => json!(row.seed_large),
        }
    }
}

impl Row {
    /// Returns the line of JSON: the `id`, then the fields under the names of their parameters.
    pub fn line(&self, fields: &[(RowField, String)]) -> String {
        let mut object = Map::from_iter([("id".to_string(), json!(self.id))]);
        object.extend(fields.iter().map(|(field, name)| (name.clone(), field.value(self))));
        Json::Object(object).to_string() + "\n"
    }
}
