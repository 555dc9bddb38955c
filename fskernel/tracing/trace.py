"""From a trained module to the float graph: walks the torch.fx graph and fuses node by node."""

from __future__ import annotations

import contextlib
import io
import operator
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.fx.passes.shape_prop import ShapeProp

from fskernel.codes.geometry import Geometry, conv_geometry, pair, resolve_padding
from fskernel.errors import ConversionError
from fskernel.graph import Graph, Layer
from fskernel.torch_rules.neutral import neutral
from fskernel.tracing.advice import advice, class_names
from fskernel.tracing.compare import compare
from fskernel.tracing.fuse import Fuser
from fskernel.tracing.fx_trace import copied, first_line, symbolic
from fskernel.tracing.values import Pending, Ready


@neutral()
def trace(
    module: nn.Module,
    input_size: tuple[int, ...] | None = None,
    average: bool = False,
    images: Tensor | None = None,
    compared: bool = True,
) -> Graph:
    """Folds and fuses a trained module into a Graph of float64 layers, and compares the two.

    Args:
        module: any module torch.fx can trace; it is left untouched and read in eval mode (batch
            norm with running statistics, dropout off), from a copy.
        input_size: shape [N, C, H, W] of its input. Only needed where the network's structure
            depends on it: adaptive pools to more than one cell, linear layers on flattened maps,
            average-pools with ceil_mode. The graph then is for images of that size.
        average: put average-pools in place of max-pools.
        images: float [N, C, H, W] of that size; up to four of them are what the graph and the
            module are compared on, besides random ones. See `fskernel.compare`.
        compared: False leaves the comparison out, where another has been made.

    Raises:
        ConversionError: naming the node that cannot be converted, why, and what would help; or the
            first layer that gives what the module does not.
    """
    if not isinstance(module, nn.Module):
        raise TypeError(f"module is a {type(module).__name__}: expected a torch.nn.Module")
    module = copied(module)
    traced = symbolic(module)
    if input_size is not None:
        _check_channels(traced, input_size)
        _propagate_shapes(module, traced, input_size)
    graph = _Walker(traced, average).run()
    if compared:
        compare(graph, module, images, input_size)
    return graph


def _propagate_shapes(
    module: nn.Module, traced: fx.GraphModule, input_size: tuple[int, ...]
) -> None:
    """Notes the shapes of all values for one image; both become float32 if float64 fails."""
    for dtype in (torch.float64, torch.float32):
        for part in (module, traced):
            part.to(dtype)
        # _Shapes prints the traceback that the error below carries anyway.
        with contextlib.redirect_stderr(io.StringIO()):
            try:
                return _Shapes(traced).propagate(torch.zeros(1, *input_size[1:], dtype=dtype))
            except Exception as error:
                fault = error
    raise ConversionError(
        type(module).__name__,
        f"it does not run on an image of shape {tuple(input_size[1:])} by itself "
        f"({first_line(fault.__cause__ or fault)})",
        "Pass calibration images of the shape the network was trained for",
    ) from fault


class _Shapes(ShapeProp):
    """Also keeps the numbers that are computed from shapes."""

    def run_node(self, n: fx.Node):
        result = super().run_node(n)
        if isinstance(result, int):
            n.meta["number"] = result
        elif isinstance(result, (tuple, list)) and all(isinstance(i, int) for i in result):
            n.meta["number"] = tuple(result)
        return result


def _check_channels(traced: fx.GraphModule, input_size: tuple[int, ...]) -> None:
    modules = dict(traced.named_modules())
    for node in traced.graph.nodes:
        if node.op == "placeholder":
            for user in node.users:
                conv = modules.get(user.target) if user.op == "call_module" else None
                if isinstance(conv, nn.Conv2d) and conv.in_channels != input_size[1]:
                    raise ValueError(
                        f"the images have {input_size[1]} channels (shape {tuple(input_size)}): "
                        f"'{user.target}', the network's first layer, reads {conv.in_channels}"
                    )


