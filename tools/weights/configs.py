"""The configurations of the public repositories, and a tokenizer of CLIP's full size.

Has the configurations of Stable Diffusion 1.4, of GLIGEN on top of it, and of SDXL base. The names and shapes that follow come
from diffusers and transformers (modules on the meta device, which need no memory). Values and file formats are elsewhere.

"""
import itertools
import json
from pathlib import Path

# Names and shapes of public checkpoints.
LISTS = Path(__file__).resolve().parents[2] / "src/weights/tests/fixtures/keys"

CHANNELS = 49408  # CLIP's vocabulary
START, END = "<|startoftext|>", "<|endoftext|>"

UNET = {
    "_class_name": "UNet2DConditionModel", "act_fn": "silu", "center_input_sample": False, "downsample_padding": 1,
    "flip_sin_to_cos": True, "freq_shift": 0, "in_channels": 4, "layers_per_block": 2, "mid_block_scale_factor": 1,
    "norm_eps": 1e-05, "norm_num_groups": 32, "out_channels": 4,
}
SD1_UNET = UNET | {
    "_diffusers_version": "0.2.2", "attention_head_dim": 8, "block_out_channels": [320, 640, 1280, 1280], "cross_attention_dim": 768,
    "down_block_types": ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"],
    "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3, "sample_size": 64,
}
SDXL_UNET = UNET | {
    "_diffusers_version": "0.19.0.dev0", "addition_embed_type": "text_time", "addition_embed_type_num_heads": 64,
    "addition_time_embed_dim": 256, "attention_head_dim": [5, 10, 20], "block_out_channels": [320, 640, 1280],
    "class_embed_type": None, "cross_attention_dim": 2048, "down_block_types": ["DownBlock2D"] + ["CrossAttnDownBlock2D"] * 2,
    "up_block_types": ["CrossAttnUpBlock2D"] * 2 + ["UpBlock2D"], "projection_class_embeddings_input_dim": 2816,
    "sample_size": 128, "transformer_layers_per_block": [1, 2, 10], "upcast_attention": None, "use_linear_projection": True,
}
SD2_UNET = UNET | {
    "_diffusers_version": "0.10.0.dev0", "attention_head_dim": [5, 10, 20, 20], "block_out_channels": [320, 640, 1280, 1280],
    "cross_attention_dim": 1024, "down_block_types": ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"], "dual_cross_attention": False,
    "num_class_embeds": None, "only_cross_attention": False, "sample_size": 96, "upcast_attention": True,
    "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3, "use_linear_projection": True,
}
REFINER_UNET = SDXL_UNET | {
    "attention_head_dim": [6, 12, 24, 24], "block_out_channels": [384, 768, 1536, 1536], "cross_attention_dim": 1280,
    "down_block_types": ["DownBlock2D"] + ["CrossAttnDownBlock2D"] * 2 + ["DownBlock2D"],
    "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 2 + ["UpBlock2D"],
    "projection_class_embeddings_input_dim": 2560, "transformer_layers_per_block": 4,
}
# Distilled from SDXL: a number of blocks for each layer, and a middle block of one residual block.
SSD1B_UNET = SDXL_UNET | {
    "mid_block_type": "UNetMidBlock2D", "transformer_layers_per_block": [1, [2, 2], [4, 4]],
    "reverse_transformer_layers_per_block": [[4, 4, 10], [2, 1, 1], 1],
}
VEGA_UNET = SDXL_UNET | {
    "mid_block_type": "UNetMidBlock2D", "transformer_layers_per_block": [1, [1, 1], [2, 2]],
    "reverse_transformer_layers_per_block": [[2, 2, 2], [1, 1, 1], 1],
}
VAE = {
    "_class_name": "AutoencoderKL", "act_fn": "silu", "block_out_channels": [128, 256, 512, 512], "in_channels": 3,
    "down_block_types": ["DownEncoderBlock2D"] * 4, "up_block_types": ["UpDecoderBlock2D"] * 4, "latent_channels": 4,
    "layers_per_block": 2, "norm_num_groups": 32, "out_channels": 3,
}
# Stable Diffusion 1.4 has no scaling factor in its config; 0.18215 is the default.
SD1_VAE = VAE | {"_diffusers_version": "0.2.2", "sample_size": 512}
SDXL_VAE = VAE | {"_diffusers_version": "0.20.0.dev0", "sample_size": 1024, "scaling_factor": 0.13025, "force_upcast": True}
FIX_VAE = SDXL_VAE | {"_diffusers_version": "0.18.0.dev0", "sample_size": 512, "force_upcast": False}

