"""Writes the configurations of this folder as diffusers and transformers save them, and what each means: expected.json of
the schedulers, and ids.json of the tokenizers.

    make.py schedulers     with diffusers 0.39.0, torch 2.15
    make.py networks       with diffusers 0.39.0, transformers 4.57.1, torch 2.15
    make.py tokenizers 4   with transformers 4.57.1, ftfy 6.3
    make.py tokenizers 5   with transformers 5.24.0
"""
import json
import shutil
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
SHAPES = HERE.parents[1] / "models/shapes/xl/tokenizer_2"


def write(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def saved(thing, name="config.json"):
    """The text of the configuration that `thing` saves."""
    with tempfile.TemporaryDirectory() as folder:
        (thing.save_config if hasattr(thing, "save_config") else thing.save_pretrained)(folder)
        return (Path(folder) / name).read_text()


def schedulers():
    import diffusers

    names = ["DDIM", "DDPM", "PNDM", "LMSDiscrete", "EulerDiscrete", "EulerAncestralDiscrete", "HeunDiscrete", "UniPCMultistep",
             "DPMSolverMultistep", "DPMSolverSinglestep", "DEISMultistep", "KDPM2Discrete", "KDPM2AncestralDiscrete", "LCM", "TCD"]
    latent = dict(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    expected = {}
    for name in names:
        scheduler = getattr(diffusers, name + "Scheduler")(**latent)
        path = HERE / f"scheduler/{name}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(saved(scheduler, "scheduler_config.json"))
        # As a pipeline with DDIM reads the file. A missing `clip_sample` is DDIM's True there, which suits no latent model.
        clip = json.loads(path.read_text()).get("clip_sample", False)
        alphas = scheduler.alphas_cumprod
        expected[name] = dict(clip_sample=clip, first=alphas[0].item(), last=alphas[-1].item())
    write(HERE / "scheduler/expected.json", expected)


def networks():
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPTextConfig

    plain = dict(block_out_channels=(32, 64, 64), cross_attention_dim=32, attention_head_dim=8, sample_size=16,
                 down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
                 up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"))
    lists = dict(plain, only_cross_attention=[False] * 3, layers_per_block=[2, 2, 2], cross_attention_dim=[32, 32, 32],
                 attention_head_dim=[8, 8, 8], transformer_layers_per_block=[1, 1, 1], act_fn="swish")
    vae = dict(block_out_channels=(32, 64), down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2)
    text = CLIPTextConfig(hidden_size=32, num_attention_heads=4, num_hidden_layers=2, vocab_size=586, max_position_embeddings=32)
    for path, config in {
        "unet/plain.json": saved(UNet2DConditionModel(**plain)),
        "unet/lists.json": saved(UNet2DConditionModel(**lists)),
        "vae/plain.json": saved(AutoencoderKL(**vae)),
        "vae/swish.json": saved(AutoencoderKL(**vae, act_fn="swish")),
        "text_encoder/transformers-4.json": text.to_json_string(use_diff=False),
        "clip/transformers-4.json": CLIPConfig(text_config=text.to_dict()).to_json_string(),
        "preprocessor/transformers-4.json": CLIPImageProcessor().to_json_string(),
    }.items():
        (HERE / path).parent.mkdir(exist_ok=True)
        (HERE / path).write_text(config)


TEXTS = ["a red circle!", "a circle !!! square!", "!", "red!blue", "<|endoftext|>", "a <|ENDOFTEXT|> star", "a <|StartOfText|>b",
         "cat<|endoftext|>!", " <|startoftext|> ", "a <mine> b", "a <MINE> b", "MyToken", "mytoken", "aMyTokenb", "<|endoftext|",
         "it's! ok", "! a", "A Red\n CIRCLE", "naïve", "1920x1440"]


def token(content, **flags):
    return dict(__type="AddedToken", content=content, lstrip=False, normalized=True, rstrip=False, single_word=False) | flags


def tokenizers(version):
    import transformers
    from transformers import CLIPTokenizer

    assert transformers.__version__.startswith(version)
    objects = dict(tokenizer_class="CLIPTokenizer", model_max_length=32, do_lower_case=True, bos_token=token("<|startoftext|>"),
                   eos_token=token("<|endoftext|>"), unk_token=token("<|endoftext|>"))
    # As in public repositories; `second` is SDXL's second tokenizer.
    cases = dict(first=(dict(objects, pad_token="<|endoftext|>"), None), second=(dict(objects, pad_token="!"), None),
                 added=(dict(objects, pad_token="!"), {"<mine>": 586, "MyToken": 587}))
    ids = {}
    for name, (config, added) in cases.items():
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            for file in ["vocab.json", "merges.txt"]:
                shutil.copy(SHAPES / file, folder)
            write(folder / "tokenizer_config.json", config)
            if added:
                write(folder / "added_tokens.json", added)
            if version == "4":
                keep(folder, HERE / f"tokenizer/{name}")
                fast = transformers.CLIPTokenizerFast.from_pretrained(folder)
                ids[name] = encoded(fast)
                for kind, tokenizer in dict(slow=CLIPTokenizer.from_pretrained(folder), fast=fast).items():
                    save(tokenizer, f"{name}-4-{kind}", ids)
            else:
                save(CLIPTokenizer.from_pretrained(folder), f"{name}-5", ids)
    path = HERE / f"tokenizer/ids-{version}.json"
    write(path, dict(texts=TEXTS, ids=ids))


def encoded(tokenizer):
    return [tokenizer(text, add_special_tokens=False).input_ids for text in TEXTS]


def save(tokenizer, name, ids):
    """Saves a tokenizer, and notes how the saved folder encodes."""
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        again = getattr(__import__("transformers"), "CLIPTokenizerFast", type(tokenizer))
        ids[name] = encoded(again.from_pretrained(folder))
        keep(Path(folder), HERE / f"tokenizer/{name}")


def keep(folder, to):
    to.mkdir(parents=True, exist_ok=True)
    for file in folder.iterdir():
        shutil.copy(file, to)


globals()[sys.argv[1]](*sys.argv[2:])
