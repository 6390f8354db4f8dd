//! Batches: several images as one value.

use lsregen_tensor::candle_core::Tensor;

use super::{Image, Latent, Model, SavedFile};

/// The error of a batch where a single image is needed and the check did not know of it.
pub(crate) const NOT_A_BATCH: &str =
    "a single image is needed, but this is a batch of several: generate the image alone, with `count: 1` and its seed";

/// Two or more images of one size, none of which is a batch.
pub struct ImageBatch {
    images: Vec<Image>,
    seeds: Vec<u64>,
}

impl ImageBatch {
    /// Returns the images.
    pub fn images(&self) -> &[Image] {
        &self.images
    }

    /// Returns the seed of each image; empty if they are not known.
    pub fn seeds(&self) -> &[u64] {
        &self.seeds
    }
}

impl Image {
    /// Joins images to one value: a batch, or the image itself if there is only one. `seeds` has the seed of each image, or
    /// nothing if they are not known.
    ///
    /// # Errors
    /// If there are no images, if they differ in size or one is a batch, or if there are more or fewer seeds.
    pub fn batch(mut images: Vec<Image>, seeds: Vec<u64>) -> anyhow::Result<Image> {
        anyhow::ensure!(seeds.is_empty() || seeds.len() == images.len(), "each image of a batch has one seed");
        anyhow::ensure!(images.iter().all(|image| image.count() == 1), "an image of a batch cannot be a batch");
        for pair in images.windows(2) {
            anyhow::ensure!(pair[0].size()? == pair[1].size()?, "the images of a batch have the same size");
        }
        match images.len() {
            0 => anyhow::bail!("a batch has at least one image"),
            1 => Ok(images.remove(0)),
            _ => Ok(Image::Batch(ImageBatch { images, seeds })),
        }
    }

    /// Returns the images: those of a batch, or a single one.
    pub fn images(&self) -> &[Image] {
        match self {
            Image::Batch(batch) => &batch.images,
            single => std::slice::from_ref(single),
        }
    }

    /// Returns the number of images.
    pub fn count(&self) -> usize {
        self.images().len()
    }

    /// Returns the seed of each image of a batch; empty if they are not known, and for a single image.
    pub fn seeds(&self) -> &[u64] {
        match self {
            Image::Batch(batch) => &batch.seeds,
            _ => &[],
        }
    }

    /// Changes each image by itself. Results of one size are a batch again, with the same seeds.
    ///
    /// # Errors
    /// The first error of `change`.
    pub fn each(&self, change: impl FnMut(&Image) -> anyhow::Result<Image>) -> anyhow::Result<Image> {
        Image::batch(self.images().iter().map(change).collect::<anyhow::Result<_>>()?, self.seeds().to_vec())
    }
}

impl Latent {
    /// Returns the number of images.
    pub fn count(&self) -> usize {
        self.z.dim(0).unwrap_or(1)
    }

    /// Returns the latent of each image, (1, C, h, w), for use with `model`.
    ///
    /// # Errors
    /// As for [`Latent::all_of`].
    pub fn each_of(&self, model: &Model) -> anyhow::Result<Vec<Tensor>> {
        let z = self.all_of(model)?;
        match self.count() {
            1 => Ok(vec![z.clone()]),
            count => (0..count).map(|image| Ok(z.narrow(0, image, 1)?.copy()?)).collect(),
        }
    }
}

impl SavedFile {
    /// Creates the content of a single file.
    pub fn one(bytes: Vec<u8>) -> SavedFile {
        SavedFile { files: vec![bytes.into()], seeds: vec![] }
    }
}

/// Returns the seeds of a batch of `count` images whose first is `seed`; none for a single image.
pub(crate) fn seeds(seed: u64, count: usize) -> Vec<u64> {
    if count > 1 { (0..count as u64).map(|image| seed.wrapping_add(image)).collect() } else { vec![] }
}
