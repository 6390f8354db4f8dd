"""The objects of other packages that public pickles contain besides tensors, made without those packages.

Stable Diffusion's first .ckpt files contain the state of the trainer: a class of pytorch_lightning as a key, and a numpy
scalar. GLIGEN's contain the variables of an omegaconf object (its own loader reads `config_dict["_content"]`). A useful reader
must skip them without executing anything.

"""
import sys
import types
import typing
from collections import defaultdict

import numpy as np


def named(module, name):
    """Returns an empty class that pickle writes as `module.name`."""
    made = type(name, (), {"__module__": module})
    parts = module.split(".")
    for i in range(1, len(parts) + 1):
        sys.modules.setdefault(".".join(parts[:i]), types.ModuleType(".".join(parts[:i])))
    setattr(sys.modules[module], name, made)
    return made


def instance(cls, **state):
    made = cls()
    made.__dict__.update(state)
    return made


def lightning():
    """Returns the training state that is stored besides `state_dict`."""
    checkpoint = named("pytorch_lightning.callbacks.model_checkpoint", "ModelCheckpoint")
    return {"epoch": 23, "global_step": 470000, "pytorch-lightning_version": "1.4.2",
            "callbacks": {checkpoint: {"monitor": "val/loss_simple_ema", "best_model_score": np.float64(0.15), "best_model_path": "", "dirpath": ""}},
            "optimizer_states": [], "lr_schedulers": []}


def omegaconf(content):
    """Returns the `vars()` of an omegaconf object of plain dictionaries and values."""
    config, leaf = named("omegaconf.dictconfig", "DictConfig"), named("omegaconf.nodes", "AnyNode")
    inner, outer = named("omegaconf.base", "Metadata"), named("omegaconf.base", "ContainerMetadata")

    def node(value, key):
        about = {"ref_type": typing.Any, "object_type": dict if isinstance(value, dict) else None, "optional": True, "key": key,
                 "flags": {}, "resolver_cache": defaultdict(dict)}
        if isinstance(value, dict):
            return instance(config, _metadata=instance(outer, **about, key_type=typing.Any, element_type=typing.Any), _parent=None,
                            _flags_cache=None, _content={k: node(v, k) for k, v in value.items()})
        return instance(leaf, _metadata=instance(inner, **about), _parent=None, _flags_cache=None, _val=value)

    return vars(node(content, None))
