//! The built-in models: `shapes/gligen`, `shapes/xl` and `shapes/clip`, about 21 MB.
//!
//! They are embedded in the binary, so that an installed binary finds them in any working directory, without a cache. They
//! are not compressed: f16 weights hardly shrink, and a tensor can be read from the executable's pages, which the system
//! loads on demand. Files of equal content (the common autoencoder, the tokenizers) are stored once, because the compiler
//! merges equal constants of a crate.

use crate::ModelFiles;

type Table = &'static [(&'static str, &'static [u8])];

/// Files of `models/shapes/$model`.
macro_rules! table {
    ($model:literal: $($path:literal)*) => {
        &[$((
            $path,
            include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/shapes/", $model, "/", $path)).as_slice(),
        )),*]
    };
}

const GLIGEN: Table = table!("gligen":
    "model_index.json"
    "scheduler/scheduler_config.json"
    "tokenizer/vocab.json"
    "tokenizer/merges.txt"
    "tokenizer/tokenizer_config.json"
    "tokenizer/special_tokens_map.json"
    "text_encoder/config.json"
    "text_encoder/model.safetensors"
    "unet/config.json"
    "unet/diffusion_pytorch_model.safetensors"
    "vae/config.json"
    "vae/diffusion_pytorch_model.safetensors"
);

const XL: Table = table!("xl":
    "model_index.json"
    "scheduler/scheduler_config.json"
    "tokenizer/vocab.json"
    "tokenizer/merges.txt"
    "tokenizer/tokenizer_config.json"
    "tokenizer/special_tokens_map.json"
    "tokenizer_2/vocab.json"
    "tokenizer_2/merges.txt"
    "tokenizer_2/tokenizer_config.json"
    "tokenizer_2/special_tokens_map.json"
    "text_encoder/config.json"
    "text_encoder/model.safetensors"
    "text_encoder_2/config.json"
    "text_encoder_2/model.safetensors"
    "unet/config.json"
    "unet/diffusion_pytorch_model.safetensors"
    "vae/config.json"
    "vae/diffusion_pytorch_model.safetensors"
);

/// The built-in models. A static, because a constant would be copied into every crate that uses it.
pub static BUILTIN: [ModelFiles; 2] = [
    ModelFiles::Embedded { name: "shapes/gligen", files: GLIGEN },
    ModelFiles::Embedded { name: "shapes/xl", files: XL },
];

const CLIP: Table = table!("clip":
    "config.json"
    "model.safetensors"
    "preprocessor_config.json"
    "vocab.json"
    "merges.txt"
    "tokenizer_config.json"
    "special_tokens_map.json"
);

/// The built-in CLIP, trained on the same images.
pub static BUILTIN_CLIP: ModelFiles = ModelFiles::Embedded { name: "shapes/clip", files: CLIP };

/// All built-in models, each with its name.
pub fn all() -> impl Iterator<Item = (&'static str, &'static ModelFiles)> {
    let all = BUILTIN.iter().chain([&BUILTIN_CLIP]);
    all.filter_map(|files| match files {
        ModelFiles::Embedded { name, .. } => Some((*name, files)),
        ModelFiles::Folder(_) => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_files_are_kept_once() {
        let place = |table: Table, path: &str| table.iter().find(|(p, _)| *p == path).unwrap().1.as_ptr_range();
        for path in ["vae/diffusion_pytorch_model.safetensors", "tokenizer/vocab.json"] {
            assert_eq!(place(GLIGEN, path), place(XL, path), "{path}");
        }
        assert_eq!(place(GLIGEN, "tokenizer/vocab.json"), place(CLIP, "vocab.json"));
    }
}
