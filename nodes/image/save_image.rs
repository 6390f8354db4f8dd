//! SaveImage.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use lsregen_engine::{
    CheckContext, Context, Effect, FileRef, Lane, Links, Node, NodeError, RecordPart, outputs, sockets,
};
use lsregen_files::Kind;
use lsregen_tensor::image;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::host::bridge::raise;
use crate::host::metadata::{self, Metadata};
use crate::host::numbered;
use crate::host::write::{OutputFile, OutputFormat, keep_as_written};
use crate::values::{Image, ImageInfo, SavedFile, seeds};

/// Writes an image as a PNG file with 8 bits per channel. A file that another program wrote is replaced only with
/// `--overwrite`.
///
/// The file contains the graph that made it, so that `lsregen run` and `lsregen show` accept the PNG file itself. With
/// `--no-metadata` it contains only pixels. Each image of a batch has a file of its own: of `a.png` these are `a-1.png`,
/// `a-2.png` and so on.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SaveImage {
    /// The file, ending in `.png`, below the working directory or `--output-dir`. Missing folders are created. `{counter}`
    /// stands for the next number, one more than the greatest in the folder, so that no file is replaced, `{date}` for the
    /// day, and `{name}` for the value of any of the file's `params`, as in `{seed}`. For the images of a batch, `{seed}` is the
    /// own seed of each. A batch whose path has neither `{counter}` nor `{seed}` gets numbers at the end of the name.
    #[schemars(extend("x-role" = "output", "x-own-names" = ["seed"]))]
    pub path: PathBuf,
    /// What the linked image declares: its number of images, and the first seed.
    #[serde(skip)]
    #[schemars(skip)]
    batch: Option<(usize, Option<u64>)>,
}

sockets! {
    pub struct SaveImageInputs {
        /// The image, or a batch of them.
        pub image: Arc<Image>,
    }
}

outputs! {
    pub struct SaveImageOutputs {
        /// The written file, or the files of a batch.
        pub file: Arc<SavedFile>,
    }
}

impl SaveImage {
    /// The files, as far as they are known before the run.
    fn declared_paths(&self) -> Vec<PathBuf> {
        match self.batch {
            Some((count, seed)) => numbered::batch(&self.path, count, &seed.map_or(vec![], |seed| seeds(seed, count))),
            None => vec![numbered::single(&self.path)],
        }
    }
}

fn file(path: &Path) -> OutputFile<'_> {
    OutputFile { path, format: OutputFormat { extension: "png", kind: Kind::IMAGE, is_own: metadata::is_carried } }
}

impl Node for SaveImage {
    const TYPE: &'static str = "SaveImage";
    const VERSION: u32 = 1;
    const LANE: Lane = Lane::Io;
    const OUTPUT: bool = true;

    type Inputs = SaveImageInputs;
    type Outputs = SaveImageOutputs;

    fn check(&self, cx: &CheckContext) -> Vec<NodeError> {
        self.declared_paths()
            .iter()
            .map(|path| file(path).errors(cx))
            .find(|errors| !errors.is_empty())
            .unwrap_or_default()
    }

    fn linked(&self, links: &Links) -> Option<Self> {
        let ImageInfo { count, seed, .. } = ImageInfo::of(links, "image");
        let count = count.filter(|count| *count > 1)? as usize;
        Some(SaveImage { batch: Some((count, seed)), ..self.clone() })
    }

    fn writes(&self, cx: &CheckContext) -> Vec<FileRef> {
        let mut files: Vec<_> = self.declared_paths().iter().flat_map(|path| file(path).writes(cx)).collect();
        // With a counter, the images of a batch have one path.
        files.dedup();
        files
    }

    fn obstacle(&self, cx: &CheckContext) -> Option<NodeError> {
        self.declared_paths().iter().find_map(|path| file(path).obstacle(cx))
    }

    fn effect(&self, outputs: &SaveImageOutputs, cx: &Context) -> Effect {
        let SavedFile { files, seeds } = &*outputs.file;
        // It was written with the other setting of metadata.
        if files.iter().any(|png| metadata::is_carried(png) != Metadata::wanted(cx)) {
            return Effect::Gone;
        }
        let paths = numbered::batch(&self.path, files.len(), seeds);
        let effects: Vec<_> = paths.iter().zip(files).map(|(path, png)| file(path).effect(png, cx)).collect();
        effects.into_iter().find(|effect| *effect != Effect::Intact).unwrap_or(Effect::Intact)
    }

    fn restore(&self, outputs: &SaveImageOutputs, cx: &Context) -> anyhow::Result<()> {
        let SavedFile { files, seeds } = &*outputs.file;
        for (path, png) in numbered::batch(&self.path, files.len(), seeds).iter().zip(files) {
            if files.len() == 1 || file(path).effect(png, cx) != Effect::Intact {
                file(path).write(png, cx)?;
            }
        }
        Ok(())
    }

    fn run(&self, inputs: SaveImageInputs, cx: &Context) -> anyhow::Result<SaveImageOutputs> {
        let (images, seeds) = (inputs.image.images(), inputs.image.seeds());
        let (count, mut files) = (images.len(), vec![]);
        for (number, (path, image)) in numbered::batch(&self.path, count, seeds).iter().zip(images).enumerate() {
            cx.cancel().check()?;
            let picture = image.to_rgb().map_err(raise)?;
            let part =
                (count > 1).then(|| RecordPart { number: number + 1, of: count, seed: seeds.get(number).copied() });
            let texts = metadata::texts(cx, part);
            let texts: Vec<_> = texts.iter().map(|(keyword, text)| (*keyword, &**text)).collect();
            let png = image::png(&picture, &texts).map_err(raise)?;
            file(path).write(&png, cx).map_err(|error| match count {
                1 => error,
                _ => error.context(format!("image {} of {count} was not written", number + 1)),
            })?;
            if count > 1 && !Metadata::wanted(cx) {
                keep_as_written(&png, cx);
            }
            files.push(png.into());
        }
        Ok(SaveImageOutputs { file: Arc::new(SavedFile { files, seeds: seeds.to_vec() }) })
    }
}
