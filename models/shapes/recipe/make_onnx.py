"""Writes onnx/look.onnx: a tiny network for colours and edges, as an example of your own feature extractor.

The network is constructed, not trained, and takes images in [0, 1] of any size. Outputs: `colours`, the mean colour of each
cell of a 4 x 4 grid, (B, 3, 4, 4); `edges`, the mean strength of horizontal and vertical edges in each cell of an 8 x 8 grid,
(B, 2, 8, 8).

Made with torch 2.15, onnx 1.23, onnxscript 0.7.  usage: make_onnx.py   (from any folder)
"""
from pathlib import Path

import onnx
import torch
import torch.nn.functional as F

HERE = Path(__file__).resolve().parent


class Look(torch.nn.Module):
    def __init__(self):
        super().__init__()
        smooth = torch.tensor([1.0, 4, 6, 4, 1]) / 16
        self.register_buffer("blur", (smooth[:, None] * smooth)[None, None].repeat(3, 1, 1, 1))
        sobel = torch.tensor([[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]]) / 8
        self.register_buffer("sobel", torch.stack([sobel, sobel.T])[:, None])
        self.register_buffer("luma", torch.tensor([0.299, 0.587, 0.114])[None, :, None, None])

    def forward(self, x):
        half = F.conv2d(F.pad(x, (2, 2, 2, 2), "replicate"), self.blur, stride=2, groups=3)
        colours = F.interpolate(half, size=(4, 4), mode="bilinear", antialias=True)
        grey = F.conv2d(half, self.luma)
        slopes = F.conv2d(F.pad(grey, (1, 1, 1, 1), "replicate"), self.sobel)
        edges = F.interpolate((slopes**2 + 1e-6).sqrt(), size=(8, 8), mode="bilinear", antialias=True)
        return colours, edges


if __name__ == "__main__":
    path = HERE.parent / "onnx/look.onnx"
    path.parent.mkdir(exist_ok=True)
    size = lambda n: torch.export.Dim(n, min=16, max=8192)
    torch.onnx.export(
        Look().eval(), (torch.rand(1, 3, 48, 64),), path, dynamo=True, opset_version=18, external_data=False, verbose=False,
        input_names=["picture"], output_names=["colours", "edges"], dynamic_shapes=({2: size("height"), 3: size("width")},))
    model = onnx.load(path)
    for part in [*model.graph.node, *model.graph.initializer, *model.graph.input, *model.graph.output]:
        del part.metadata_props[:]
        part.doc_string = ""
    del model.graph.value_info[:]
    onnx.save(model, path)
    print(path, path.stat().st_size, "bytes,", sorted({n.op_type for n in model.graph.node}))
