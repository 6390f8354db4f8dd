"""Writes a byte-pair tokenizer in CLIP's format in which every word of the shapes world is one token.

usage: make_tokenizer.py FOLDER
"""
import json
import sys
from pathlib import Path

from transformers import CLIPTokenizer
from transformers.models.clip.tokenization_clip import bytes_to_unicode

from world import COLORS, GROUNDS, SHAPES

WORDS = ["a", "an", "and", "on", "the", "of", "with", "picture", "photo", *COLORS, *SHAPES, *GROUNDS]
START, END = "<|startoftext|>", "<|endoftext|>"


def merge(parts, pair):
    """Joins every neighbouring `pair` in `parts`."""
    out = []
    for part in parts:
        if out and (out[-1], part) == pair:
            out[-1] += part
        else:
            out.append(part)
    return out


def build():
    """Returns the vocabulary and the merges: bytes, bytes at the end of a word, and the merges that join the letters of each word."""
    chars = list(bytes_to_unicode().values())
    vocab, merges = chars + [c + "</w>" for c in chars], []
    for word in WORDS:
        parts = [*word[:-1], word[-1] + "</w>"]
        for pair in merges:
            parts = merge(parts, pair)
        while len(parts) > 1:
            merges.append((parts[0], parts[1]))
            parts = merge(parts, merges[-1])
            if parts[0] not in vocab:
                vocab.append(parts[0])
    return vocab + [START, END], merges


def main(folder):
    folder.mkdir(parents=True, exist_ok=True)
    vocab, merges = build()
    special = {"bos_token": START, "eos_token": END, "unk_token": END, "pad_token": END}
    config = {"tokenizer_class": "CLIPTokenizer", "model_max_length": 32, "do_lower_case": True, "add_prefix_space": False, "errors": "replace"}
    (folder / "vocab.json").write_text(json.dumps({t: i for i, t in enumerate(vocab)}, ensure_ascii=False))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges))
    (folder / "special_tokens_map.json").write_text(json.dumps(special))
    (folder / "tokenizer_config.json").write_text(json.dumps(config | special))
    text = "a red circle and a blue star on sand"
    print(len(vocab), "tokens;", text, "->", CLIPTokenizer.from_pretrained(folder).tokenize(text))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    main(Path(sys.argv[1]))