class _Walker(Fuser):
    """Reads the fx nodes in execution order and calls the operation each one stands for."""

    def run(self) -> Graph:
        self.live = self.read()
        self.refuse_attention()
        for node in self.traced.graph.nodes:
            if node.op == "output":
                return self.finish(node)
            if node.op == "placeholder":
                self.emit(Layer(self.unique("input"), "input"))
                self.values[node] = Ready(self.layers[-1].name, None)
                continue
            if node not in self.live:
                continue
            if self.only_shape(node):
                self.shapes.add(node)
                continue
            if node.op == "get_attr":
                module, _, name = str(node.target).rpartition(".")
                self.parameters[node] = getattr(self.traced.get_submodule(module), name)
                continue
            source = self.overwritten(node)
            old = self.values.get(source)
            value = self.convert(node)
            if isinstance(value, Pending) and self.readers(node) > 1:
                value = self.graded(value, node)
            self.values[node] = value
            if source is not None:  # whoever reads that tensor from here on reads the result
                for other, known in self.values.items():
                    if other is source or known is old:
                        self.values[other] = value
        raise AssertionError("an fx graph ends with its output")

    def read(self) -> set[fx.Node]:
        """The nodes on whose values the output depends: all there is of the network.

        An operation that writes to memory is one of them if what it writes to is, or what that may
        be a view of.
        """
        live: set[fx.Node] = set()
        nodes = list(self.traced.graph.nodes)

        def follow(node: fx.Node) -> None:
            waiting = [node]
            while waiting:
                node = waiting.pop()
                if node not in live:
                    live.add(node)
                    waiting += [] if _asks_for_shape(node) else node.all_input_nodes

        def written(node: fx.Node) -> bool:
            at = self.overwritten(node)
            while at is not None and at not in live and at.op in ("call_method", "call_function"):
                at = at.args[0] if at.args and isinstance(at.args[0], fx.Node) else None
            return at in live

        follow(nodes[-1])
        while found := [n for n in nodes if n not in live and written(n)]:
            for node in found:
                follow(node)
        return live

    def refuse_attention(self) -> None:
        """Attention is the reason, not the reshaping or normalising in front of it."""
        for node in self.traced.graph.nodes:
            if node not in self.live:
                continue
            m = self.modules[node.target] if node.op == "call_module" else node.target
            name = getattr(m, "__name__", type(m).__name__)
            if node.op in ("call_module", "call_function") and "attention" in name.lower():
                self.unsupported(node, [name])

    def only_shape(self, node: fx.Node) -> bool:
        """x.shape, x.size() and what is computed from them: no values of their own."""
        inputs = node.all_input_nodes
        return _asks_for_shape(node) or (
            node.op == "call_function" and bool(inputs) and all(n in self.shapes for n in inputs)
        )

    def overwritten(self, node: fx.Node) -> fx.Node | None:
        """The operand whose memory an in-place operation writes its result to."""
        out = node.kwargs.get("out")
        if out is not None:
            return out if isinstance(out, fx.Node) else None
        if node.op == "call_module":
            inplace = getattr(self.modules[node.target], "inplace", False)
        elif node.op == "call_method":
            inplace = node.target.endswith("_")
        else:
            name = getattr(node.target, "__name__", "")
            inplace = node.target in _IN_PLACE or (name.endswith("_") and not name.startswith("_"))
            inplace = inplace or node.kwargs.get("inplace", False)
            at = {F.relu: 1, F.relu6: 1, F.hardtanh: 3}.get(node.target)
            inplace = inplace or (at is not None and node.args[at : at + 1] == (True,))
        first = node.args[0] if node.args else None
        return first if inplace and isinstance(first, fx.Node) else None

    def readers(self, node: fx.Node) -> int:
        """Users that read the node's own value: those before it is overwritten, and that one."""
        users = [
            n
            for n in self.traced.graph.nodes
            if n in node.users and n in self.live and not _asks_for_shape(n)
        ]
        for i, user in enumerate(users):
            if self.overwritten(user) is node:
                return i + 1
        return len(users)

    def convert(self, node: fx.Node) -> Ready | Pending:
        if node.op == "call_module":
            return self.module(node, self.modules[node.target])
        return self.function(node)

    def module(self, node: fx.Node, m: nn.Module) -> Ready | Pending:
        args = node.args[0] if node.args else next(iter(node.kwargs.values()))
        if type(m) is nn.Conv2d:
            try:
                geometry = conv_geometry(m)
            except ValueError as error:
                self.refuse(node, str(error), "Pad with zeros")
            return self.conv(node, args, *self.weights(node, m), geometry)
        if type(m) in (nn.BatchNorm1d, nn.BatchNorm2d, nn.SyncBatchNorm):
            tensors = (m.running_mean, m.running_var, m.weight, m.bias)
            names = ("running_mean", "running_var", "weight", "bias")
            exact = (self.exact(*pair, node) for pair in zip(tensors, names, strict=True))
            return self.batch_norm(node, args, *exact, m.eps)
        if type(m) is nn.Linear:
            return self.linear(node, args, *self.weights(node, m))
        if type(m) is nn.ReLU:
            return self.relu(node, args, None)
        if type(m) in (nn.ReLU6, nn.Hardtanh):
            return self.clamp(node, args, m.min_val, m.max_val)
        if type(m) is nn.MaxPool2d:
            return self.max_pool(
                node,
                args,
                (m.kernel_size, m.stride, m.padding, m.dilation, m.ceil_mode, m.return_indices),
            )
        if type(m) is nn.AvgPool2d:
            return self.avg_pool(
                node,
                args,
                (m.kernel_size, m.stride, m.padding, m.ceil_mode, m.count_include_pad),
                m.divisor_override,
            )
        if isinstance(m, (nn.AdaptiveAvgPool2d, nn.Flatten, nn.ConstantPad2d, *_IDENTITIES)):
            self.absorbed.append(str(node.target))
        if type(m) is nn.AdaptiveAvgPool2d:
            return self.adaptive(node, args, m.output_size)
        if type(m) is nn.Flatten:
            if m.start_dim != 1 or m.end_dim != -1:
                self.refuse(node, f"it is {m}", "Flatten from dimension 1 to the last")
            return self.flatten(node, args)
        if type(m) in (nn.ZeroPad2d, nn.ConstantPad2d):
            return self.pad(node, args, m.padding, "constant", m.value)
        if isinstance(m, _IDENTITIES):
            return self.value(args, node)
        self.unsupported(node, class_names(type(m)))

    def weights(self, node: fx.Node, m: nn.Conv2d | nn.Linear) -> tuple[Tensor, Tensor | None]:
        return self.exact(m.weight, "weight", node), self.exact(m.bias, "bias", node)

    def unsupported(self, node: fx.Node, names: list[str]):
        """Refuses a module or function by the names of its classes or its own.

        A module around it that is known to have no Few-Spikes form is a better reason than what
        its forward happens to begin with.
        """
        if all(user.op == "output" for user in node.users):
            does = _AFTER_LOGITS.get(names[0].lower().replace("_", ""))
            if does or self.reads_logits(node):
                self.refuse(
                    node,
                    f"{names[0]} {does or 'acts on the logits'}",
                    "Return the logits: apply it to what the converted network returns",
                )
        for path, kind in self.owners(node):
            known = advice(class_names(kind))
            if known:
                raise ConversionError(path, f"{kind.__name__}: {known.reason}", known.cure)
        known = advice(names)
        reason = known.reason if known else "it has no Few-Spikes form"
        self.refuse(node, f"{names[0]}: {reason}", known.cure if known else SUPPORTED)

    def reads_logits(self, node: fx.Node) -> bool:
        """Whether an operation reads what a linear layer gives."""
        value = self.values.get(next(iter(node.all_input_nodes), None))
        return isinstance(value, Pending) and value.flat

    def function(self, node: fx.Node) -> Ready | Pending:
        target, args, kwargs = node.target, node.args, dict(node.kwargs)
        if target in _SIZED:
            args, kwargs = fx.node.map_arg((args, kwargs), lambda n: self.number(n, node))
        kwargs = {_NUMPY.get(name, name): value for name, value in kwargs.items()}
        if node.op == "call_method":
            target = _METHODS.get(target, target)
        for name in ("input", "tensors", "x"):
            if not args and name in kwargs:
                args = (kwargs.pop(name),)
        if kwargs.pop("out", None) is not None:
            self.refuse(node, "it writes to out=...", "Assign the result instead")
        if not args:
            self.refuse(node, "its operand is not among its arguments", "Pass it by position")
        if target in _ADDS:
            args = (*args, *([kwargs.pop("other")] if "other" in kwargs else []))
            if kwargs.pop("alpha", 1) != 1 or len(args) != 2:
                self.refuse(node, "it scales one of the branches", "Use a plain addition")
            if 0 in args:  # where sum() begins
                return self.value(args[1] if args[0] == 0 else args[0], node)
            return self.add(node, args[0], args[1])
        if target in _SCALES:
            given = (*args, *kwargs.values()) if set(kwargs) <= {"other"} else ()
            scaled = self.scaling(node, target, given)
            if scaled is not None:
                return scaled
        if target in _RELUS:
            return self.relu(node, args[0], None)
        if target is F.relu6:
            return self.relu(node, args[0], 6.0)
        if target in _CLAMPS:
            return self.clamp(node, args[0], *_bind(_CLAMPS[target], args[1:3], kwargs))
        if target is F.batch_norm:
            *tensors, training, _, eps = _bind(_BATCH_NORM, args[1:], kwargs)
            if training:
                self.refuse(node, "it uses statistics of the batch", "Pass training=self.training")
            exact = (self.parameter(t, node) for t in tensors)
            return self.batch_norm(node, args[0], *exact, eps)
        if target is F.conv2d:
            return self.functional_conv(node, args, kwargs)
        if target is F.linear:
            weight, bias = _bind({"weight": None, "bias": None}, args[1:], kwargs)
            weight, bias = self.parameter(weight, node), self.parameter(bias, node)
            return self.linear(node, args[0], weight, bias)
        if target is F.pad:
            pad, mode, fill = _bind({"pad": (), "mode": "constant", "value": 0}, args[1:], kwargs)
            return self.pad(node, args[0], tuple(pad), mode, fill)
        if target in (torch.cat, torch.concat):
            (dim,) = _bind({"dim": 0}, args[1:], kwargs)
            return self.concat(node, args[0], dim)
        if target is F.max_pool2d:
            return self.max_pool(node, args[0], _bind(_MAX_POOL, args[1:], kwargs))
        if target in (F.avg_pool2d,):
            *rest, divisor = _bind(_AVG_POOL, args[1:], kwargs)
            return self.avg_pool(node, args[0], tuple(rest), divisor)
        if target is F.adaptive_avg_pool2d:
            return self.adaptive(node, args[0], _bind({"output_size": None}, args[1:], kwargs)[0])
        if target in (torch.mean,):
            dim = args[1] if len(args) > 1 else kwargs.get("dim")
            if not isinstance(dim, (tuple, list)) or sorted(d % 4 for d in dim) != [2, 3]:
                self.refuse(node, f"mean over {dim}", "Average over both axes of the map, (2, 3)")
            value = self.adaptive(node, args[0], 1)
            value.flat = not (args[2] if len(args) > 2 else kwargs.get("keepdim", False))
            return value
        if target is torch.flatten:
            start = _bind({"start_dim": 0, "end_dim": -1}, args[1:], kwargs)
            if start != (1, -1):
                self.refuse(node, f"flatten{start}", "Flatten from dimension 1 to the last")
            return self.flatten(node, args[0])
        if target in (torch.reshape, "view"):
            shape = args[1:] if len(args) != 2 or isinstance(args[1], int) else args[1]
            if len(shape) > 2:
                self.unsupported(node, ["reshape"])
            if len(shape) != 2 or not self.flattens(node, *shape):
                self.refuse(node, f"it reshapes to {tuple(shape)}", "Use torch.flatten(x, 1)")
            return self.flatten(node, args[0])
        if target is operator.getitem:
            return self.take(node, args[0], args[1])
        if target in (F.dropout, F.dropout2d):
            if _bind({"p": 0.5, "training": True}, args[1:], kwargs)[1]:
                self.refuse(
                    node, "this dropout is on at inference too", "Pass training=self.training"
                )
            return self.value(args[0], node)
        if target in ("contiguous", "detach", torch.detach, getattr):
            return self.value(args[0], node)
        if target in ("clone", torch.clone):
            return replace(self.value(args[0], node))
        if target in ("squeeze", torch.squeeze):
            return self.squeeze(node, args[0], args[1] if len(args) > 1 else kwargs.get("dim"))
        known = self.values.get(args[0]) if isinstance(args[0], fx.Node) else None
        if isinstance(known, Ready) and self.layer(known.layer).kind == "input":
            self.refuse(
                node,
                f"it computes {getattr(target, '__name__', target)} of the image itself",
                "Do that in the preprocessing (torchvision's googlenet and inception_v3: "
                "model.transform_input = False, and normalise with mean 0.5 and deviation 0.5)",
            )
        self.unsupported(node, [getattr(target, "__name__", str(target))])

    def scaling(self, node: fx.Node, target: object, args: tuple) -> Pending | None:
        """A value times (or over) a constant; None: there is no constant among the arguments."""
        divides = target in _DIVISIONS
        for i, factor in enumerate(args if len(args) == 2 else ()):
            if isinstance(factor, fx.Node):
                factor = self.parameters.get(factor)
            elif isinstance(factor, bool) or not isinstance(factor, (int, float)):
                factor = None
            if factor is None or divides and i == 0:
                continue
            factor = self.exact(torch.as_tensor(factor, dtype=torch.float64), "factor", node)
            return self.scaled(node, args[1 - i], 1 / factor if divides else factor)
        return None

    def number(self, argument: fx.Node, user: fx.Node) -> fx.Node | int | tuple[int, ...]:
        """An argument that is computed from shapes as the number or numbers it is."""
        if argument not in self.shapes:
            return argument
        if "number" not in argument.meta:
            self.refuse(
                user,
                f"its argument {argument} depends on the size of the image",
                "Pass calibration images or input_size=(N, C, H, W)",
            )
        self.depends_on_size()
        return argument.meta["number"]

    def clamp(self, node: fx.Node, source: fx.Node, low: object, high: object) -> Ready:
        """A ReLU, with a ceiling where `high` is given."""
        if low != 0 or not (high is None or isinstance(high, (int, float)) and high > 0):
            self.refuse(
                node,
                f"it clips to [{low}, {high}]; the words of FS neurons begin at 0",
                "Clip to [0, positive], as ReLU and ReLU6 do",
            )
        return self.relu(node, source, None if high is None else float(high))

    def take(self, node: fx.Node, source: fx.Node, index: object) -> Ready | Pending:
        """x[:, :, ::s, ::s] of an option-A shortcut; x[:, :, 0, 0] of a map of one pixel."""
        index = list(index) if isinstance(index, tuple) else [index]
        if Ellipsis in index:
            at = index.index(Ellipsis)
            index[at : at + 1] = [slice(None)] * (5 - len(index))
        index += [slice(None)] * (4 - len(index))
        if index == [slice(None), slice(None), 0, 0]:
            return self.squeeze(node, source, None)
        image = isinstance(value := self.value(source, node), Ready) and value.channels is None
        if not image and index[0] == slice(None) != index[1]:
            self.refuse(
                node,
                "it takes a part of an activation, some of its channels",
                "Make the parts by layers of their own, each with its share of the weights (torch: "
                "two convolutions in place of one whose output is cut)",
            )
        whole = all(isinstance(i, slice) and i.start in (None, 0) and i.stop is None for i in index)
        steps = [i.step or 1 for i in index] if whole else []
        if len(steps) != 4 or steps[:2] != [1, 1] or not all(isinstance(s, int) for s in steps):
            self.refuse(
                node,
                "it takes a part of an activation",
                "Only every n-th row and column can be taken, as in x[:, :, ::2, ::2]; transform "
                "images in the preprocessing (torchvision: model.transform_input = False)",
            )
        return self.subsample(node, source, (steps[2], steps[3]))

    def functional_conv(self, node: fx.Node, args: tuple, kwargs: dict) -> Pending:
        weight, bias, stride, padding, dilation, groups = _bind(_CONV, args[1:], kwargs)
        weight, bias = self.parameter(weight, node), self.parameter(bias, node)
        kernel, dilation = tuple(weight.shape[2:]), pair(dilation)
        geometry = Geometry(
            kernel, pair(stride), resolve_padding(padding, kernel, dilation), dilation, groups
        )
        return self.conv(node, args[0], weight, bias, geometry)

    def flattens(self, node: fx.Node, rows: object, columns: object) -> bool:
        """Whether view(rows, columns) keeps images apart, and so takes all their features."""
        if isinstance(rows, fx.Node):
            if rows.target is operator.getitem:
                return rows.args[1] == 0
            return rows.target == "size" and rows.args[1:] == (0,)
        # Shapes were propagated for one image.
        return rows == -1 and columns != -1 and self.shape(node) == (1, columns)