# `eos_token_id: 2` is a mistake in the public files; transformers then uses the largest id, 49407, as the end.
TEXT = {
    "architectures": ["CLIPTextModel"], "attention_dropout": 0.0, "bos_token_id": 0, "dropout": 0.0, "eos_token_id": 2,
    "hidden_act": "quick_gelu", "hidden_size": 768, "initializer_factor": 1.0, "initializer_range": 0.02,
    "intermediate_size": 3072, "layer_norm_eps": 1e-05, "max_position_embeddings": 77, "model_type": "clip_text_model",
    "num_attention_heads": 12, "num_hidden_layers": 12, "pad_token_id": 1, "projection_dim": 768, "vocab_size": CHANNELS,
}
TEXT_2 = TEXT | {
    "architectures": ["CLIPTextModelWithProjection"], "hidden_act": "gelu", "hidden_size": 1280, "intermediate_size": 5120,
    "num_attention_heads": 20, "num_hidden_layers": 32, "projection_dim": 1280,
}
# Stable Diffusion 2.x: OpenCLIP's ViT-H without its last layer and its projection.
TEXT_H = TEXT | {
    "hidden_act": "gelu", "hidden_size": 1024, "intermediate_size": 4096, "num_attention_heads": 16, "num_hidden_layers": 23,
    "projection_dim": 512,
}
BETAS = {"beta_end": 0.012, "beta_schedule": "scaled_linear", "beta_start": 0.00085, "num_train_timesteps": 1000}
PNDM = BETAS | {
    "_class_name": "PNDMScheduler", "_diffusers_version": "0.7.0.dev0", "clip_sample": False, "set_alpha_to_one": False,
    "skip_prk_steps": True, "steps_offset": 1, "trained_betas": None,
}
EULER = BETAS | {
    "_class_name": "EulerDiscreteScheduler", "_diffusers_version": "0.19.0.dev0", "clip_sample": False,
    "interpolation_type": "linear", "prediction_type": "epsilon", "sample_max_value": 1.0, "set_alpha_to_one": False,
    "skip_prk_steps": True, "steps_offset": 1, "timestep_spacing": "leading", "trained_betas": None, "use_karras_sigmas": False,
}

LIBRARIES = {
    "unet": ["diffusers", "UNet2DConditionModel"], "vae": ["diffusers", "AutoencoderKL"],
    "text_encoder": ["transformers", "CLIPTextModel"], "tokenizer": ["transformers", "CLIPTokenizer"],
    "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"], "tokenizer_2": ["transformers", "CLIPTokenizer"],
}
INDEX = {"_class_name": "StableDiffusionPipeline", "_diffusers_version": "0.7.0.dev0", "scheduler": ["diffusers", "PNDMScheduler"]}
SDXL_INDEX = {
    "_class_name": "StableDiffusionXLPipeline", "_diffusers_version": "0.19.0.dev0", "force_zeros_for_empty_prompt": True,
    "add_watermarker": None, "scheduler": ["diffusers", "EulerDiscreteScheduler"],
}

XL = {"unet": SDXL_UNET, "vae": SDXL_VAE, "text_encoder": TEXT, "text_encoder_2": TEXT_2, "scheduler": EULER}
SD1 = {"unet": SD1_UNET, "vae": SD1_VAE, "text_encoder": TEXT, "scheduler": PNDM}
FAMILIES = {
    "sd1": SD1,
    # The public GLIGEN repository declares StableDiffusionPipeline and PNDM; only the U-Net's attention_type shows GLIGEN.
    "gligen": SD1 | {"unet": SD1_UNET | {"attention_type": "gated"}},
    "sdxl": XL,
    "sd2": {"unet": SD2_UNET, "vae": SD1_VAE, "text_encoder": TEXT_H, "scheduler": PNDM},
    "refiner": {"unet": REFINER_UNET, "vae": SDXL_VAE, "text_encoder_2": TEXT_2, "scheduler": EULER},
    "ssd1b": XL | {"unet": SSD1B_UNET},
    "vega": XL | {"unet": VEGA_UNET},
    # The text encoder of a single file of Stable Diffusion 2.x, which has a layer and a projection more than the folder.
    "sd2-file": {"text_encoder": TEXT_H | {
        "architectures": ["CLIPTextModelWithProjection"], "num_hidden_layers": 24, "projection_dim": 1024}},
}
# The list of public names and shapes that each component must match, where there is one.
KEYS = {
    "sd1": {"unet": "sd14-unet", "vae": "sd-vae", "text_encoder": "clip-l-text"},
    "gligen": {"unet": "sd14-gligen-unet", "vae": "sd-vae", "text_encoder": "clip-l-text"},
    "sdxl": {"unet": "sdxl-unet", "vae": "sd-vae", "text_encoder": "clip-l-text", "text_encoder_2": "clip-g-text"},
    "sd2": {"vae": "sd-vae"},
    "refiner": {"vae": "sd-vae", "text_encoder_2": "clip-g-text"},
    "ssd1b": {"vae": "sd-vae", "text_encoder": "clip-l-text", "text_encoder_2": "clip-g-text"},
    "vega": {"vae": "sd-vae", "text_encoder": "clip-l-text", "text_encoder_2": "clip-g-text"},
}


