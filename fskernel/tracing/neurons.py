"""What makes an affine sum a layer of neurons: ReLUs, and other scalar functions."""

from __future__ import annotations

import math
from dataclasses import replace

from fskernel.activations import Activation
from fskernel.graph import Layer
from fskernel.tracing.fuse import Fuser
from fskernel.tracing.module.nodes import Node
from fskernel.tracing.values import Pending, Ready


class Neurons(Fuser):
    """Operations after which a sum is what neurons tell by spikes."""

    def relu(self, node: Node, input, ceiling: float | None = None) -> Ready:
        """A ReLU, up to the ceiling where one is given."""
        high = math.inf if ceiling is None else ceiling
        return self._neurons(node, self.value(input, node), Activation("hardtanh", (0.0, high)))

    def clamp(self, node: Node, input, low: object, high: object) -> Ready:
        """A ReLU with a ceiling where it begins at 0, and else a function of its own."""
        least = -math.inf if low is None else self.number(low, "lower bound", node)
        most = math.inf if high is None else self.number(high, "upper bound", node)
        if not least < most:
            self.refuse(
                node, f"it clips to [{least:g}, {most:g}], which is one number", "Repair the module"
            )
        return self._neurons(node, self.value(input, node), Activation("hardtanh", (least, most)))

    def number(self, value: object, what: str, node: Node) -> float:
        """One number that is no activation's."""
        exact = self.exact(value, what, node, finite=False)
        if exact.numel() != 1:
            self.refuse(
                node, f"its {what} has shape {list(exact.shape)}", "Use one number for all channels"
            )
        return float(exact)

    def thresholded(self, node: Node, input, threshold, value) -> Ready:
        """What is not above the threshold becomes a value."""
        if not threshold and not value:
            return self.relu(node, input)
        return self.activated(node, input, "threshold", threshold, value)

    def hardsigmoid(self, node: Node, input) -> Ready:
        """A ReLU with a ceiling of 1, behind weights of a sixth and biases that are a half more."""
        return self._neurons(
            node, self.affine(node, input, 1 / 6, 0.5), Activation("hardtanh", (0.0, 1.0))
        )

    def prelu(self, node: Node, input, weight) -> Ready:
        """A slope below zero for each channel, or one for all."""
        value = self.value(input, node)
        slopes = self.exact(weight, "slope", node)
        if slopes.numel() == 1:
            return self.activated(node, input, "leaky_relu", float(slopes))
        if isinstance(value, Ready):
            if self.all_within(value):
                return replace(value)
            value = self.named_synapses(value, node)
        column = slopes.view(1, -1, *([1] * (len(node.shape) - 2)))
        numbers = self.per_channel(node, value, column, 0.0).tolist()
        return self._neurons(node, value, Activation("prelu", tuple(numbers)))

    def elu(self, node: Node, input, alpha, scale, input_scale) -> Ready:
        """With the factors that an ELU does not have, but torch's operator has."""
        more = () if (scale, input_scale) == (1, 1) else (scale, input_scale)
        return self.activated(node, input, "elu", alpha, *more)

    def gelu(self, node: Node, input, approximate) -> Ready:
        """Exact, or by tanh."""
        return self.activated(node, input, "gelu" if approximate == "none" else "gelu_tanh")

    def rrelu(self, node: Node, input, lower: float, upper: float) -> Ready:
        """In eval mode its slope is the mean of the random ones."""
        return self.activated(node, input, "leaky_relu", (lower + upper) / 2)

    def activated(self, node: Node, input, name: str, *numbers: float) -> Ready:
        """A scalar function by its name and numbers."""
        given = tuple(self.number(n, "parameter", node) for n in numbers)
        return self._neurons(node, self.value(input, node), Activation(name, given))

    def formula(self, node: Node, input, activation: Activation) -> Ready:
        """A scalar function that operations of the module make up together."""
        if activation == Activation("relu"):
            return self.relu(node, input)
        if activation == Activation("hardsigmoid"):
            return self.hardsigmoid(node, input)
        return self._neurons(node, self.value(input, node), activation)

    # ---- layers --------------------------------------------------------------------------------

    def all_within(self, value: Ready, low: float = 0.0, high: float = math.inf) -> bool:
        """Whether nothing of a value is below or above, for all images that there may be."""
        return all(self.within(layer, low, high) for layer in value.layers)

    def named_synapses(self, value: Ready, node: Node) -> Pending:
        """What layers give as synapses of weight 1, of neurons that are called after the layer."""
        name = value.layers[0] if len(value.layers) == 1 else node.name
        return replace(self.as_synapses(value, node), name=name)

    def _neurons(self, node: Node, value: Ready | Pending, activation: Activation) -> Ready:
        """Ends a sum with neurons; those of "hardtanh" from 0 on are ReLUs with a ceiling."""
        if isinstance(value, Ready):
            bounds = [self.bounds(layer) for layer in value.layers]
            least, most = min(low for low, _ in bounds), max(high for _, high in bounds)
            if activation.leaves(least, most):
                return replace(value)  # the ReLU of what is one already
            if (
                activation.name == "hardtanh"
                and least >= 0 >= activation.numbers[0]
                and activation.numbers[1] > 0
            ):
                activation = Activation("hardtanh", (0.0, activation.numbers[1]))
            value = self.named_synapses(value, node)
        value = self.unaveraged(value)
        layer = Layer(self.unique(value.name), "neuron", value.groups, value.bias)
        layer.residual = value.residual
        if activation.name == "hardtanh" and activation.numbers[0] == 0:
            high = activation.numbers[1]
            layer.ceiling = None if math.isinf(high) else high
        else:
            layer.activation = activation
        layer.fused = value.fused if node.name == layer.name else (*value.fused, node.name)
        return self.emitted(layer, value)