SUPPORTED = (
    "Supported, as modules and as functions: Conv2d, BatchNorm, Linear, ReLU, ReLU6, Hardtanh and "
    "clamp from 0 on, MaxPool2d, AvgPool2d, AdaptiveAvgPool2d, mean over the map, zero padding, "
    "x[:, :, ::n, ::n], flatten, Dropout, Identity, additions of branches, constant factors, "
    "concatenations"
)
_AFTER_LOGITS = dict.fromkeys(
    ("softmax", "logsoftmax", "sigmoid", "logsigmoid"), "turns the logits into probabilities"
)
_IDENTITIES = (nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d)
_IN_PLACE = {operator.iadd, operator.isub, operator.imul, operator.itruediv}  # besides relu_, ...
_DIVISIONS = {operator.truediv, operator.itruediv, torch.div, torch.true_divide}
_SCALES = _DIVISIONS | {operator.mul, operator.imul, torch.mul, torch.multiply}
_NUMPY = {"axis": "dim", "keepdims": "keepdim"}  # other names of the same arguments
_ADDS = {operator.add, operator.iadd, torch.add}
_RELUS = {F.relu, torch.relu, torch.relu_, F.relu_}
_BOUNDS = {"min": None, "max": None}
_TANH = {"min_val": -1.0, "max_val": 1.0}
_CLAMPS = {  # what a call leaves out
    torch.clamp: _BOUNDS,
    torch.clamp_: _BOUNDS,
    torch.clip: _BOUNDS,
    torch.clip_: _BOUNDS,
    torch.clamp_min: _BOUNDS,
    torch.clamp_min_: _BOUNDS,
    F.hardtanh: _TANH,
    F.hardtanh_: _TANH,
}
_SIZED = {F.avg_pool2d, F.max_pool2d, F.adaptive_avg_pool2d, F.pad}  # by numbers
_METHODS = {
    "clamp": torch.clamp,
    "clamp_": torch.clamp,
    "clip": torch.clamp,
    "clip_": torch.clamp,
    "clamp_min": torch.clamp_min,
    "clamp_min_": torch.clamp_min,
    "add": torch.add,
    "add_": torch.add,
    "relu": torch.relu,
    "relu_": torch.relu,
    "mean": torch.mean,
    "mul": torch.mul,
    "mul_": torch.mul,
    "div": torch.div,
    "div_": torch.div,
    "flatten": torch.flatten,
    "reshape": torch.reshape,
}
_CONV = {
    "weight": None,
    "bias": None,
    "stride": 1,
    "padding": 0,
    "dilation": 1,
    "groups": 1,
}
_BATCH_NORM = {
    "running_mean": None,
    "running_var": None,
    "weight": None,
    "bias": None,
    "training": False,
    "momentum": 0.1,
    "eps": 1e-5,
}
_MAX_POOL = {
    "kernel_size": None,
    "stride": None,
    "padding": 0,
    "dilation": 1,
    "ceil_mode": False,
    "return_indices": False,
}
_AVG_POOL = {
    "kernel_size": None,
    "stride": None,
    "padding": 0,
    "ceil_mode": False,
    "count_include_pad": True,
    "divisor_override": None,
}


def _asks_for_shape(node: fx.Node) -> bool:
    if node.op == "call_method":
        return node.target in ("size", "dim")
    return node.op == "call_function" and node.target is getattr and node.args[1] != "data"


def _bind(defaults: dict, args: tuple, kwargs: dict) -> tuple:
    """Positional and keyword arguments of a call as one tuple in the order of `defaults`."""
    values = dict(defaults)
    values.update(zip(defaults, args, strict=False))
    values.update({k: v for k, v in kwargs.items() if k in defaults})
    return tuple(values.values())
