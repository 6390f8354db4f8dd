//! What a checkpoint in one file states about its sampling: keys that name no weights, and metadata.

#[path = "../../tensor/tests/common/mod.rs"]
mod common;
#[allow(dead_code, reason = "the other tests of families use the rest")]
#[path = "families/files.rs"]
mod files;

use std::path::Path;

use files::Member;
use lsregen_diffusion::models::{Blueprint, EdmRange, ModelLocation, ModelSource};
use lsregen_diffusion::schedule::{PredictionType, TimestepSpacing};

#[track_caller]
fn open(path: &Path) -> Blueprint {
    let source = ModelSource {
        model: ModelLocation::from(path.to_path_buf()),
        vae: None,
        gligen: None,
        prediction: None,
        schedule: Default::default(),
    };
    Blueprint::open(&source).unwrap_or_else(|problems| panic!("{problems:#?}"))
}

#[test]
fn markers_of_single_files_are_kept_and_told() {
    let folder = tempfile::tempdir().unwrap();
    let file = |keys: &[(&'static str, &[f32])], texts: &[(&str, &str)]| {
        let path = folder.path().join("file");
        open(&keys.iter().fold(Member::of("no_mid"), |member, key| member.with_key(*key)).write_file(&path, texts))
    };
    let v =
        file(&[("v_pred", &[])], &[("modelspec.prediction_type", "epsilon"), ("modelspec.title", "T"), ("else", "x")]);
    assert_eq!(v.info.scheduler.prediction_type, PredictionType::VPrediction);
    assert_eq!(v.told.last().unwrap(), "predicts v_prediction: the key `v_pred`");
    assert_eq!(v.markers.modelspec["title"], "T");
    assert!(v.markers.v_pred && !v.markers.ztsnr && v.info.limits.is_empty() && v.markers.modelspec.len() == 2);

    let zero = file(&[("v_pred", &[]), ("ztsnr", &[])], &[]);
    assert_eq!(zero.member(), "SDXL with fewer blocks, v-prediction with zero terminal SNR");
    let scheduler = &zero.info.scheduler;
    assert!(zero.markers.ztsnr && zero.info.limits.is_empty() && scheduler.rescale_betas_zero_snr);
    assert_eq!(scheduler.timestep_spacing, Some(TimestepSpacing::Trailing));
    assert!(zero.told.last().unwrap().contains("the key `ztsnr`"), "{:?}", zero.told);
    // ε says nothing of x₀ where there is no signal.
    assert!(file(&[("ztsnr", &[])], &[]).info.limits[0].reason.contains("does not predict v"));

    let edm = file(&[("edm_vpred.sigma_max", &[120.0]), ("edm_vpred.sigma_min", &[0.002])], &[]);
    let range = edm.markers.edm_vpred.unwrap();
    assert_eq!(range, EdmRange { sigma_min: Some(f64::from(0.002f32)), sigma_max: Some(120.0) });
    assert!(edm.info.limits.is_empty() && edm.member().ends_with("(as CosXL)"));
    let schedule = edm.info.scheduler.edm().unwrap();
    assert_eq!((schedule.sigma_max, schedule.sigma_data), (120.0, 1.0));

    let stated = |value: &str| file(&[], &[("modelspec.prediction_type", value)]);
    assert_eq!(stated("v").info.scheduler.prediction_type, PredictionType::VPrediction);
    assert_eq!(stated("").info.limits, []);
    let comfy = file(&[], &[("modelspec.predict_key", "v")]);
    assert_eq!(comfy.told.last().unwrap(), "predicts v_prediction: the metadata `modelspec.predict_key: v`");
    assert!(stated("flow").info.limits[0].reason.contains("states the prediction `flow`"));
    let plain = file(&[], &[]);
    assert_eq!(plain.told.last().unwrap(), "predicts epsilon: the file states nothing else");
}