def components(family):
    """Returns the components of a family that have weights."""
    return [c for c in FAMILIES[family] if c != "scheduler"]


def shapes(family, component):
    """Returns {name: shape} of a component's tensors, in the order in which its module registers them.

    Without diffusers and transformers, those of the list of a public checkpoint, if there is one.
    """
    try:
        import torch, diffusers, transformers
    except ImportError:
        if component not in KEYS.get(family, {}):
            raise
        listed = json.loads((LISTS / f"{KEYS[family][component]}.json").read_text())
        return {name: tuple(shape) for name, shape in listed.items()}
    config = FAMILIES[family][component]
    with torch.device("meta"):
        if "_class_name" in config:
            module = getattr(diffusers, config["_class_name"]).from_config(config)
        else:
            module = getattr(transformers, config["architectures"][0])(transformers.CLIPTextConfig(**config))
    return {name: tuple(t.shape) for name, t in module.state_dict().items()}


def byte_letters():
    """Returns the letter of each byte in GPT-2's order: the printable ones of Latin-1, then 256, 257, … for the others."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    return [chr(b) for b in printable] + [chr(256 + i) for i in range(256 - len(printable))]


def vocabulary():
    """Returns 49408 tokens in CLIP's order (bytes, bytes at the end of a word, merges, two special ones) and their 48894 merges.

    The public vocabulary would need a download. Here, every pair and triple of letters is a token, within and at the end of a
    word, and as many groups of four as are needed.
    """
    letters = "etaoinshrdlcumwfgypbvkjxqz"
    pairs = list(itertools.product(letters, letters))
    merges = [m for a, b in pairs for m in ((a, b), (a, b + "</w>"))]
    merges += [m for a, b in pairs for c in letters for m in ((a + b, c), (a + b, c + "</w>"))]
    merges += [(a + b, c + d) for (a, b), (c, d) in itertools.product(pairs, pairs)][: CHANNELS - 2 - 512 - len(merges)]
    chars = byte_letters()
    return chars + [c + "</w>" for c in chars] + [a + b for a, b in merges] + [START, END], merges


def write_json(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def write_tokenizer(folder, pad):
    vocab, merges = vocabulary()
    special = {"bos_token": START, "eos_token": END, "unk_token": END, "pad_token": pad}
    write_json(folder / "tokenizer_config.json", special | {
        "tokenizer_class": "CLIPTokenizer", "model_max_length": 77, "do_lower_case": True, "add_prefix_space": False, "errors": "replace"})
    write_json(folder / "special_tokens_map.json", special)
    (folder / "vocab.json").write_text(json.dumps({t: i for i, t in enumerate(vocab)}, ensure_ascii=False))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges))


def write_configs(folder, family):
    """Writes everything of a diffusers folder except the weights."""
    folder = Path(folder)
    parts = FAMILIES[family]
    for name, config in parts.items():
        write_json(folder / name / ("scheduler_config.json" if name == "scheduler" else "config.json"), config)
    xl = "text_encoder_2" in parts
    index = dict(SDXL_INDEX if xl else INDEX)
    tokenizers = [name.replace("text_encoder", "tokenizer") for name in parts if name.startswith("text_encoder")]
    for name in tokenizers:
        write_tokenizer(folder / name, "!" if name == "tokenizer_2" or family == "sd2" else END)
    if family == "refiner":
        index |= {"_class_name": "StableDiffusionXLImg2ImgPipeline", "requires_aesthetics_score": True,
                  "force_zeros_for_empty_prompt": False, "text_encoder": [None, None], "tokenizer": [None, None]}
    index |= {name: LIBRARIES[name] for name in [*components(family), *tokenizers]}
    if not xl:
        index |= {"safety_checker": [None, None], "feature_extractor": [None, None], "requires_safety_checker": False}
    write_json(folder / "model_index.json", index)
