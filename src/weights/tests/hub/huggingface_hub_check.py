"""Tests a cache with Python's huggingface_hub: `local` finds lsregen's download, `download` downloads by itself.

Prints the folder of the snapshot. Run by the ignored test in main.rs.
"""

import sys
from pathlib import Path

from huggingface_hub import hf_hub_download, scan_cache_dir, snapshot_download

local = sys.argv[1] == "local"
folder = snapshot_download("owner/name", local_files_only=local)
file = hf_hub_download("owner/name", "unet/model.safetensors", local_files_only=local)
assert Path(file) == Path(folder) / "unet" / "model.safetensors", file

cache = scan_cache_dir()
assert not cache.warnings, cache.warnings
[repository] = cache.repos
[revision] = repository.revisions
assert (repository.repo_id, repository.repo_type) == ("owner/name", "model")
assert revision.refs == {"main"}
assert len(revision.files) == 5, revision.files
print(folder)
