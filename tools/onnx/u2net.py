"""Writes a network of the architecture and size of U²-Net (44 million weights, random) as an ONNX file, to time the self-test.

Needs onnx (made with 1.23.2) and numpy.  usage: u2net.py FILE [SIDE]
"""
import sys

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

RANDOM = np.random.default_rng(0)
# Name, height, input, middle and output channels; a height of 0 is the block that dilates instead of pooling.
ENCODER = [(7, 3, 32, 64), (6, 64, 32, 128), (5, 128, 64, 256), (4, 256, 128, 512), (0, 512, 256, 512), (0, 512, 256, 512)]
DECODER = [(0, 1024, 256, 512), (4, 1024, 128, 256), (5, 512, 64, 128), (6, 256, 32, 64), (7, 128, 16, 64)]


class Graph:
    def __init__(self):
        self.nodes, self.weights, self.sides = [], [], {}

    def weight(self, values):
        self.weights.append(numpy_helper.from_array(values, f"w{len(self.weights)}"))
        return self.weights[-1].name

    def node(self, operator, inputs, side, **attributes):
        name = f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [name], **attributes))
        self.sides[name] = side
        return name

    def conv(self, x, channels_in, channels, kernel=3, dilation=1):
        w = RANDOM.normal(0, (2 / (channels_in * kernel**2)) ** 0.5, (channels, channels_in, kernel, kernel)).astype(np.float32)
        pad = dilation * (kernel // 2)
        inputs = [x, self.weight(w), self.weight(np.zeros(channels, np.float32))]
        return self.node("Conv", inputs, self.sides[x], kernel_shape=[kernel] * 2, pads=[pad] * 4, dilations=[dilation] * 2)

    def layer(self, x, channels_in, channels, dilation=1):
        y = self.conv(x, channels_in, channels, dilation=dilation)
        shift = RANDOM.normal(0, 0.1, channels).astype(np.float32)
        ones = np.ones(channels, np.float32)
        y = self.node("BatchNormalization", [y, *map(self.weight, [ones, shift, shift, ones])], self.sides[x])
        return self.node("Relu", [y], self.sides[x])

    def halve(self, x):
        return self.node("MaxPool", [x], (self.sides[x] + 1) // 2, kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1)

    def resize(self, x, side, channels):
        if self.sides[x] == side:
            return x
        sizes = self.weight(np.array([1, channels, side, side], np.int64))
        return self.node("Resize", [x, "", "", sizes], side, mode="linear", coordinate_transformation_mode="half_pixel")

    def join(self, *values):
        return self.node("Concat", list(values), self.sides[values[0]], axis=1)

    def block(self, x, height, channels_in, middle, channels):
        x = self.layer(x, channels_in, channels)
        dilations = [1, 2, 4, 8] if height == 0 else [1] * (height - 1) + [2]
        values, h, width = [], x, channels
        for i, dilation in enumerate(dilations):
            # The first layer and the dilated one are not preceded by pooling.
            if height and 0 < i < height - 1:
                h = self.halve(h)
            h = self.layer(h, width, middle, dilation)
            values.append(h)
            width = middle
        for i in reversed(range(len(values) - 1)):
            h = self.resize(h, self.sides[values[i]], middle)
            h = self.layer(self.join(h, values[i]), 2 * middle, middle if i else channels, dilations[i])
        return self.node("Add", [h, x], self.sides[x])


def u2net(side):
    graph = Graph()
    graph.sides["picture"] = side
    h, values = "picture", []
    for i, block in enumerate(ENCODER):
        h = graph.block(graph.halve(h) if i else h, *block)
        values.append(h)
    outputs = [(h, 512)]
    for value, block in zip(reversed(values[:-1]), DECODER):
        h = graph.resize(h, graph.sides[value], block[1] // 2)
        h = graph.block(graph.join(h, value), *block)
        outputs.append((h, block[3]))
    maps = [graph.resize(graph.conv(value, channels, 1), side, 1) for value, channels in reversed(outputs)]
    mask = graph.node("Sigmoid", [graph.conv(graph.join(*maps), 6, 1, kernel=1)], side)
    shapes = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, c, side, side]) for name, c in [("picture", 3), (mask, 1)]]
    whole = helper.make_graph(graph.nodes, "u2net", shapes[:1], shapes[1:], graph.weights)
    return helper.make_model(whole, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


if __name__ == "__main__":
    onnx.save(u2net(int(sys.argv[2]) if len(sys.argv) > 2 else 320), sys.argv[1])
